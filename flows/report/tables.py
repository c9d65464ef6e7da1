"""Tables of the report as plain text, which the template renders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table as ScreenTable

# A number, maybe with its interval or share; "-" if there is none.
_MEASURE = re.compile(r"-|-?[\d.,]+(e-?\d+)?%?( [\[(].*[\])])?")
LETTERS_ACROSS, LETTERS_BETWEEN = 120, 2
MOST_LETTERS_OF_CODE = 40  # report.css breaks longer names
Kind = Literal["text", "number", "code", "codes"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading and the kind of its cells: text, numbers, a name in code, or a tuple of such names."""

    heading: str
    kind: Kind = "text"


def numbers(*headings: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(heading, "number") for heading in headings)


@dataclass(frozen=True, slots=True)
class Table:
    """A table that readers can sort and filter.

    Args:
        name: of the HTML element, unique on the page.
        caption: what it shows.
        columns: at least one; the first names its row.
        rows: cells, text, or a tuple of texts if the column has codes.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str | tuple[str, ...]]]

    @property
    def dense(self) -> bool:
        """Return whether the table needs small letters to fit an average screen."""
        cells = zip([column.heading for column in self.columns], *self.rows, strict=True)
        widest = [
            min(max(map(_least_letters, own)), MOST_LETTERS_OF_CODE if "code" in column.kind else LETTERS_ACROSS)
            for column, own in zip(self.columns, cells, strict=True)
        ]
        return sum(widest) + LETTERS_BETWEEN * len(widest) > LETTERS_ACROSS


def _least_letters(cell: str | tuple[str, ...]) -> int:
    """Count the letters of a cell that stay on one line: a number with its suffix, or the longest word."""
    parts = cell if isinstance(cell, tuple) else (cell,) if _MEASURE.fullmatch(cell) else cell.split()
    return max(map(len, parts), default=0)


def of_screen(name: str, table: ScreenTable) -> Table:
    """Convert a table of the terminal, so that both show the same."""
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    columns = [
        Column(str(column.header).replace("\n", ", "), "number" if all(map(_MEASURE.fullmatch, own)) else "text")
        for column, own in zip(table.columns, cells, strict=True)
    ]
    return Table(name, str(table.title), columns, list(zip(*cells, strict=True)))

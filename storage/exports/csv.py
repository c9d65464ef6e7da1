"""The trait CSV: one row per video, scored or not, for spreadsheets and programs.

RFC 4180 with CRLF, UTF-8 without a byte order mark, one header line with the names of `storage.exports.columns`. Text
is quoted; numbers, times and empty cells are not.

Scores, bounds and quality facts are float32, written as the shortest decimals that give the same float32; times are
ISO 8601 in UTC, 2026-01-31T23:59:00Z. Without a score the cells for numbers are empty, and so are all bounds if the
model has no calibration.

A spreadsheet runs a cell that begins with = + - @, a tab or a line break as a formula, even if it is quoted. A program
that splits lines at ; or | or tabs begins a cell after each of them, and after each line break. Therefore an apostrophe
is written

- in front of a text cell that begins like a formula, or with an apostrophe of its own;
- in front of a = + - or @ behind a comma, a semicolon, a |, a tab or a line break within the cell.

White space and zero-width characters before the = + - or @ do not matter, because some spreadsheets trim them.

A cell that begins with - and otherwise holds only letters, digits, spaces and _ - . / stays as it is: 62 of the 6,000
training clips of First Impressions have names like "-AmMDnVl4s8.003.mp4", and analysts join on them. Without a
parenthesis, a quote or another operator, such a cell calls nothing; at worst a spreadsheet shows an error in its place.

`GUARD` matches exactly these apostrophes: replacing its matches by `GUARD_REPLACEMENT`, as `read_trait_csv` does, gives
the exact text. The pattern uses no look-around, which DuckDB and Polars do not support. Cells for numbers have no
apostrophes; a negative score is a number, not a formula.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import MALFORMED, StoreError
from storage.exports.columns import TIME, Column, Row, Unscored, trait_columns, trait_tables
from storage.files.commit import commit_file
from storage.files.paths import StorePath, local_copy, store_path
from storage.tables.scores import Score

_OPERATOR = "[=+\\-@\uff1d\uff0b\uff0d\uff20]"  # the last four are full-width forms
# Characters that spreadsheets trim or do not show: Unicode's white space and zero-width characters.
_TRIMMED = "\x0b\x0c\x1c-\x1f \x85\xa0\xad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff"
GUARD = rf"""^'|([,;|\t\r\n]['"{_TRIMMED}]*)'({_OPERATOR})"""
GUARD_REPLACEMENT = r"\1\2"
CSV_NOTE = (
    "An apostrophe precedes a text cell that a spreadsheet would run as a formula or that begins with an "
    "apostrophe, and each = + - or @ that follows a comma, semicolon, |, tab or line break within a cell; white "
    "space and zero-width characters before the = + - or @ do not matter. Cells that begin with - and otherwise hold "
    "only letters, digits, spaces and _ - . / have none. formulaGuard has the regular expression that matches these "
    "apostrophes, and the replacement that gives the exact text."
)
_STARTS_FORMULA = re.compile(rf"""['"{_TRIMMED}]*(?:{_OPERATOR}|[\t\r\n])|'""")
_INNER_START = re.compile(rf"""([,;|\t\r\n]['"{_TRIMMED}]*)({_OPERATOR})""")
# Accents may be separate, combining characters.
_PLAIN_NAME = re.compile(r"-[\w\u0300-\u036f ./-]*")
_NEVER_GUARDED = r"\A[0-9A-Za-z_./][0-9A-Za-z_./: -]*\z"  # a text that is only quoted, as nearly all are
_GUARD = re.compile(GUARD)
_STAMP = "%Y-%m-%dT%H:%M:%SZ"


def write_trait_csv(path: str | StorePath, rows: Iterable[Row], *, trait_names: Sequence[str], model: str) -> int:
    """Write the CSV with all columns, completely or not at all, holding a few hundred rows at a time.

    Args:
        path: of the CSV; an older file there is replaced.
        rows: in ascending order of video_id, each video once.
        trait_names: names of the columns for the traits, in the trait order.
        model: that the scores come from, NAME/VERSION.

    Returns:
        The number of rows.

    Raises:
        ValueError: the rows are out of order, a video occurs twice, or the number of names differs from that of the
            traits.
        StoreError: the operating system refused.
    """
    columns = trait_columns(trait_names, model)
    with commit_file(store_path(path)) as temporary:
        return write_csv_tables(temporary, trait_tables(rows, columns), columns)


def write_csv_tables(path: Path, tables: Iterable[pa.Table], columns: Sequence[Column[Any]]) -> int:
    """Write tables with these columns to a local file; returns the number of rows."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(column.name for column in columns) + "\r\n")
        for table in tables:
            rows = pc.binary_join_element_wise(*map(_cells, table.columns), ",")
            file.writelines(f"{row}\r\n" for row in rows.to_pylist())
            count += len(table)
    return count


def read_trait_csv(path: str | StorePath, *, trait_names: Sequence[str]) -> Iterator[Row]:
    """Read the result of `write_trait_csv`, row by row, without the name of the model.

    Raises:
        StoreError: the file cannot be read or is not a trait CSV with these traits.
    """
    columns = trait_columns(trait_names)
    names = [column.name for column in columns]
    try:
        with local_copy(store_path(path)) as copy, copy.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            if next(reader, None) != names:
                raise StoreError(f"{path} is not a trait CSV: its first line is not the header")
            for cells in reader:
                values = [_value(column, cell) for column, cell in zip(columns, cells, strict=True)]
                yield _row(dict(zip(names, values, strict=True)), trait_names)
    except (*MALFORMED, csv.Error) as error:
        raise StoreError(f"cannot read {path} as a trait CSV: {error}") from error


def _row(cells: dict[str, Any], trait_names: Sequence[str]) -> Row:
    if cells["status"] == "failed":
        return Unscored(cells["video_id"], cells["video_sha256"], cells["reason"], cells["features"])
    if cells["status"] != "scored":
        raise ValueError(f"a row has the status {cells['status']!r}")
    keys = dict(part.split(":") for part in cells["features"].split())
    low, high = (tuple(cells[f"{name}_{bound}"] for name in trait_names) for bound in ("low", "high"))
    of_score = {name: cells[name] for name in Score.__slots__ if name in cells}
    return Score(
        **of_score,
        traits=tuple(cells[name] for name in trait_names),
        static_key=keys["static"],
        dynamic_key=keys["dynamic"],
        low=None if None in low else low,
        high=None if None in high else high,
    )


def _cells(values: pa.ChunkedArray[Any]) -> Any:
    """Return a column as text for a CSV."""
    if values.type == pa.string():
        if pc.all(pc.match_substring_regex(values, _NEVER_GUARDED), skip_nulls=False).as_py():
            return pc.binary_join_element_wise('"', values, '"', "")  # type: ignore[call-overload]  # takes scalars, too
        return pa.chunked_array([[_text(value or "") for value in values.to_pylist()]], pa.string())
    # Arrow writes floats as the shortest decimals that round-trip their own type.
    cells: Any = pc.strftime(values, _STAMP) if values.type == TIME else values.cast(pa.string())
    if pa.types.is_floating(values.type):
        if pc.any(pc.invert(pc.is_finite(values))).as_py():
            raise ValueError("scores and facts of quality must be finite numbers")
        cells = pc.replace_substring_regex(cells, r"\A-?\d+\z", r"\0.0")  # else programs take some columns for integers
    return pc.fill_null(cells, "")


def _value(column: Column[Row], cell: str) -> Any:
    return None if cell == "" and column.type != pa.string() else _VALUES[column.type](cell)


def _text(text: str) -> str:
    if not text:
        return ""
    guarded = _guarded(text).replace('"', '""')
    return f'"{guarded}"'


def _guarded(text: str) -> str:
    if _PLAIN_NAME.fullmatch(text):
        return text
    inside = _INNER_START.sub(r"\1'\2", text)
    return f"'{inside}" if _STARTS_FORMULA.match(text) else inside


_VALUES: dict[pa.DataType, Callable[[str], Any]] = {
    pa.string(): lambda cell: _GUARD.sub(GUARD_REPLACEMENT, cell),
    pa.float32(): lambda cell: float(np.float32(cell)),
    pa.int32(): int,
    TIME: lambda cell: datetime.strptime(f"{cell}+0000", f"{_STAMP}%z"),
}

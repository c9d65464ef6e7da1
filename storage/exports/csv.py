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

`GUARD` matches exactly these apostrophes: replacing its matches by `GUARD_REPLACEMENT` gives the exact text. It uses no
look-around, which DuckDB and Polars do not support. Cells for numbers have no apostrophes, and a negative score is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.exports.columns import TIME, Column

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
_STAMP = "%Y-%m-%dT%H:%M:%SZ"


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

"""Tables saved by people and spreadsheets: CSV in any common encoding and with any common separator."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from fusion.errors import LabelError

ENDINGS = (".csv", ".tsv", ".txt")
SEPARATORS = (",", ";", "\t")
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SEPARATOR_LINE = re.compile(r'"?sep=([,;|\t])"?\r?\n?')  # Excel writes and reads this line above the header


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table in memory.

    Attributes:
        header: names of the columns, as in the file.
        rows: cells of each row, one per column; rows without any text are left out.
        lines: number of the line in which each row ends, from 1.
    """

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    separator: str


def read_text_table(path: Path, known: Collection[str]) -> TextTable:
    """Read a table whose cells are separated by commas, semicolons or tabs.

    The header alone determines the separator: the one that yields the most known names, or the comma if none yields
    any. The encoding is UTF-8, with or without a byte order mark, UTF-16 (Excel's "Unicode text"), or else Windows-1252
    or Latin-1.

    Args:
        known: expected names of columns, in lower case.

    Raises:
        LabelError: the file is empty or not such a table, or a row has more or fewer cells than the header.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
    if start.startswith(b"PK\x03\x04"):
        raise LabelError(f"{path} is a workbook or an archive, not text: save the table as CSV")
    try:
        for encoding in _encodings(start):
            try:
                with path.open(encoding=encoding, newline="") as file:
                    return _read(path, file, known)
            except UnicodeDecodeError as error:
                reason = error
    except csv.Error as error:
        raise LabelError(f"{path} is not a CSV file ({error})") from error
    raise LabelError(f"{path} is not a CSV file ({reason})") from reason


def _encodings(start: bytes) -> tuple[str, ...]:
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if marked is not None:
        return (marked,)
    if b"\0" in start:  # a header begins with ASCII letters; in UTF-16 every second byte of these is 0
        return ("utf-16-be",) if start.startswith(b"\0") else ("utf-16-le",)
    return ("utf-8", "cp1252", "latin-1")


def _read(path: Path, file: TextIO, known: Collection[str]) -> TextTable:
    first, above = file.readline(), 0
    stated = _SEPARATOR_LINE.fullmatch(first)
    if stated is not None or _is_blank(first):
        first, above = file.readline(), 1
        while first and _is_blank(first):
            first, above = file.readline(), above + 1
    if not first:
        raise LabelError(f"{path} is empty: it needs a header and one row per clip")
    separator = stated[1] if stated is not None else _separator_of(first, known)
    reader = csv.reader(chain([first], file), delimiter=separator, strict=True)
    header = next(reader)
    table = TextTable(header, [], [], separator)
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        line = above + reader.line_num
        while len(row) > len(header) and not row[-1].strip():
            row.pop()
        if len(row) != len(header):
            torn = separator == "," and len(row) > len(header)
            advice = "; write numbers as 0.5, or as 0,5 in a file separated by ; or tabs" if torn else ""
            cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
            raise LabelError(f"{path}, line {line}: {cells}, but the header has {len(header)}{advice}")
        table.rows.append(row)
        table.lines.append(line)
    return table


def _is_blank(line: str) -> bool:
    """Return whether a line has only empty cells, like those above a table that begins below a sheet's first row."""
    return not line.strip(' "\r\n' + "".join(SEPARATORS))


def _separator_of(header: str, known: Collection[str]) -> str:
    def found(separator: str) -> int:
        names = next(csv.reader([header], delimiter=separator))
        return sum(name.strip().lower() in known for name in names)

    return max(SEPARATORS, key=found)

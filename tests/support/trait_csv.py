"""Trait CSVs of drawn rows, and their exact contents again: through Python's own reader and the documented pattern."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storage.exports.columns import TIME, Row, Unscored, trait_columns, trait_tables
from storage.exports.csv import GUARD, GUARD_REPLACEMENT, write_csv_tables
from storage.files.commit import commit_file
from storage.tables.scores import Score


def write_trait_csv(path: Path, rows: Iterable[Row], *, trait_names: Sequence[str], model: str) -> int:
    """Write the CSV of an export without its description; return the number of rows."""
    columns = trait_columns(trait_names, model)
    with commit_file(path) as temporary:
        return write_csv_tables(temporary, trait_tables(rows, columns), columns)


def read_trait_csv(path: Path, *, trait_names: Sequence[str]) -> Iterator[Row]:
    """Read the rows again, without the name of the model."""
    columns = trait_columns(trait_names)
    names = [column.name for column in columns]
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        assert next(reader) == names
        for cells in reader:
            values = {column.name: _value(column.type, cell) for column, cell in zip(columns, cells, strict=True)}
            yield _row(values, trait_names)


def _value(kind: pa.DataType, cell: str) -> Any:
    if kind == pa.string():
        return re.sub(GUARD, GUARD_REPLACEMENT, cell)
    if not cell:
        return None
    if kind == TIME:
        return datetime.strptime(cell, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return int(cell) if kind == pa.int32() else float(np.float32(cell))


def _row(cells: dict[str, Any], trait_names: Sequence[str]) -> Row:
    if cells["status"] == "failed":
        return Unscored(cells["video_id"], cells["video_sha256"], cells["reason"], cells["features"])
    assert cells["status"] == "scored"
    keys = dict(part.split(":") for part in cells["features"].split())
    low, high = (tuple(cells[f"{name}_{bound}"] for name in trait_names) for bound in ("low", "high"))
    return Score(
        **{name: cells[name] for name in Score.__slots__ if name in cells},
        traits=tuple(cells[name] for name in trait_names),
        static_key=keys["static"],
        dynamic_key=keys["dynamic"],
        low=None if None in low else low,
        high=None if None in high else high,
    )

"""The same rows as in a CSV as Parquet: exact names, typed numbers, empty cells as nulls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.exports.columns import Column, schema_of

ROWS_PER_GROUP = 32_768


def write_parquet_tables(path: Path, tables: Iterable[pa.Table], columns: Sequence[Column[Any]]) -> int:
    """Write tables with these columns to a local file, a group of rows at a time; returns the number of rows."""
    count = 0
    waiting: list[pa.Table] = []
    with pq.ParquetWriter(path, schema_of(columns), compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            waiting.append(table)
            count += len(table)
            if sum(map(len, waiting)) >= ROWS_PER_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return count

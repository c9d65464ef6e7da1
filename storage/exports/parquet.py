"""The same rows as in the trait CSV as Parquet: exact names, typed numbers, empty cells as nulls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.exports.columns import Row, TraitColumn, in_order_once

ROWS_PER_GROUP = 32_768


def write_parquet_rows(path: Path, rows: Iterable[Row], columns: Sequence[TraitColumn]) -> int:
    """Write a local file with these columns, holding a group of rows at a time; returns the number of rows.

    Raises:
        ValueError: the rows are out of order, or a video occurs twice.
    """
    schema = pa.schema(
        [pa.field(column.name, column.type, metadata={"description": column.description}) for column in columns]
    )
    count = 0
    waiting = in_order_once(rows)
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        while some := list(islice(waiting, ROWS_PER_GROUP)):
            arrays = [pa.array([column.value(row) for row in some], column.type) for column in columns]
            writer.write_table(pa.table(arrays, schema=schema))
            count += len(some)
    return count

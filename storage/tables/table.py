"""Small tables that only ever grow: each addition is one Parquet part, and the newest part is valid."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import StoreError, damaged
from storage.files.commit import commit_file
from storage.files.parts import list_parts, new_part
from storage.files.paths import StorePath, fetched, in_order, parquet_source

TABLE_VERSION = 1
_VERSION_KEY = b"traitline_table_version"
_CHECKSUM_KEY = b"traitline_rows_sha256"  # absent in older parts; Parquet's own checksums leave out its footer
SUFFIX = ".parquet"

Check = Callable[[pa.Table], None]
"""Raises ValueError if the rows of a part hold impossible values."""

_MOST_ROWS_PER_BYTE = 4  # no two rows are the same, so compression cannot do better


def add_rows(
    folder: StorePath, prefix: str, rows: pa.Table, confirm: Callable[[Path], None] | None = None
) -> StorePath:
    """Commit rows as one part, as a whole; return its path.

    Args:
        folder: of the parts.
        prefix: of their names.
        rows: to add.
        confirm: called with the temporary file immediately before the rename; an exception from it prevents the commit.

    Raises:
        StoreError: the operating system refused.
    """
    path = new_part(folder, prefix, SUFFIX)
    about = {_VERSION_KEY: str(TABLE_VERSION), _CHECKSUM_KEY: _checksum(rows)}
    versioned = rows.replace_schema_metadata(about)
    with commit_file(path) as temporary:
        pq.write_table(versioned, temporary, compression="zstd", write_page_checksum=True)
        if confirm is not None:
            confirm(temporary)
    return path


def read_rows(folder: StorePath, prefix: str, schema: pa.Schema) -> pa.Table:
    """Read the rows of all parts, oldest part first, with the part's number as an additional last column `part`.

    Raises:
        StoreError: a part is damaged, has other columns, or was written by a newer version of the program.
    """
    tables = []
    for number, rows in enumerate(in_order(lambda path: read_part(path, schema), list_parts(folder, prefix, {SUFFIX}))):
        tables.append(rows.append_column(pa.field("part", pa.int64(), nullable=False), pa.array([number] * len(rows))))
    whole = schema.append(pa.field("part", pa.int64(), nullable=False))
    return pa.concat_tables(tables) if tables else whole.empty_table()


def latest_rows(
    folder: StorePath, prefix: str, schema: pa.Schema, check: Check | None = None
) -> Iterator[dict[str, Any]]:
    """Read the newest row for each value of the first column, a text, in ascending order of that column.

    A part is in memory only while the merge is within its range of values. The parts of one run have consecutive
    ranges, so the number of parts in memory is the number of runs that added to the same range.

    Raises:
        StoreError: as `read_rows`.
    """
    newest_first = list_parts(folder, prefix, {SUFFIX})[::-1]
    # Read whole parts rather than the footer's statistics or one column: only a whole part can be checked, and pyarrow
    # can crash or exhaust the memory on a damaged one.
    firsts = in_order(lambda path: pc.min(read_part(path, schema, check).column(0)).as_py(), newest_first)
    found = zip(newest_first, firsts, strict=True)
    parts = [_sorted_rows(path, schema, first) for path, first in found if first is not None]
    previous = None
    # Of equal values, `merge` yields those of the first iterator first.
    for value, row in heapq.merge(*parts, key=lambda pair: pair[0]):
        if row is not None and value != previous:
            previous = value
            yield row


def read_part(path: StorePath, schema: pa.Schema, check: Check | None = None) -> pa.Table:
    """Read all rows of one part.

    Raises:
        StoreError: it is damaged or does not pass the check, has other columns, or was written by a newer version of
            the program.
    """
    with _open(path, schema) as file:
        rows = file.read()
        checksum = (rows.schema.metadata or {}).get(_CHECKSUM_KEY)
        if checksum is not None and checksum.decode("ascii", "replace") != _checksum(rows):
            raise ValueError("its rows do not match their checksum")
        for field in schema:
            if field.name not in rows.schema.names:
                rows = rows.append_column(field, pa.nulls(len(rows), field.type))
        rows = rows.select(schema.names)
        rows.validate(full=True)  # pyarrow reads invalid UTF-8 as text
        if check is not None:
            check(rows)
    return rows


def column_values(folder: StorePath, prefix: str, schema: pa.Schema, columns: Sequence[str]) -> set[str]:
    """Return all distinct values of some text columns, with few rows in memory at a time.

    Raises:
        StoreError: a part is damaged or was written by a newer version of the program.
    """

    def read(path: StorePath) -> set[str]:
        values: set[str] = set()
        with _open(path, schema) as file:
            for batch in file.iter_batches(columns=list(columns)):
                for column in batch.columns:
                    values.update(value for value in column.unique().to_pylist() if value is not None)
        return values

    return set().union(*in_order(read, list_parts(folder, prefix, {SUFFIX})))


def _sorted_rows(path: StorePath, schema: pa.Schema, first: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
    yield first, None  # reserves the part's place in the merge; the part is read when the merge reaches it
    rows, by = read_part(path, schema), schema.names[0]
    rows = rows.append_column("row", pa.array(range(len(rows)), pa.int64()))
    rows = rows.sort_by([(by, "ascending"), ("row", "descending")]).drop_columns("row")
    for batch in rows.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield row[by], row


@contextlib.contextmanager
def _open(path: StorePath, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """Open a part after checking its metadata.

    The check comes before any row is read, because pyarrow allocates any length that the metadata states: one flipped
    bit can turn a list of 5 numbers into one of 300 million.
    """
    try:
        source = fetched(path)
        with pq.ParquetFile(parquet_source(source), page_checksum_verification=True) as file:
            version = int((file.schema_arrow.metadata or {}).get(_VERSION_KEY, b"0"))
            if version > TABLE_VERSION:
                raise StoreError(f"cannot read {path}: its version {version} is newer than this program's: update it")
            _check_columns(path, file.schema_arrow, schema)
            rows = file.metadata.num_rows
            with source.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
            if rows > _MOST_ROWS_PER_BYTE * size:
                raise ValueError(f"it claims {rows:,} rows, more than a file of its size can hold")
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def _check_columns(path: StorePath, found: pa.Schema, schema: pa.Schema) -> None:
    """Compare the schemas before any row is read; columns added later may be null, and are absent in older parts."""
    fields = {field.name: field for field in found}
    present = [field for field in schema if field.name in fields]
    lacking = [field for field in schema if field.name not in fields]
    same = len(found) == len(present) and all(field.equals(fields[field.name]) for field in present)
    if not same or not all(field.nullable for field in lacking):
        raise StoreError(f"cannot read {path}: its columns differ from those that this program writes; move it away")


def _checksum(rows: pa.Table) -> str:
    """Return the SHA-256 of the rows as one Arrow record batch without metadata, which equal rows always share."""
    sink = io.BytesIO()
    plain = rows.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        writer.write_table(plain)
    return hashlib.sha256(sink.getbuffer()).hexdigest()

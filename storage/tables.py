"""Small tables that only ever grow: each addition is one Parquet part, and the newest part is right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from storage.commit import commit_file
from storage.errors import StoreError
from storage.parts import list_parts, new_part
from storage.paths import StorePath, fetched, in_order, parquet_source

TABLE_VERSION = 1
_VERSION_KEY = b"traitline_table_version"
_SUFFIX = ".parquet"


def add_rows(folder: StorePath, prefix: str, rows: pa.Table) -> StorePath:
    """Commit rows as one part, whole; returns its path. Raises StoreError where the operating system refuses."""
    path = new_part(folder, prefix, {_SUFFIX}, _SUFFIX)
    versioned = rows.replace_schema_metadata({_VERSION_KEY: str(TABLE_VERSION)})
    with commit_file(path) as temporary:
        pq.write_table(versioned, temporary, compression="zstd", write_page_checksum=True)
    return path


def read_rows(folder: StorePath, prefix: str, schema: pa.Schema) -> pa.Table:
    """Read the rows of all parts, oldest part first, with the part's number as a last column `part`.

    Raises:
        StoreError: a part is damaged, has other columns, or was written by a newer version of the program.
    """

    def read(path: StorePath) -> pa.Table:
        with _open(path) as file:
            rows = file.read()
        if not rows.schema.equals(schema):
            raise StoreError(f"cannot read {path}: it has other columns than this program writes; move it away")
        return rows

    tables = []
    for number, rows in enumerate(in_order(read, list_parts(folder, prefix, {_SUFFIX}))):
        tables.append(rows.append_column(pa.field("part", pa.int64(), nullable=False), pa.array([number] * len(rows))))
    whole = schema.append(pa.field("part", pa.int64(), nullable=False))
    return pa.concat_tables(tables) if tables else whole.empty_table()


def column_values(folder: StorePath, prefix: str, columns: Sequence[str]) -> set[str]:
    """All different values of some columns of text, holding few rows at a time.

    Raises:
        StoreError: a part is damaged or was written by a newer version of the program.
    """

    def read(path: StorePath) -> set[str]:
        values: set[str] = set()
        with _open(path) as file:
            for batch in file.iter_batches(columns=list(columns)):
                values.update(*(column.unique().to_pylist() for column in batch.columns))
        return values

    return set().union(*in_order(read, list_parts(folder, prefix, {_SUFFIX})))


@contextlib.contextmanager
def _open(path: StorePath) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(parquet_source(fetched(path)), page_checksum_verification=True) as file:
            version = int((file.schema_arrow.metadata or {}).get(_VERSION_KEY, b"0"))
            if version > TABLE_VERSION:
                raise StoreError(f"cannot read {path}: its version {version} is newer than this program's: update it")
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{path} is damaged: {' '.join(str(error).split())}; move it away") from error

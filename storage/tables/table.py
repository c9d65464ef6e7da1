"""Tables with atomic commits: Delta Lake, through delta-rs, in a folder on this machine or on object storage.

A commit appears as a whole or not at all, in an order that all readers agree on. Appends never conflict with each
other; a change or removal of rows conflicts with another one of the same data files, and is then tried again on the new
state until it succeeds. Every table has two more columns than its schema:

- `version`: the version of the table that the writer had seen, plus one. Of two rows about the same thing, the one with
  the higher version is newer. No clock is involved, so it does not matter whether the machines' clocks agree.
- `row_checksum`: of the row's other values, verified whenever whole rows are read. Neither Delta Lake nor the Parquet
  files of delta-rs have checksums.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import StoreError, damaged, refusal
from storage.files.commit import make_folder, sync
from storage.files.paths import StorePath
from storage.files.remote import RemotePath
from storage.files.remote_errors import unreachable
from storage.tables.checksums import row_checksums

if TYPE_CHECKING:
    from deltalake import DeltaTable

COMPACT_EVERY = 256  # commits; each adds a small file per partition
TARGET_BYTES = 2**24  # of a data file after compaction
ROWS_IN_MEMORY = 2**18  # while rows are read in order
_SAMPLE_EVERY = 256  # rows
_ACTIONS = {"add", "remove", "commitInfo", "metaData", "protocol", "txn", "cdc", "domainMetadata"}
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_OWN: list[pa.Field[Any]] = [
    pa.field("version", pa.int64(), nullable=False),
    pa.field("row_checksum", pa.int64(), nullable=False),
]


class Table:
    """A table of a store, which the first append creates. All methods raise StoreError if the storage refuses.

    Args:
        folder: of the table.
        schema: of the rows; times in microseconds, as Delta Lake has them.
        partition_by: a text column by whose values the data files are kept apart.
        indexed: columns whose ranges the log keeps for each data file, so that queries skip files.
    """

    def __init__(
        self, folder: StorePath, schema: pa.Schema, *, indexed: Sequence[str], partition_by: str | None = None
    ) -> None:
        self._folder, self._indexed = folder, indexed
        self._schema = pa.schema([*schema, *_OWN])
        self._partition_by = [partition_by] if partition_by is not None else []
        self._delta: DeltaTable | None = None
        self._lock = threading.Lock()

    @property
    def folder(self) -> StorePath:
        """The table's folder."""
        return self._folder

    def version(self) -> int:
        """Return the number of the latest commit; -1 if there is no table yet."""
        delta = self._latest()
        return -1 if delta is None else delta.version()

    def append(self, rows: pa.Table) -> None:
        """Commit rows with the columns of the schema: all or none, and on disk on return."""
        if not len(rows):
            return
        from deltalake import write_deltalake

        def commit(delta: DeltaTable) -> None:
            versions = pa.array(np.full(len(rows), delta.version() + 1, np.int64))
            checked = rows.append_column(_OWN[0], versions)
            checked = checked.append_column(_OWN[1], pa.array(row_checksums(checked)))
            checked = checked.cast(self._schema)
            write_deltalake(delta, checked, mode="append", commit_properties=_commit_properties())

        make = self._latest() is None
        delta = self._commit("write", commit, create=make)
        if delta.version() % COMPACT_EVERY == 0:
            with contextlib.suppress(StoreError):  # which is no fault of this append
                self.compact()

    def scan(self, where: str | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows for which a condition in SQL holds, in no particular order, as of one version.

        Args:
            where: see `is_one_of` and `literal`; None for all rows.
            columns: to read; whole rows are checked against their checksums.
        """
        delta = self._latest()
        if delta is None:
            return
        names = list(columns) if columns is not None else self._schema.names
        schema = pa.schema([self._schema.field(name) for name in names])
        with self._explained("read"):
            batches = pa.RecordBatchReader.from_stream(delta.scan(columns=names, predicate=where))
            for batch in batches:
                checked = batch.cast(schema)
                checked.validate(full=True)  # Arrow reads invalid UTF-8 as text
                if columns is None and not np.array_equal(
                    row_checksums(checked.drop_columns("row_checksum")), checked["row_checksum"].to_numpy()
                ):
                    raise ValueError("its rows do not match their checksums")
                yield checked

    def newest(self, by: str, where: str | None = None) -> Iterator[pa.Table]:
        """Yield the newest row for each value of a text column, in ascending order of that column, in parts.

        About `ROWS_IN_MEMORY` rows are in memory at a time.
        """
        sample: list[pa.Array[Any]] = [pa.array([], pa.string())]
        total = 0
        for batch in self.scan(where, [by]):
            first = -total % _SAMPLE_EVERY
            sample.append(batch.column(0).take(pa.array(range(first, len(batch), _SAMPLE_EVERY), pa.int64())))
            total += len(batch)
        ascending = sorted(pa.concat_arrays(sample).to_pylist())
        edges = ascending[:: ROWS_IN_MEMORY // _SAMPLE_EVERY][1:]
        bounds = [None, *dict.fromkeys(edges), None]
        left = total
        for low, high in pairwise(bounds):
            conditions = [] if where is None else [where]
            conditions += [] if low is None else [f"{by} >= {literal(low)}"]
            conditions += [] if high is None else [f"{by} < {literal(high)}"]
            rows = pa.Table.from_batches(self.scan(" AND ".join(conditions) or None), self._schema)
            left -= len(rows)
            if len(rows):
                yield _newest(rows, by)
        if left > 0:  # rows may have been added since, but none can have gone
            raise damaged(self._folder, ValueError("its log hides some of its rows"))

    def delete(self, where: str) -> int:
        """Remove the rows for which a condition in SQL holds; return their number. Old versions keep them for now."""
        count = 0

        def commit(delta: DeltaTable) -> None:
            nonlocal count
            count = delta.delete(where, commit_properties=_commit_properties())["num_deleted_rows"] or 0

        if self._latest() is not None:
            self._commit("remove rows from", commit)
        return count

    def update(self, where: str, values: Mapping[str, str]) -> int:
        """Change the rows for which a condition holds, in one commit; return their number.

        Args:
            where: condition in SQL.
            values: column -> expression in SQL; must include `row_checksum`.
        """
        count = 0

        def commit(delta: DeltaTable) -> None:
            nonlocal count
            found = delta.update(predicate=where, updates=dict(values), commit_properties=_commit_properties())
            count = found["num_updated_rows"]

        if self._latest() is not None:
            self._commit("change", commit)
        return count

    def compact(self) -> None:
        """Merge small data files. Readers and writers may continue meanwhile."""
        from deltalake.exceptions import CommitFailedError

        delta = self._latest()
        if delta is None:
            return
        with self._explained("compact"), contextlib.suppress(CommitFailedError):  # somebody else has just done it
            delta.optimize.compact(target_size=TARGET_BYTES)

    def vacuum(self, retention_s: float) -> int:
        """Remove data files that no version of the last `retention_s` seconds uses; return their number."""
        delta = self._latest()
        if delta is None:
            return 0
        with self._explained("clean"):
            hours = -int(-retention_s // 3600)
            removed = delta.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
            delta.create_checkpoint()
            delta.cleanup_metadata()
        return len(removed)

    def check(self) -> int:
        """Read everything; return the number of rows. Raises StoreError if anything is damaged or missing."""
        delta = self._latest()
        if delta is None:
            return 0
        count = sum(map(len, self.scan()))
        with self._explained("read"):
            promised = sum(row["num_records"] for row in pa.table(delta.get_add_actions(flatten=True)).to_pylist())
            if promised != count:
                raise ValueError(f"it has {count:,} rows, not {promised:,}")
            for path in sorted((self._folder / "_delta_log").glob("*.json")):
                for line in path.read_text(encoding="utf-8").splitlines():
                    if not json.loads(line).keys() <= _ACTIONS:  # which other readers pass over
                        raise ValueError(f"{path.name} has an entry of an unknown kind")
        return count

    def _latest(self) -> DeltaTable | None:
        """Return the table as of the latest commit; None if there is none."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with self._lock, self._explained("read"):
            try:
                if self._delta is None:
                    options = self._folder.delta_options() if isinstance(self._folder, RemotePath) else None
                    self._delta = DeltaTable(str(self._folder), storage_options=options)
                else:
                    self._delta.update_incremental()
            except TableNotFoundError:
                return None
            return self._delta

    def _create(self) -> None:
        from deltalake import DeltaTable

        options = self._folder.delta_options() if isinstance(self._folder, RemotePath) else None
        if isinstance(self._folder, Path):
            make_folder(self._folder / "_delta_log")
        configuration = {
            "delta.checkpointInterval": "100",
            "delta.dataSkippingStatsColumns": ",".join(self._indexed),
        }
        try:
            with self._explained("make"):
                DeltaTable.create(
                    str(self._folder),
                    self._schema,
                    mode="ignore",
                    partition_by=self._partition_by,
                    configuration=configuration,
                    storage_options=options,
                )
        except StoreError:
            if self._latest() is None:  # or else another process has created it just now
                raise

    def _commit(self, action: str, commit: Callable[[DeltaTable], None], *, create: bool = False) -> DeltaTable:
        """Commit on the latest version, again and again until no other commit interferes."""
        from deltalake.exceptions import CommitFailedError

        if create:
            self._create()
        pause_s = _PAUSE_S
        while True:
            delta = self._latest()
            if delta is None:
                raise StoreError(f"cannot {action} {self._folder}: it has just been removed; run the command again")
            try:
                with self._lock, self._explained(action):
                    commit(delta)
                    if isinstance(self._folder, Path):
                        _sync_commit(self._folder, delta.version())
                    return delta
            except CommitFailedError:
                time.sleep(random.uniform(0, pause_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn the library's errors into those of a store, except that there is no table, and conflicts."""
        from deltalake.exceptions import CommitFailedError, TableNotFoundError

        try:
            yield
        except (StoreError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            if isinstance(error, TableNotFoundError) or (isinstance(error, CommitFailedError) and _may_pass(error)):
                raise
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise _explanation(self._folder, action, error) from error


def is_one_of(column: str, values: Iterable[str]) -> str:
    """Return the condition that a text column has one of some values, at least one."""
    ascending = sorted(set(values))
    inside = ",".join(map(literal, ascending))
    # The bounds let the library skip files; it does not look for the bounds of a long list itself.
    return f"{column} BETWEEN {literal(ascending[0])} AND {literal(ascending[-1])} AND {column} IN ({inside})"


def literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _newest(rows: pa.Table, by: str) -> pa.Table:
    """Sort rows by a text column, and keep the newest of each value."""
    ascending = rows.take(
        pc.sort_indices(rows, sort_keys=[(by, "ascending"), ("version", "ascending"), ("row_checksum", "ascending")])
    )
    values = ascending[by]
    if len(values) < 2:
        return ascending
    is_last = pc.not_equal(values[:-1], values[1:]).to_numpy()
    return ascending.filter(pa.array(np.append(is_last, True)))


def _sync_commit(folder: Path, version: int) -> None:
    """Sync the data files of a commit, then the commit itself."""
    entry = folder / "_delta_log" / f"{version:020d}.json"
    files = [json.loads(line).get("add") for line in entry.read_text(encoding="utf-8").splitlines()]
    data = [folder / unquote(file["path"]) for file in files if file is not None]
    for path in [*data, *{path.parent for path in data}, entry, entry.parent]:
        sync(path)


@functools.cache
def _commit_properties() -> Any:
    from deltalake import CommitProperties

    return CommitProperties(max_commit_retries=100)


def _may_pass(error: Exception) -> bool:
    """Return whether a commit failed because of another one, so that it may succeed on the new state."""
    return re.search("concurrent|already exists|retries|conflict", str(error)) is not None


def _explanation(folder: StorePath, action: str, error: BaseException) -> StoreError:
    text = str(error)
    number = re.search(r"\(os error (\d+)\)|\bcode: (\d+),", text)
    if number is not None:
        code = int(number[1] or number[2])
        return StoreError(f"cannot {action} {folder}: {refusal(OSError(code, os.strerror(code)))}")
    if isinstance(folder, RemotePath) and re.search("Generic .* error|error sending request|timed out", text):
        return unreachable(folder, error)
    return damaged(folder, error)

"""Tables with atomic commits, in a folder on this machine or on object storage: Delta Lake, through delta-rs.

The log of commits, their order, checkpoints and cleaning are the library's. A commit appears as a whole or not at all.
Appends never conflict with each other; a change of rows conflicts with another one of the same data files, and is then
done again on the new state, until it succeeds.

Data files are written and read here, through pyarrow, because neither Delta Lake nor delta-rs has checksums, and a
flipped bit can make a Parquet reader end the process. The name of each data file holds a digest of its bytes, which is
verified before anything parses them.

Every table has a column `version` in addition to its schema: the version of the table that the writer had seen, plus
one. Of two rows about the same thing, the one with the higher version is newer. No clock is involved.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import random
import re
import secrets
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import StoreError, UnreachableError, damaged, reading, refusal
from storage.files.commit import commit_file, make_folder, remove_files, sync
from storage.files.paths import StorePath, everything_below, exists, in_order, listing, matching
from storage.files.remote import RemotePath
from storage.files.remote_errors import unreachable

if TYPE_CHECKING:
    from deltalake import DeltaTable

CHECKPOINT_EVERY = 100  # commits: a reader of the log begins with the latest checkpoint
COMPACT_EVERY = 256  # commits on average; each adds a small file per partition
TARGET_BYTES, TARGET_ROWS = 2**22, 2**16  # of a data file after compaction, which is read as a whole
ROWS_IN_MEMORY = 2**16  # while rows are read in order
_SAMPLE_EVERY = 256  # rows
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0  # before a commit is tried again
_LOOKS = 6  # at a log that others clean, before it counts as damaged
_MOST_ATTEMPTS = 200  # to commit
_LOG_S = 3600  # for which the log keeps commits before a checkpoint; each look lists what is kept
# What the library says if other commits interfere; and if others have cleaned the log of those to compare with, or a
# listing does not show them yet.
_OTHER_COMMITS = re.compile("concurrent|already exists|retries|conflict")
_CLEANED = re.compile("invalid table version|not found|end version", re.IGNORECASE)
_DIGEST = re.compile(r"part-[0-9a-f]{16}-[0-9a-f]{32}\.parquet")
_ACTIONS = {"add", "remove", "commitInfo", "metaData", "protocol", "txn", "cdc", "domainMetadata"}
VERSION: pa.Field[Any] = pa.field("version", pa.int64(), nullable=False)

Where = Mapping[str, Collection[str]]
"""A condition on rows: each of these columns has one of these values."""


@dataclass(frozen=True)
class _DataFile:
    """A data file of a version of a table, as its log describes it.

    Args:
        path: relative to the table's folder.
        size: in bytes.
        rows: their number.
        values: lowest and highest value of indexed columns, and both times the value that partitions the table.
    """

    path: str
    size: int
    rows: int
    values: Mapping[str, tuple[str, str]]


class Table:
    """A table of a store, which the first append creates. All methods raise StoreError if the storage refuses.

    Args:
        folder: of the table.
        schema: of the rows; times in microseconds, as Delta Lake has them.
        by: the text column that says what a row is about. Data files are sorted by it after compaction.
        partition_by: a text column by whose values, hexadecimal digits, the data files are kept apart.
        indexed: further text columns whose ranges the log keeps for each data file, so that queries skip files.
    """

    def __init__(
        self,
        folder: StorePath,
        schema: pa.Schema,
        *,
        by: str = "video_id",
        partition_by: str | None = None,
        indexed: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._schema = schema.append(VERSION)
        self._by, self._partition = by, partition_by
        self._indexed = (by, *indexed)
        self._delta: DeltaTable | None = None
        self._committed = -1  # version of this object's last commit, which a listing may not show yet
        self._files: tuple[int, list[_DataFile]] = (-1, [])
        self._lock = threading.RLock()

    def version(self) -> int:
        """Return the number of the latest commit; -1 if there is no table yet."""
        delta = self._latest()
        return -1 if delta is None else delta.version()

    def append(self, rows: pa.Table, *, as_seen: bool = False) -> None:
        """Commit rows with the columns of the schema: all or none, and on disk on return.

        Args:
            rows: to add.
            as_seen: the rows come after what this object saw last, without another look.
        """
        if not len(rows):
            return
        delta = self._delta if as_seen and self._delta is not None else self._latest()
        if delta is None:
            delta = self._create()
        versioned = rows.append_column(VERSION, pa.array(np.full(len(rows), delta.version() + 1, np.int64)))
        actions: list[Any] = []
        try:
            for part in self._parts(versioned.cast(self._schema)):
                actions.append(self._write(part))
            for attempt in count():
                if self._commit(delta, actions):
                    break
                delta = self._pause_and_look(attempt)
        except BaseException:
            self._remove_uncommitted(actions)
            raise
        if random.random() < 1 / COMPACT_EVERY:
            with contextlib.suppress(StoreError):  # these rows are committed
                self.compact()

    def append_in_turn(self, parts: Iterable[pa.Table]) -> int:
        """Append in few commits, none of which says two things about the same: rows of later parts are newer.

        Returns:
            The number of rows.
        """
        subject = [name for name in (self._partition, self._by) if name is not None]
        waiting: list[pa.Table] = []
        known: set[tuple[Any, ...]] = set()
        total = 0
        for rows in parts:
            own = set(zip(*(rows[name].to_pylist() for name in subject), strict=True))
            if waiting and (len(known) > ROWS_IN_MEMORY or not known.isdisjoint(own)):
                self.append(pa.concat_tables(waiting))
                waiting, known = [], set()
            waiting.append(rows)
            known |= own
            total += len(rows)
        if waiting:
            self.append(pa.concat_tables(waiting))
        return total

    def scan(self, where: Where | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows that fulfil a condition, in no particular order, as of one version, in parts.

        Args:
            where: None for all rows.
            columns: to read.
        """
        names = list(columns) if columns is not None else self._schema.names
        files = self._data_files(where)
        for rows in in_order(functools.partial(self._read, names={*names, *(where or {})}), files, self.folder):
            found = rows.filter(self._mask(rows, where)) if where and where.keys() != {self._partition} else rows
            if len(found):
                yield found.select(names)

    def newest(self, where: Where | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the newest row for each value of the column `by`, in ascending order of that column, in parts.

        About `ROWS_IN_MEMORY` rows are in memory at a time.

        Args:
            where: None for all rows.
            columns: to read.
        """
        by = self._by
        names = list(columns) if columns is not None else self._schema.names
        read = functools.partial(self._read, names={*names, by, VERSION.name, *self._indexed, *(where or {})})
        for files in _neighbours(self._data_files(where), by):
            if sum(file.rows for file in files) <= 2 * ROWS_IN_MEMORY:
                ranges = iter([pa.concat_tables(in_order(read, files, self.folder))])
            else:
                ranges = self._ranges(files, read)
            for rows in ranges:
                if where and where.keys() != {self._partition}:
                    rows = rows.filter(self._mask(rows, where))
                if len(rows):
                    yield _newest(rows, self._indexed).select(names)

    def _ranges(self, files: Sequence[_DataFile], read: Callable[[_DataFile], pa.Table]) -> Iterator[pa.Table]:
        """Yield the rows of files whose ranges overlap, by ascending ranges of about `ROWS_IN_MEMORY` rows."""
        by, total = self._by, 0
        sample: list[Any] = []
        for rows in in_order(functools.partial(self._read, names={by}), files, self.folder):
            sample += rows[by][-total % _SAMPLE_EVERY :: _SAMPLE_EVERY].to_pylist()
            total += len(rows)
        edges = sorted(sample)[:: ROWS_IN_MEMORY // _SAMPLE_EVERY][1:]
        for low, high in pairwise([None, *dict.fromkeys(edges), None]):
            tables = []
            for file in files:
                least, most = file.values[by]
                if (low is None or most >= low) and (high is None or least < high):
                    tables.append(_between(read(file), by, low, high))
            if tables:
                yield pa.concat_tables(tables)

    def change(self, where: Where, change: Callable[[pa.Table], pa.Table]) -> int:
        """Change or remove the rows that fulfil a condition, in one commit.

        Args:
            where: the condition.
            change: receives some of these rows and returns as many or fewer. Called again if another change interferes.

        Returns:
            The number of rows that fulfilled the condition. Old versions keep them until `vacuum`.
        """
        for attempt in count():
            delta, files = self._snapshot(where)
            actions: list[Any] = []
            found = 0
            for file in files:
                rows = self._read(file)
                mask = self._mask(rows, where)
                chosen = rows.filter(mask)
                if len(chosen):
                    found += len(chosen)
                    left = pa.concat_tables([rows.filter(pc.invert(mask)), change(chosen).select(rows.schema.names)])
                    actions += [self._removal(file), *([self._write(left)] if len(left) else [])]
            if delta is None or not actions or self._commit(delta, actions):
                break
            self._pause_and_look(attempt)
        return found

    def delete(self, where: Where) -> int:
        """Remove the rows that fulfil a condition; return their number. Old versions keep them until `vacuum`."""
        return self.change(where, lambda rows: rows.slice(0, 0))

    def compact(self) -> None:
        """Merge small data files, each sorted by the column `by`. Readers and writers may continue meanwhile."""
        delta, every = self._snapshot(None)
        small: dict[tuple[str, str], list[_DataFile]] = {}
        for file in every:
            if file.size < TARGET_BYTES / 2 and file.rows < TARGET_ROWS / 2:
                small.setdefault(file.values.get(self._partition or "", ("", "")), []).append(file)
        for files in small.values():
            files.sort(key=lambda file: file.values[self._by])  # so that files hold neighbours
            while len(files) > 1:
                some = [files.pop()]
                while (
                    files
                    and sum(file.size for file in some) < TARGET_BYTES
                    and sum(file.rows for file in some) < TARGET_ROWS
                ):
                    some.append(files.pop())
                rows = pa.concat_tables([self._read(file) for file in some]).sort_by(self._by)
                actions = [self._write(rows), *map(self._removal, some)]
                if delta is None or not self._commit(delta, actions):  # another process has just changed them
                    return

    def vacuum(self, retention_s: float) -> int:
        """Remove data files that no version of the last `retention_s` seconds uses; return their number."""
        delta = self._latest()
        if delta is None:
            return 0
        with self._explained("clean"):
            hours = math.ceil(retention_s / 3600 - 1 / 60)  # the library takes whole hours; leave out a minute
            removed = delta.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
            delta.create_checkpoint()
            self._clean_log(delta)
        return len(removed)

    def drop_history(self) -> None:
        """Remove all commits but the latest, and the data files that it does not use, while no other process writes.

        Old commits and checkpoints hold texts of rows that are gone, as ranges; `vacuum` keeps them for a while.
        """
        with self._lock:
            log = self.folder / "_delta_log"
            every = everything_below(self.folder)
            files = [path for path in every if path.suffix == ".parquet" and path.parent != log]
            delta = self._delta = self._open()
            if delta is None:
                return
            with self._explained("clean"):
                delta.create_checkpoint()
            remove_files([log / name for name in listing(log) if _is_older(name, delta.version())])
            used = {self.folder / file.path for file in self._data_files()}
            remove_files([path for path in files if path not in used])

    def check(self) -> int:
        """Read everything; return the number of rows. Raises StoreError if anything is damaged or missing."""
        files = self._data_files()
        for file, rows in zip(files, in_order(self._read, files, self.folder), strict=True):
            if len(rows) != file.rows:
                raise damaged(self.folder, ValueError(f"{file.path} has {len(rows):,} rows, not {file.rows:,}"))
        with reading(self.folder):
            for path in matching(self.folder, "_delta_log/*.json"):
                kinds = {key for line in path.read_text(encoding="utf-8").splitlines() for key in json.loads(line)}
                if "commitInfo" not in kinds or not kinds <= _ACTIONS:  # which readers pass over
                    raise ValueError(f"{path.name} is not a whole commit")
        return sum(file.rows for file in files)

    def _latest(self) -> DeltaTable | None:
        """Return the table as of the latest commit; None if there is none."""
        with self._lock:
            if self._delta is not None:
                with contextlib.suppress(Exception):  # the commits after the one seen last may have been cleaned away
                    self._delta.update_incremental()
                    if self._delta.version() >= self._committed:
                        return self._delta
            self._delta = self._open()
            return self._delta

    def _open(self) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        look = 0
        while True:
            look += 1
            try:
                with self._explained("read"):
                    delta = DeltaTable(str(self.folder), storage_options=self._options())
                if delta.version() >= self._committed:
                    return delta
                if look == _LOOKS:
                    raise UnreachableError(f"cannot read {self.folder}: its last commits are not listed; try again")
            except TableNotFoundError:
                return None
            except StoreError as error:
                if look == _LOOKS or _CLEANED.search(str(error.__cause__)) is None:
                    raise
            time.sleep(_PAUSE_S * 2**look)

    def _data_files(self, where: Where | None = None) -> list[_DataFile]:
        """Return the data files of the latest version that may hold rows which fulfil a condition."""
        with self._lock:
            delta = self._latest()
            if delta is None:
                return []
            if self._files[0] != delta.version():
                self._files = delta.version(), self._files_of(delta)
            return _may_hold(self._files[1], where)

    def _snapshot(self, where: Where | None) -> tuple[DeltaTable | None, list[_DataFile]]:
        """Return the latest version and its data files that may hold rows which fulfil a condition.

        A commit that removes any of these files must be based on just this version, or no conflict would be found.
        """
        delta = self._open()
        return delta, _may_hold(self._files_of(delta), where) if delta is not None else []

    def _files_of(self, delta: DeltaTable) -> list[_DataFile]:
        with self._explained("read"):
            return list(map(self._data_file, pa.table(delta.get_add_actions(flatten=True)).to_pylist()))

    def _mask(self, rows: pa.Table, where: Where) -> Any:
        """Return which rows of files that may hold some fulfil a condition."""
        masks = [
            pc.is_in(rows[name], value_set=pa.array(list(values), pa.string()))
            for name, values in where.items()
            if name != self._partition  # whole files have one value
        ]
        return functools.reduce(pc.and_, masks, pa.array(np.ones(len(rows), bool)))

    def _data_file(self, action: dict[str, Any]) -> _DataFile:
        values = {name: (action[f"min.{name}"], action[f"max.{name}"]) for name in self._indexed}
        expected = ""
        if self._partition is not None:
            own = action[f"partition.{self._partition}"]
            values[self._partition] = (own, own)
            expected = f"{self._partition}={own}"
        folder, _, name = action["path"].rpartition("/")
        if folder != expected or _DIGEST.fullmatch(name) is None:  # a made-up log could name files elsewhere
            raise ValueError(f"its log has an impossible path: {action['path']}")
        if any(None in pair for pair in values.values()) or action["num_records"] is None:
            raise ValueError(f"its log does not describe {action['path']}")
        return _DataFile(action["path"], action["size_bytes"], action["num_records"], values)

    def _read(self, file: _DataFile, names: Collection[str] | None = None) -> pa.Table:
        """Read some columns of a data file, in their order in the schema."""
        path, schema = self.folder / file.path, self._schema
        names = schema.names if names is None else names
        stored = [field for field in schema if field.name != self._partition]
        try:
            with reading(path):
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest()[:32] != path.stem.rpartition("-")[2]:
                    raise ValueError("its bytes do not match the digest in its name")
                with pq.ParquetFile(pa.BufferReader(data)) as parquet:
                    if not parquet.schema_arrow.equals(pa.schema(stored)):
                        raise ValueError("its columns differ from those that this program writes")
                    rows = parquet.read([name for name in names if name != self._partition], use_threads=False)
        except FileNotFoundError as error:
            if exists(path):  # the handle was stale
                raise UnreachableError(f"cannot read {path}: {error.strerror}; try again") from error
            raise damaged(path, error) from error
        except pa.ArrowException as error:
            raise damaged(path, error) from error
        if self._partition is not None and self._partition in names:
            own = pa.array([file.values[self._partition][0]] * len(rows), pa.string())
            rows = rows.append_column(schema.field(self._partition), own)
        return rows.select([name for name in schema.names if name in names])

    def _parts(self, rows: pa.Table) -> list[pa.Table]:
        if self._partition is None:
            return [rows]
        return [rows.filter(pc.equal(rows[self._partition], value)) for value in rows[self._partition].unique()]

    def _write(self, rows: pa.Table) -> Any:
        """Write a data file; return the action that would add it."""
        from deltalake.transaction import AddAction

        partition = {self._partition: rows[self._partition][0].as_py()} if self._partition is not None else {}
        folder = "".join(f"{name}={value}/" for name, value in partition.items())
        stored = rows.drop_columns(list(partition)) if partition else rows
        sink = pa.BufferOutputStream()
        pq.write_table(stored, sink, compression="zstd", store_schema=False)
        data = sink.getvalue().to_pybytes()
        digest = hashlib.sha256(data).hexdigest()[:32]
        name = f"{folder}part-{secrets.token_hex(8)}-{digest}.parquet"
        with commit_file(self.folder / name) as temporary:
            temporary.write_bytes(data)
        extremes: dict[str, Any] = {column: pc.min_max(rows[column]).as_py() for column in self._indexed}
        stats = {
            "numRecords": len(rows),
            "minValues": {column: found["min"] for column, found in extremes.items()},
            "maxValues": {column: found["max"] for column, found in extremes.items()},
            "nullCount": dict.fromkeys(extremes, 0),
        }
        return AddAction(name, len(data), partition, time.time_ns() // 10**6, True, json.dumps(stats))

    def _removal(self, file: _DataFile) -> Any:
        from deltalake.transaction import RemoveAction

        partition = {self._partition: file.values[self._partition][0]} if self._partition is not None else {}
        return RemoveAction(file.path, True, time.time_ns() // 10**6, file.size, dict(partition))

    def _remove_uncommitted(self, actions: Sequence[Any]) -> None:
        """Make room again on a disk that was full. On object storage a commit may still succeed after its answer."""
        if isinstance(self.folder, Path):
            with contextlib.suppress(StoreError):
                named = {file.path for file in self._data_files()}
                remove_files([self.folder / action.path for action in actions if action.path not in named])

    def _commit(self, delta: DeltaTable, actions: Sequence[Any]) -> bool:
        """Commit on a version of the table; return False if another commit interferes."""
        from deltalake import CommitProperties, PostCommitHookProperties
        from deltalake.exceptions import CommitFailedError, DeltaError

        with self._lock, self._explained("write"):
            before, mark = delta.version(), secrets.token_hex(8)
            hooks = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
            partition_by = [self._partition] if self._partition is not None else []
            try:
                delta.create_write_transaction(
                    list(actions),
                    "append",
                    self._schema,
                    partition_by,
                    commit_properties=CommitProperties({"commit": mark}, max_commit_retries=100),
                    post_commithook_properties=hooks,
                )
                self._delta, self._committed = delta, delta.version()
            except DeltaError as error:
                self._delta = None
                version = self._version_of(mark, before + 1)
                if version is None:
                    kinds = _OTHER_COMMITS if isinstance(error, CommitFailedError) else _CLEANED
                    if kinds.search(str(error)) is None:
                        raise
                    return False
                self._committed = version
            if isinstance(self.folder, Path):
                with contextlib.suppress(DeltaError):  # cleaned: then a checkpoint has this commit
                    delta.update_incremental()
                log = self.folder / "_delta_log"
                for version in range(before + 1, delta.version() + 1):
                    with contextlib.suppress(FileNotFoundError):
                        sync(log / f"{version:020d}.json")
                sync(log)
            if (before + 1) % CHECKPOINT_EVERY == 0:
                self._clean_log(delta)
        return True

    def _version_of(self, mark: str, first: int) -> int | None:
        """Look for a commit among those from a version on; None if there is none.

        The library lists the log after its commit, and fails if the listing is late.
        """
        for version in count(first):
            path = self.folder / "_delta_log" / f"{version:020d}.json"
            try:
                with reading(path):
                    if mark in path.read_text(encoding="utf-8"):
                        return version
            except FileNotFoundError:
                break
        return None

    def _clean_log(self, delta: DeltaTable) -> None:
        """Remove commits and checkpoints that have expired, just after a checkpoint was written.

        They expire by the clock of this machine. If it is ahead of that of the storage, others still need them.
        """
        with contextlib.suppress(FileNotFoundError), reading(last := self.folder / "_delta_log" / "_last_checkpoint"):
            if time.time() - last.stat().st_mtime < _LOG_S / 6:
                delta.cleanup_metadata()

    def _pause_and_look(self, attempt: int) -> DeltaTable:
        if attempt >= _MOST_ATTEMPTS:
            raise StoreError(f"cannot write {self.folder}: others write it all the time; run the command again")
        time.sleep(random.uniform(0, min(_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)))
        delta = self._latest()
        if delta is None:
            raise StoreError(f"cannot write {self.folder}: it has just been removed; run the command again")
        return delta

    def _create(self) -> DeltaTable:
        from deltalake import DeltaTable

        if isinstance(self.folder, Path):
            make_folder(self.folder / "_delta_log")
        fault: StoreError | None = None
        try:
            with self._explained("make"):
                DeltaTable.create(
                    str(self.folder),
                    self._schema,
                    mode="ignore",
                    partition_by=self._partition,
                    configuration={
                        "delta.checkpointInterval": str(CHECKPOINT_EVERY),
                        "delta.dataSkippingStatsColumns": ",".join(self._indexed),
                        "delta.logRetentionDuration": f"interval {_LOG_S} seconds",
                    },
                    storage_options=self._options(),
                )
        except StoreError as error:
            fault = error
        delta = self._latest()
        if delta is None:  # or else another process has created it just now
            raise fault or StoreError(f"cannot make {self.folder}: it has just been removed; run the command again")
        return delta

    def _options(self) -> dict[str, str] | None:
        return self.folder.delta_options() if isinstance(self.folder, RemotePath) else None

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn the library's errors into those of a store, except that there is no table."""
        from deltalake.exceptions import TableNotFoundError

        try:
            yield
        except (StoreError, TableNotFoundError):
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise _explanation(self.folder, action, error) from error


def _may_hold(files: list[_DataFile], where: Where | None) -> list[_DataFile]:
    """Return the files of which a row may fulfil a condition."""
    for name, values in (where or {}).items():
        ascending = sorted(values)
        files = [file for file in files if name not in file.values or _any_between(ascending, *file.values[name])]
    return files


def _is_older(name: str, version: int) -> bool:
    """Return whether a file of the log is older than a version with a checkpoint, or was left by a killed writer."""
    number = re.match(r"\d{20}(?=\.)", name)
    return name != "_last_checkpoint" and (number is None or int(number[0]) < version)


def _any_between(ascending: Sequence[str], low: str, high: str) -> bool:
    place = bisect_left(ascending, low)
    return place < len(ascending) and ascending[place] <= high


def _between(rows: pa.Table, by: str, low: str | None, high: str | None) -> pa.Table:
    if low is not None:
        rows = rows.filter(pc.greater_equal(rows[by], pa.scalar(low)))
    return rows if high is None else rows.filter(pc.less(rows[by], pa.scalar(high)))


def _neighbours(files: Sequence[_DataFile], by: str) -> list[list[_DataFile]]:
    """Group files in ascending order: at least those whose ranges overlap, and up to `ROWS_IN_MEMORY` rows."""
    groups: list[list[_DataFile]] = []
    most, rows = "", 0
    for file in sorted(files, key=lambda file: file.values[by]):
        low, high = file.values[by]
        if groups and (low <= most or rows + file.rows <= ROWS_IN_MEMORY):
            groups[-1].append(file)
        else:
            groups.append([file])
            rows = 0
        most, rows = max(most, high), rows + file.rows
    return groups


def _newest(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Sort rows by the first key, and keep the newest of each of its values; the other keys decide between equals."""
    by, *others = keys
    values = rows[by].combine_chunks()
    if len(values) < 2 or pc.all(pc.less(values[:-1], values[1:])).as_py():
        return rows
    ascending = rows.sort_by([(name, "ascending") for name in (by, VERSION.name, *others)])
    values = ascending[by].combine_chunks()
    is_last = pc.not_equal(values[:-1], values[1:]).to_numpy(zero_copy_only=False)
    return ascending.filter(pa.array(np.append(is_last, True)))


def _explanation(folder: StorePath, action: str, error: BaseException) -> StoreError:
    text = str(error)
    number = re.search(r"\(os error (\d+)\)|\bcode: (\d+),", text)
    if isinstance(folder, RemotePath) and (
        number or re.search("Generic .* error|error sending request|timed out", text)
    ):
        return unreachable(folder, error)
    if number is not None:
        code = int(number[1] or number[2])
        error = OSError(code, os.strerror(code))
    if isinstance(error, OSError) and error.errno is not None:
        kind = UnreachableError if action == "read" else StoreError
        return kind(f"cannot {action} {folder}: {refusal(error)}")
    return damaged(folder, error)

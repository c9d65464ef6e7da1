"""The digests of an archive's files, and a cache of them, so that no later run reads every byte again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extractors.video.digests import sha256_of
from flows.archive.videos.folder import texts
from storage.files.commit import commit_file
from storage.files.paths import StorePath, fetched, parquet_source
from storage.tables.in_step import InStep

_STATE = ("size", "mtime_ns", "ctime_ns")
_FIELDS: list[pa.Field[Any]] = [
    pa.field("path", pa.binary()),
    *(pa.field(name, pa.int64()) for name in _STATE),
    pa.field("sha256", pa.string()),
]
_SCHEMA = pa.schema(_FIELDS)
_SHA256 = "^[0-9a-f]{64}$"


def with_digests(
    folder: Path,
    ids: Collection[pa.Array[Any]],
    spelled: Mapping[str, str],
    cache: StorePath,
    on_digest: Callable[[int, int], None] | None,
) -> list[tuple[pa.Array[Any], pa.Array[Any]]]:
    """Return ids with the SHA-256 of their files, in hex; empty if a file cannot be read.

    A digest is taken from the cache if the file's size and times have not changed.

    Args:
        folder: that the ids are relative to.
        ids: in ascending order, in parts.
        spelled: see `Names`.
        cache: a Parquet file of all digests so far, sorted by the absolute folder and the id; rewritten if one is new.
        on_digest: called with (files digested, files in all).
    """
    root = os.path.join(os.path.abspath(folder), "")
    known = InStep(_cached(cache), _SCHEMA)
    columns: list[tuple[pa.Array[Any], pa.Array[Any]]] = []
    states: list[np.ndarray] = []
    first, total, is_new = 0, sum(map(len, ids)), False
    for some in ids:
        paths = [root + spelled.get(name, name) for name in texts(some)]
        keys = _keys(root, some)
        state, is_there = np.zeros((len(paths), len(_STATE)), np.int64), np.zeros(len(paths), bool)
        for row, path in enumerate(paths):
            with contextlib.suppress(OSError):  # extraction says why it cannot be read
                status = os.stat(path)
                # A copy can keep the old modification time, but no program can set the time of the last status change.
                # The nanoseconds of a time after 2262, which broken clocks and copies leave behind, take 65 bits.
                state[row] = status.st_size, status.st_mtime_ns % 2**63, status.st_ctime_ns % 2**63
                is_there[row] = True
        old = known.up_to(keys[-1])
        old = old.take(pc.index_in(keys, value_set=old["path"].combine_chunks()))
        same = np.column_stack([np.asarray(pc.fill_null(old[name], pa.scalar(-1))) for name in _STATE]) == state
        is_known = is_there & same.all(axis=1)
        digests = np.where(is_known, old["sha256"].to_numpy(), "")
        for row in np.flatnonzero(is_there & ~is_known).tolist():
            if on_digest is not None:
                on_digest(first + row, total)
            with contextlib.suppress(OSError):
                digests[row] = sha256_of(Path(paths[row]))
                is_new = True
        first += len(paths)
        if on_digest is not None:
            on_digest(first, total)
        columns.append((some, pa.array(digests, pa.string())))
        states.append(state)
    if is_new:
        _rewrite(cache, root, columns, states)
    return columns


def _keys(root: str, ids: pa.Array[Any]) -> pa.Array[Any]:
    folder = os.fsencode(root)
    return pa.array([folder + name.encode() for name in texts(ids)])


def _cached(cache: StorePath) -> Iterator[pa.Table]:
    """Yield what the cache holds in ascending order; of a damaged file, only what comes before the damage."""
    last = b""
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):  # it is only a cache
        if not cache.is_file():
            return
        # `read_table` imports pandas.
        with pq.ParquetFile(parquet_source(fetched(cache)), page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(_SCHEMA):
                return
            for number in range(file.num_row_groups):  # `iter_batches` reads all of them ahead
                rows = file.read_row_group(number, use_threads=False)
                rows.validate(full=True)
                if not len(rows):
                    continue
                paths = rows["path"].combine_chunks()
                is_sorted = pc.all(pc.greater(paths, pa.concat_arrays([pa.array([last]), paths[:-1]])))
                if not (is_sorted.as_py() and pc.all(pc.match_substring_regex(rows["sha256"], _SHA256)).as_py()):
                    return
                last = paths[-1].as_py()
                yield rows


def _rewrite(
    cache: StorePath,
    root: str,
    columns: Iterable[tuple[pa.Array[Any], pa.Array[Any]]],
    states: Iterable[np.ndarray],
) -> None:
    """Replace what the cache holds about some files."""
    known = InStep(_cached(cache), _SCHEMA)
    with commit_file(cache) as temporary, pq.ParquetWriter(temporary, _SCHEMA, write_page_checksum=True) as writer:
        for (ids, digests), state in zip(columns, states, strict=True):
            keys = _keys(root, ids)
            rows = pa.table([keys, *state.T.copy(), digests], schema=_SCHEMA)
            read = rows.filter(pc.not_equal(digests, pa.scalar("")))
            old = known.up_to(keys[-1])
            old = old.filter(pc.invert(pc.is_in(old["path"], value_set=keys)))
            writer.write_table(pa.concat_tables([old, read]).sort_by("path"))
        for rest in known.rest():
            writer.write_table(rest)

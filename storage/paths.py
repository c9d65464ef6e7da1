"""Paths of a store, wherever it lies: on this machine or on object storage."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

from storage.remote import RemotePath

StorePath = Path | RemotePath

_REQUESTS = 32  # under way at once

Item = TypeVar("Item")
Result = TypeVar("Result")


def store_path(place: str | StorePath) -> StorePath:
    """Path of a place that a person named: on object storage where it is an address, else on this machine.

    Raises:
        StoreError: it is an address of a kind that is not known.
    """
    if isinstance(place, str) and "://" in place:
        return RemotePath.from_address(place)
    return Path(place) if isinstance(place, str) else place


def fetched(path: StorePath) -> StorePath:
    """The same path; bytes of an object are in memory from now on, for whoever will read them more than once."""
    return path.fetched() if isinstance(path, RemotePath) else path


def parquet_source(path: StorePath) -> Path | BinaryIO:
    """What pyarrow reads Parquet from: it asks for parts of an object, the end first."""
    return path.open("rb", buffering=0) if isinstance(path, RemotePath) else path


@contextlib.contextmanager
def local_copy(path: StorePath) -> Iterator[Path]:
    """A local file with the same bytes while the block runs, for libraries that take nothing else."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        copy.write_bytes(path.read_bytes())
        yield copy


def in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`map`, but for remote paths many are under way at once: most of the time goes into waiting for answers."""
    if not (items and isinstance(items[0], RemotePath)):
        yield from map(function, items)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        for start in range(0, len(items), 8 * _REQUESTS):  # not all results in memory at once
            yield from pool.map(function, items[start : start + 8 * _REQUESTS])

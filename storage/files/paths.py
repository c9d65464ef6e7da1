"""Paths inside a store, which may be on this machine or on object storage."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar, cast

from storage.errors import UnreachableError, reading
from storage.files.remote import RemotePath

StorePath = Path | RemotePath

_REQUESTS = 32  # in flight at once

Item = TypeVar("Item")
Result = TypeVar("Result")


def store_path(place: str | StorePath) -> StorePath:
    """Turn a place that a user named into a path: on object storage if it is an address, on this machine otherwise.

    Raises:
        StoreError: it is an address of an unknown kind.
    """
    if isinstance(place, str) and "://" in place:
        return RemotePath.from_address(place)
    return Path(place) if isinstance(place, str) else place


def relative_name(path: StorePath, folder: StorePath) -> str:
    """Return the POSIX path of `path` relative to a folder. Raises ValueError if it is not below it."""
    if isinstance(path, RemotePath) and isinstance(folder, RemotePath):
        return str(path.relative_to(folder))
    if isinstance(path, Path) and isinstance(folder, Path):
        return path.relative_to(folder).as_posix()
    raise ValueError(f"{path} is not below {folder}: only one of them is on object storage")


class Entry(NamedTuple):
    """A file or object in a listing.

    Args:
        size: in bytes.
        modified: seconds since 1970, by the clock of the storage.
        mark: changes whenever the file is rewritten.
    """

    size: int
    modified: float
    mark: object


def listing(folder: StorePath) -> dict[str, Entry]:
    """List the files of a folder by name; empty if there is no folder. One request per 1000 objects.

    Raises:
        UnreachableError: the folder cannot be read.
    """
    if isinstance(folder, RemotePath):
        return {name: Entry(*values) for name, values in folder.listing()}
    found: dict[str, Entry] = {}
    with _empty_if_absent(folder), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    found[entry.name] = Entry(status.st_size, status.st_mtime, (status.st_mtime_ns, status.st_ino))
    return found


def matching(folder: StorePath, pattern: str) -> list[StorePath]:
    """Return the files and folders that match a pattern, such as "features/*/*", sorted.

    `Path.glob` passes over folders that it is not allowed to read, as if they were empty.

    Raises:
        UnreachableError: a folder cannot be read.
    """
    first, _, rest = pattern.partition("/")
    found: list[StorePath] = []
    with _empty_if_absent(folder):
        if not any(mark in first for mark in "*?["):
            found = [folder / first] if rest or _is_there(folder / first) else []
        elif isinstance(folder, RemotePath) or folder.is_dir():
            found = sorted(path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, first))
    return [match for path in found for match in matching(path, rest)] if rest else found


def folders(folder: StorePath, pattern: str) -> list[StorePath]:
    """Return the folders that match a pattern, sorted, without hidden ones. Raises UnreachableError as `matching`."""
    return [path for path in matching(folder, pattern) if not path.name.startswith(".") and is_folder(path)]


def everything_below(folder: StorePath) -> Iterator[StorePath]:
    """Yield all files and folders below a folder, each once; links to folders are followed.

    `Path.rglob` passes over folders that it is not allowed to read, as if they were empty, and over links.

    Raises:
        UnreachableError: a folder cannot be read.
    """
    if isinstance(folder, RemotePath):
        yield from folder.rglob("*")
        return

    def refuse(error: OSError) -> None:
        with _empty_if_absent(Path(error.filename)):
            raise error

    known: set[tuple[int, int]] = set()  # links may lead round in a circle
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(place)
        with _empty_if_absent(here):
            status = here.stat()
            if (status.st_dev, status.st_ino) in known:
                folders.clear()
                continue
            known.add((status.st_dev, status.st_ino))
        yield from (here / name for name in [*folders, *files])


def exists(path: StorePath) -> bool:
    """Return whether a file or folder exists. Raises UnreachableError if the system refuses to tell."""
    with _empty_if_absent(path):
        return path.exists()
    return False


def is_folder(path: StorePath) -> bool:
    """Return whether a path is a folder. Raises UnreachableError if the system refuses to tell."""
    with _empty_if_absent(path):
        return path.is_dir()
    return False


def _is_there(path: StorePath) -> bool:
    return (isinstance(path, Path) and path.is_symlink()) or path.exists()


@contextlib.contextmanager
def _empty_if_absent(folder: StorePath) -> Iterator[None]:
    """Let a folder that does not exist count as empty, and none that cannot be read.

    A stale handle of a file means that it is gone, but that of a folder does not mean that all its files are.
    """
    try:
        with reading(folder):
            yield
    except FileNotFoundError as error:
        if error.errno == errno.ESTALE:
            raise UnreachableError(f"cannot read {folder}: {error.strerror}; check the disk") from error


def check_link(path: StorePath) -> None:
    """Check that a path is no link to something that is not there, as if its disk were not mounted.

    Raises:
        UnreachableError: it is; names the target.
    """
    if not isinstance(path, Path):
        return
    try:
        with reading(path):
            if not path.is_symlink():
                return
            target = os.readlink(path)
    except FileNotFoundError:
        return
    if not exists(path):
        raise UnreachableError(f"{path} is a link to {target}, which is not there: mount its disk, or remove the link")


def fetched(path: StorePath) -> StorePath:
    """Return the same path; if it is an object, with its bytes in memory, for callers that read it more than once."""
    return path.fetched() if isinstance(path, RemotePath) else path


def parquet_source(path: StorePath) -> Path | BinaryIO:
    """Return a source from which pyarrow reads Parquet; of an object, pyarrow requests parts, the end first."""
    if isinstance(path, Path):
        return path
    return cast("BinaryIO", path.open("rb", buffering=0))  # has every method of BinaryIO that pyarrow calls


def in_order(function: Callable[[Item], Result], items: Sequence[Item], folder: StorePath) -> Iterator[Result]:
    """Like `map`, but with many requests in flight at once if the folder is remote, as most of the time is waiting."""
    if isinstance(folder, Path) or len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        for start in range(0, len(items), 8 * _REQUESTS):  # keeps the results of one slice in memory, not all
            yield from pool.map(function, items[start : start + 8 * _REQUESTS])

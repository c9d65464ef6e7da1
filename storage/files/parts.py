"""Names of files that are only ever added to a folder: unique across machines, and sorted by time.

A part is called <prefix>-<UTC time in microseconds>-<random>.<suffix>. If two parts of a folder concern the same video,
the one whose name sorts last is valid. A new part's time is always later than that of every existing part, so that a
machine with a slow clock cannot write a part that is superseded from the start.

All functions raise StoreError if a folder exists but cannot be listed.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from storage.errors import StoreError
from storage.files.paths import StorePath
from storage.files.remote import LISTED_AT_ONCE, RemotePath

_STAMP = "%Y%m%dT%H%M%S%f"
_NAME = re.compile(r"(?P<stem>(?P<prefix>[a-z]+)-(?P<stamp>\d{8}T\d{12})-[0-9a-f]{12})(?P<suffix>\.[a-z0-9]+)")


def list_parts(folder: StorePath, prefix: str, suffixes: Collection[str]) -> list[StorePath]:
    """Return the committed parts of a folder, oldest first; other files, including temporary ones, are skipped."""
    names = _names(folder)
    # A listing may miss both a merged part that has just appeared and its sources, which have just been removed. The
    # merged part existed before they were removed, so the next listing shows it.
    at_once = isinstance(folder, RemotePath) and len(names) < LISTED_AT_ONCE
    while not at_once and names != (again := _names(folder)):
        names = again
    matches = (_NAME.fullmatch(name) for name in names)
    parts = [match for match in matches if match and match["prefix"] == prefix and match["suffix"] in suffixes]
    return [folder / match.string for match in sorted(parts, key=lambda match: (match["stem"], match["suffix"]))]


def stamp(part: StorePath) -> str:
    """Return the UTC time in a part's name, to the microsecond, as text that sorts by time: 20260131T235959000000."""
    return part.name.split("-")[1]


def part_after(part: StorePath) -> StorePath:
    """Return a free name that sorts after `part` and before all names added to the folder from now on.

    It has the same time; new parts are always later.
    """
    beginning, _, number = part.stem.rpartition("-")
    taken = {name.partition(".")[0] for name in _names(part.parent)}
    for candidate in range(int(number, 16) + 1, 16 ** len(number)):
        stem = f"{beginning}-{candidate:0{len(number)}x}"
        if stem not in taken:
            return part.with_name(stem + part.suffix)
    raise StoreError(f"there is no free name after {part.name}")


def new_part(folder: StorePath, prefix: str, suffix: str) -> StorePath:
    """Return the path for the next part of a folder, later than all existing parts."""
    now = datetime.now(UTC).replace(tzinfo=None)
    # Later parts exist only if another machine's clock is ahead, so the parts of a whole archive are not examined.
    matches = map(_NAME.fullmatch, _names_after(folder, f"{prefix}-{now.strftime(_STAMP)}"))
    later = [match["stamp"] for match in matches if match and match["prefix"] == prefix]
    if later:
        now = datetime.strptime(max(later), _STAMP) + timedelta(microseconds=1)
    return folder / f"{prefix}-{now.strftime(_STAMP)}-{secrets.token_hex(6)}{suffix}"


def _names_after(folder: StorePath, name: str) -> Iterable[str]:
    if isinstance(folder, RemotePath):
        return folder.names_after(name)
    return (other for other in _names(folder) if other > name)


def _names(folder: StorePath) -> set[str]:
    if isinstance(folder, RemotePath):
        return {path.name for path in folder.iterdir()}
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StoreError(f"cannot read the folder {folder}: {error.strerror}") from error

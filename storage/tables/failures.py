"""Videos that could not be used, with the reason: one row for each failed attempt, in STORE/failures/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from storage.files.parts import list_parts, stamp
from storage.files.paths import StorePath, in_order
from storage.layout import open_store
from storage.tables.table import SUFFIX, add_rows, read_part, read_rows

_TEXTS = ("video_id", "video_sha256", "key", "stage", "reason", "message")
_FIELDS: list[pa.Field[Any]] = [
    *(pa.field(name, pa.string(), nullable=False) for name in _TEXTS),
    pa.field("attempts", pa.int32(), nullable=False),
]
_SCHEMA = pa.schema(_FIELDS)


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt at a video that failed.

    Args:
        video_id: POSIX path of the file relative to the videos folder, with its extension.
        video_sha256: SHA-256 of the file's bytes, in hex; empty if they could not be read.
        key: of the feature family that the attempt was for.
        stage: part of extraction that refused the video: "decode", "faces" or "motion"; "extract" for a fault of the
            program.
        reason: short code in snake_case.
        message: one sentence for people.
        attempts: number of attempts so far, including this one.
    """

    video_id: str
    video_sha256: str
    key: str
    stage: str
    reason: str
    message: str
    attempts: int


class LastFailure(NamedTuple):
    """How often a video has failed, and the reason of the last failure."""

    attempts: int
    reason: str


_ATTEMPTS = attrgetter("attempts")


class FailureLog:
    """All failures of a store, including those of videos that succeeded later: see `still_refused`.

    Args:
        root: the store's folder.
        confirm: called before each commit, as by `FeatureStore`.

    Raises:
        StoreError: the folder is not a store.
    """

    def __init__(self, root: str | StorePath, confirm: Callable[[Path], None] | None = None) -> None:
        self._confirm = confirm
        self._folder = open_store(root) / "failures"
        self._seen: set[StorePath] = set()
        self._last: dict[tuple[str, str, str], LastFailure] = {}

    def add(self, rows: Sequence[Failure]) -> None:
        """Commit failures, all or none.

        Raises:
            StoreError: the operating system refused.
        """
        if rows:
            table = pa.Table.from_pylist([asdict(row) for row in rows], schema=_SCHEMA)
            add_rows(self._folder, "failures", table, self._confirm)

    def current(self) -> list[Failure]:
        """Read the latest failure for each (video_id, video_sha256, key), sorted by these.

        Raises:
            StoreError: a file of the log is damaged or too new.
        """
        table = read_rows(self._folder, "failures", _SCHEMA).drop_columns("part")
        latest = {(row["video_id"], row["video_sha256"], row["key"]): row for row in table.to_pylist()}
        return [Failure(**latest[which]) for which in sorted(latest)]

    def refused(self, key: str) -> dict[tuple[str, str], Failure]:
        """Read the latest failures for one key, by video_id and video_sha256, sorted by these.

        Raises:
            StoreError: as `current`.
        """
        return {(row.video_id, row.video_sha256): row for row in self.current() if row.key == key}

    def last(self, videos: Mapping[str, str], key: str) -> dict[str, LastFailure]:
        """Find how often these videos have failed, and the last reason. Parts of the log are read once and remembered.

        Args:
            videos: video_id -> SHA-256 of its bytes.
            key: of the feature families.

        Returns:
            By video_id, for those that have failed.

        Raises:
            StoreError: as `current`.
        """
        columns = ("video_id", "video_sha256", "key", "attempts", "reason")
        new = [part for part in list_parts(self._folder, "failures", {SUFFIX}) if part not in self._seen]
        for part, rows in zip(new, in_order(_read, new), strict=True):
            values = (column.to_pylist() for column in rows.select(columns).columns)
            for *which, attempts, reason in zip(*values, strict=True):
                failure = LastFailure(attempts, reason)
                self._last[tuple(which)] = max(failure, self._last.get(tuple(which), failure), key=_ATTEMPTS)
            self._seen.add(part)
        known = {video_id: self._last.get((video_id, sha256, key)) for video_id, sha256 in videos.items()}
        return {video_id: failure for video_id, failure in known.items() if failure is not None}

    def attempts(self, videos: Mapping[str, str], key: str) -> dict[str, int]:
        """Find how often these videos have failed; see `last`."""
        return {video_id: failure.attempts for video_id, failure in self.last(videos, key).items()}

    def attempts_in_order(self) -> list[tuple[str, Failure]]:
        """Read every attempt that failed, oldest first, each with the time of its commit (see
        `storage.files.parts.stamp`).

        Raises:
            StoreError: a file of the log is damaged or too new.
        """
        parts = list_parts(self._folder, "failures", {SUFFIX})
        tables = zip(parts, in_order(_read, parts), strict=True)
        return [(stamp(part), Failure(**row)) for part, rows in tables for row in rows.to_pylist()]


def check_failures(path: StorePath) -> None:
    """Read a whole file of the log. Raises StoreError if it is damaged or too new."""
    _read(path)


def _read(part: StorePath) -> pa.Table:
    return read_part(part, _SCHEMA)

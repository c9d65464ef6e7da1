"""Videos that could not be used, with the reason: a table with one row for each failed attempt, in STORE/failures/."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from storage.files.paths import StorePath
from storage.layout import open_store
from storage.tables.manifest import Manifest
from storage.tables.table import Table, Where

FOLDER = "failures"
_TEXTS = ("video_id", "video_sha256", "key", "stage", "reason", "message")
_FIELDS: list[pa.Field[Any]] = [
    *(pa.field(name, pa.string(), nullable=False) for name in _TEXTS),
    pa.field("attempts", pa.int32(), nullable=False),
    pa.field("failed_at", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("manifest_version", pa.int64(), nullable=False),
]
SCHEMA = pa.schema(_FIELDS)


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


class Attempt(NamedTuple):
    """A failed attempt.

    Args:
        failure: what failed.
        failed_at: when, by the clock of the machine that tried; for people, nothing depends on it.
        manifest_version: version of the store's manifest by then. Features that later versions added are newer.
    """

    failure: Failure
    failed_at: datetime
    manifest_version: int


class FailureLog:
    """All failures of a store, including those of videos that succeeded later: see `still_refused`.

    All methods raise StoreError if the folder is not a store, the table is damaged, or the operating system refuses.

    Args:
        confirm: called before each commit, as by `FeatureStore`.
    """

    def __init__(self, root: str | StorePath, confirm: Callable[[], None] | None = None) -> None:
        self._confirm = confirm
        store = open_store(root)
        self.table = Table(store / FOLDER, SCHEMA, indexed=("key",))
        self._manifest = Manifest(store).table

    def add(self, rows: Sequence[Failure]) -> None:
        """Commit failures, all or none."""
        if not rows:
            return
        when = {"failed_at": datetime.now(UTC), "manifest_version": self._manifest.version()}
        table = pa.Table.from_pylist([{**asdict(row), **when} for row in rows], schema=SCHEMA)
        if self._confirm is not None:
            self._confirm()
        self.table.append(table)

    def current(self) -> list[Failure]:
        """Read the latest failure for each (video_id, video_sha256, key), sorted by these."""
        return self._latest(None)

    def refused(self, key: str) -> dict[tuple[str, str], Failure]:
        """Read the latest failures for one key, by video_id and video_sha256, sorted by these."""
        return {(row.video_id, row.video_sha256): row for row in self._latest({"key": [key]})}

    def last(self, key: str, videos: Collection[str] | None = None) -> dict[tuple[str, str], LastFailure]:
        """Find how often videos have failed, and the last reason.

        Args:
            key: of the feature families.
            videos: ids; None for all videos.

        Returns:
            By video_id and video_sha256, for those that have failed.
        """
        where: dict[str, Collection[str]] = {"key": [key]}
        if videos is not None:
            where["video_id"] = videos
        last: dict[tuple[str, str], LastFailure] = {}
        for rows in self.table.scan(where, ["video_id", "video_sha256", "attempts", "reason"]):
            for video_id, digest, *failure in zip(*rows.to_pydict().values(), strict=True):
                found = LastFailure(*failure)
                last[video_id, digest] = max(found, last.get((video_id, digest), found))
        return last

    def attempts(self, videos: Mapping[str, str], key: str) -> dict[str, int]:
        """Find how often these videos (video_id -> SHA-256) have failed; see `last`."""
        last = self.last(key, videos)
        return {which[0]: last[which].attempts for which in videos.items() if which in last}

    def attempts_in_order(self) -> list[Attempt]:
        """Read every attempt that failed, in the order of the commits."""
        rows = [row for some in self.table.scan() for row in some.to_pylist()]
        rows.sort(key=lambda row: (row["version"], row["video_id"], row["attempts"]))
        return [Attempt(_failure(row), row["failed_at"], row["manifest_version"]) for row in rows]

    def _latest(self, where: Where | None) -> list[Failure]:
        latest: dict[tuple[str, str, str], Failure] = {}
        for rows in self.table.scan(where):
            for values in rows.to_pylist():
                row = _failure(values)
                which = (row.video_id, row.video_sha256, row.key)
                if which not in latest or row.attempts >= latest[which].attempts:
                    latest[which] = row
        return [latest[which] for which in sorted(latest)]


def _failure(values: Mapping[str, Any]) -> Failure:
    return Failure(**{name: values[name] for name in Failure.__slots__})

"""Videos that could not be used, with the reason: one row per failed video and attempt, in STORE/failures/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from storage.layout import open_store
from storage.paths import StorePath
from storage.tables import add_rows, read_rows

_TEXTS = ("video_id", "video_sha256", "key", "stage", "reason", "message")
_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in _TEXTS),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt at a video that failed.

    Args:
        video_id: POSIX path of the file below the videos folder, with its extension.
        video_sha256: SHA-256 of the file's bytes, in hex; empty where they could not be read.
        key: of the feature family that the attempt was for.
        stage: part of extraction that refused the video: "decode", "faces" or "motion".
        reason: short code in snake_case.
        message: one sentence for people.
        attempts: how often this has been tried, this time included.
    """

    video_id: str
    video_sha256: str
    key: str
    stage: str
    reason: str
    message: str
    attempts: int


class FailureLog:
    """All failures of a store. What failed and succeeded later stays listed: compare with `FeatureStore.done`.

    Args:
        root: the store's folder.

    Raises:
        StoreError: the folder is not a store.
    """

    def __init__(self, root: str | StorePath) -> None:
        self._folder = open_store(root) / "failures"

    def add(self, rows: Sequence[Failure]) -> None:
        """Commit failures, all or none. Raises StoreError where the operating system refuses."""
        if rows:
            add_rows(self._folder, "failures", pa.Table.from_pylist([asdict(row) for row in rows], schema=_SCHEMA))

    def current(self) -> list[Failure]:
        """Read the latest failure for each (video_id, video_sha256, key), sorted by these.

        Raises:
            StoreError: a file of the log is damaged or too new.
        """
        table = read_rows(self._folder, "failures", _SCHEMA).drop_columns("part")
        latest = {(row["video_id"], row["video_sha256"], row["key"]): row for row in table.to_pylist()}
        return [Failure(**latest[which]) for which in sorted(latest)]

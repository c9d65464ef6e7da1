"""The digest of each video's file when a run last looked at it, in STORE/seen/.

Features and refusals outlive the files that they belong to. A file can change, and change back later, without being
extracted; only this table tells which features and refusals belong to the present file.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from storage.files.paths import StorePath
from storage.layout import open_store
from storage.tables.table import add_rows, read_part, read_rows

_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("video_id", "video_sha256")])


class SeenVideos:
    """The digest of each video's file when a run last looked at it.

    Args:
        root: the store's folder.

    Raises:
        StoreError: the folder is not a store.
    """

    def __init__(self, root: str | StorePath) -> None:
        self._folder = open_store(root) / "seen"

    def current(self) -> dict[str, str]:
        """Read video_id -> SHA-256 of the file's bytes, in hex; empty if the file could not be read.

        Raises:
            StoreError: a part of the table is damaged or too new.
        """
        rows = read_rows(self._folder, "seen", _SCHEMA)
        return {row["video_id"]: row["video_sha256"] for row in rows.to_pylist()}

    def note(self, videos: Mapping[str, str]) -> None:
        """Commit the present digests of these videos (video_id -> SHA-256); only changes are written.

        Raises:
            StoreError: as `current`, or the operating system refused.
        """
        known = self.current()
        changed = {video_id: sha256 for video_id, sha256 in videos.items() if known.get(video_id) != sha256}
        if changed:
            add_rows(self._folder, "seen", _table(changed))


def _table(digests: Mapping[str, str]) -> pa.Table:
    columns = {"video_id": list(digests), "video_sha256": list(digests.values())}
    return pa.table(columns, schema=_SCHEMA)


def check_seen(path: StorePath) -> None:
    """Read a whole part of the table. Raises StoreError if it is damaged or too new."""
    read_part(path, _SCHEMA)

"""The digest of each video's file when a run last looked at it: a table in STORE/seen/.

Features and refusals outlive the files that they belong to. A file can change, and change back later, without being
extracted; only this table tells which features and refusals belong to the present file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from storage.files.paths import StorePath
from storage.layout import open_store
from storage.tables.table import Table

FOLDER = "seen"
SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("video_id", "video_sha256")])


class SeenVideos:
    """The digest of each video's file when a run last looked at it.

    All methods raise StoreError if the folder is not a store, the table is damaged, or the operating system refuses.

    Args:
        root: the store's folder.
    """

    def __init__(self, root: str | StorePath) -> None:
        self.table = Table(open_store(root) / FOLDER, SCHEMA)

    def current(self) -> dict[str, str]:
        """Read video_id -> SHA-256 of the file's bytes, in hex; empty if the file could not be read."""
        return dict(self._rows())

    def note(self, videos: Mapping[str, str]) -> None:
        """Commit the present digests of these videos (video_id -> SHA-256); only changes are written."""
        changed = dict(videos)
        for video_id, sha256 in self._rows():
            if changed.get(video_id) == sha256:
                del changed[video_id]
        columns = {"video_id": list(changed), "video_sha256": list(changed.values())}
        self.table.append(pa.table(columns, schema=SCHEMA))

    def _rows(self) -> Iterator[tuple[str, str]]:
        for rows in self.table.newest():
            yield from zip(rows["video_id"].to_pylist(), rows["video_sha256"].to_pylist(), strict=True)

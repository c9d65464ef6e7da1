"""The digest of each video's file when a run last looked at it: a table in STORE/seen/.

Features and refusals outlive the files that they belong to. A file can change, and change back later, without being
extracted; only this table tells which features and refusals belong to the present file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from storage.files.paths import StorePath
from storage.layout import open_store
from storage.tables.in_step import VIDEOS, InStep, have_digests
from storage.tables.table import ROWS_IN_MEMORY, Table

FOLDER = "seen"
SCHEMA = VIDEOS


class SeenVideos:
    """The digest of each video's file when a run last looked at it.

    All methods raise StoreError if the folder is not a store, the table is damaged, or the operating system refuses.
    """

    def __init__(self, root: str | StorePath) -> None:
        self.table = Table(open_store(root) / FOLDER, SCHEMA)

    def current(self, videos: Collection[str] | None = None) -> dict[str, str]:
        """Read video_id -> SHA-256 of the file's bytes, in hex; empty if the file could not be read.

        Args:
            videos: ids; None for all videos.
        """
        found: dict[str, str] = {}
        for rows in self.table.newest(None if videos is None else {"video_id": videos}):
            columns = rows.select(SCHEMA.names).to_pydict()
            found.update(zip(columns["video_id"], columns["video_sha256"], strict=True))
        return found

    def in_step(self) -> InStep:
        """Read the digests of all videos, with the schema `VIDEOS`, in ascending order of the ids."""
        return InStep(self.table.newest(columns=SCHEMA.names), SCHEMA)

    def note(self, videos: Iterable[pa.RecordBatch]) -> None:
        """Commit the present digests of videos; only changes are written, many in each commit.

        Args:
            videos: with the schema `VIDEOS`, in ascending order of the ids; no empty batch.
        """
        known = self.in_step()
        changed = [SCHEMA.empty_table()]
        for some in videos:
            is_known = have_digests(some, known.up_to(some["video_id"][-1]))
            changed.append(pa.table(some).filter(pc.invert(pa.array(is_known))))
            if sum(map(len, changed)) >= ROWS_IN_MEMORY:
                self.table.append(pa.concat_tables(changed))
                changed = changed[:1]
        self.table.append(pa.concat_tables(changed))

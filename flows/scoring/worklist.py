"""The videos that a model has not scored yet, in the stretches in which runs claim them."""

from __future__ import annotations

from collections.abc import Iterable, Set
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.archive.clips import ready_rows
from flows.archive.families import Families
from flows.archive.models import ModelReference
from flows.archive.videos import Archive
from storage.files.paths import StorePath
from storage.shards.store import FeatureStore
from storage.tables.in_step import VIDEOS, InStep, have_digests
from storage.tables.scores import ScoreStore

CLIPS_PER_COMMIT = 4096


class Unscored:
    """The videos that a version of a model has not scored from their present features, by any run.

    Attributes:
        some_scored: whether others have been scored.
    """

    def __init__(self, root: StorePath, families: Families, videos: Archive, model: ModelReference) -> None:
        self._table = ScoreStore(root).table(model.name, model.version)
        self._keys = {"static_key": families.static.key, "dynamic_key": families.dynamic.key}
        self._videos = videos
        store = FeatureStore(root)
        self._version, scored = self._table.version(), self._scored()
        self.some_scored = bool(scored.any())
        rows, shards, first = [], [], 0
        for batch, ready in zip(videos.columns, ready_rows(root, families, videos), strict=True):
            chosen = np.flatnonzero(ready & ~scored[first : first + len(batch)])
            rows.append(first + chosen)
            names = batch["video_id"].to_pylist()
            shards.append(store.shard_numbers(families.static, [str(names[row]) for row in chosen]))
            first += len(batch)
        order = np.concatenate(shards)
        # Rows of the archive in the order of the videos' shards, and which of them are left.
        self._rows = np.concatenate(rows)[np.argsort(order, kind="stable")[np.count_nonzero(order < 0) :]]
        self._is_left = np.ones(len(self._rows), bool)
        self._places: dict[str, int] = {}  # in `_rows`, of the videos of the last stretch

    @property
    def left(self) -> int:
        """Return the number of videos that are left."""
        return int(self._is_left.sum())

    def choose(self, workers: int, claimed: Set[str]) -> dict[str, int]:
        """Choose the next stretch of videos that no run has claimed: a quarter of what is left, within bounds.

        A stretch has a commit for each worker at least, and 16 at most.
        """
        if self._table.version() != self._version:  # another run has committed scores
            self._version = self._table.version()
            self._is_left &= ~self._scored()[self._rows]
        commits = min(16 * workers, max(workers, -(-self.left // (4 * CLIPS_PER_COMMIT))))
        places = np.flatnonzero(self._is_left)
        parts = np.split(places, range(CLIPS_PER_COMMIT, len(places), CLIPS_PER_COMMIT))
        named = (zip(self._videos.ids(self._rows[part]), part.tolist(), strict=True) for part in parts)
        free = (video for video in chain.from_iterable(named) if video[0] not in claimed)
        self._places = dict(islice(free, commits * CLIPS_PER_COMMIT))
        return self._places

    def remove(self, videos: Iterable[str]) -> None:
        """Note that some videos of the last stretch have been scored, or given up."""
        self._is_left[[self._places[video_id] for video_id in videos]] = False

    def committed(self) -> None:
        """Note a commit of this run."""
        self._version += 1

    def _scored(self) -> np.ndarray:
        """Read which videos of the archive have a score from these features of their present files, bool [N]."""
        of_keys = (
            rows.filter(pc.and_(*(pc.equal(rows[name], pa.scalar(key)) for name, key in self._keys.items())))
            for rows in self._table.newest(columns=[*VIDEOS.names, *self._keys])
        )
        scored = InStep((rows.select(VIDEOS.names) for rows in of_keys), VIDEOS)
        parts = [have_digests(batch, scored.up_to(batch["video_id"][-1])) for batch in self._videos.columns]
        return np.concatenate(parts)

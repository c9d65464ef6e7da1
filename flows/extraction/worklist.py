"""The remaining videos of a run, while other runs may work on the same store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extractors.devices import usable_cores
from extractors.errors import TRANSIENT
from flows.archive.clips import ready_rows
from flows.archive.families import Families
from flows.archive.videos import Archive, VideoFile
from flows.config.settings import RunConfig
from flows.extraction.jobs import Job
from storage.files.paths import StorePath
from storage.leases.claims import Claim
from storage.shards.store import FeatureStore
from storage.tables.failures import FailureLog, LastFailure
from storage.tables.manifest import FEW

# While the last videos of a stretch are prepared, processes idle: 3% of the time if each has had so many clips of one
# length, and 11% if each of 16 has had 4 (`bench_idle.py`).
VIDEOS_PER_PROCESS = 16


class Lookup:
    """Looks up what videos still need, in a few requests however large the store is."""

    def __init__(self, root: StorePath, families: Families) -> None:
        self._families = families
        self._store = FeatureStore(root)
        self._failures = FailureLog(root)

    def jobs(self, videos: Sequence[VideoFile]) -> Iterator[Job]:
        """Yield a job for each video, which may need nothing."""
        digests = {video.video_id: video.sha256 for video in videos}
        refused = self._failures.last(self._families.features, digests)
        known = [self._store.has(family, digests) for family in (self._families.static, self._families.dynamic)]
        never = LastFailure(0, "")
        for video in videos:
            static, dynamic = (video.video_id not in done for done in known)
            last = refused.get((video.video_id, video.sha256), never)
            yield Job(video, static, dynamic, last.attempts, last.reason)

    def lacking(self, archive: Archive) -> Iterator[tuple[np.ndarray, dict[int, LastFailure]]]:
        """Find the videos of an archive that lack features, some at a time, in step with the whole manifest.

        Yields:
            Their rows in the archive, int64, ascending; and the last failures of those that have been refused, by row.
        """
        refused = self._failures.last(self._families.features)
        refused_ids = pa.array(list({video_id for video_id, _ in refused}), pa.string())
        first = 0
        for videos, ready in zip(archive.columns, ready_rows(self._store.root, self._families, archive), strict=True):
            rows: np.ndarray = np.flatnonzero(~ready)
            maybe = pc.is_in(videos["video_id"].take(rows), value_set=refused_ids)
            failed = {}
            for row in rows[np.asarray(maybe)].tolist():
                last = refused.get((videos["video_id"][row].as_py(), videos["video_sha256"][row].as_py()))
                if last is not None:
                    failed[first + row] = last
            yield first + rows, failed
            first += len(videos)

    def still_needed(self, jobs: Sequence[Job], claimed: Set[str]) -> dict[str, Job]:
        """Return, by id, the jobs that have not been done, refused or claimed since they were chosen."""
        now = zip(jobs, self.jobs([job.video for job in jobs]), strict=True)
        return {
            job.video.video_id: job
            for chosen, job in now
            if (job.static or job.dynamic) and job.attempts <= chosen.attempts and job.video.video_id not in claimed
        }


class WorkList:
    """Videos that lack features, looked up again in the store for each stretch.

    Attributes:
        place: path of the store.
        count: number of videos to do at the start.
        cached: number of videos with features at the start.
        refused_before: number of videos that were refused before with the same settings, because of their bytes, and
            are not tried again.
        refused: number of videos refused since, by this run or another.
    """

    def __init__(self, videos: Archive, config: RunConfig, families: Families) -> None:
        store = FeatureStore(config.store.path)
        for family in (families.faces, families.static, families.dynamic):
            store.touch(family)  # before looking up what is done, because the first claim comes much later
        self._lookup, self._settings = Lookup(config.store.path, families), config.extract
        self.place = config.store.path
        self._videos = videos
        self._attempts_before: dict[str, int] = {}
        self._set_aside: set[str] = set()
        self.refused_before = self.refused = lacking = 0
        parts = [np.zeros(0, np.int64)]
        for rows, failed in self._lookup.lacking(videos):
            lacking += len(rows)
            for row, last in failed.items():
                video = videos[row]
                if config.extract.retry_failed or _may_have_passed(video, last):
                    self._attempts_before[video.video_id] = last.attempts
                else:
                    self.refused_before += 1
                    rows = rows[rows != row]
            parts.append(rows)
        self._todo = np.concatenate(parts)
        self._queue, self._begin = self._todo.copy(), 0  # the rows left are those from `_begin` on
        self.count = len(self._todo)
        self.cached = len(videos) - lacking

    @property
    def todo(self) -> Iterator[VideoFile]:
        """Yield the videos to do at the start."""
        return (self._videos[row] for row in self._todo.tolist())

    @property
    def left(self) -> int:
        """Return the number of videos that were not done at the last look."""
        return len(self._queue) - self._begin

    def choose(
        self, claimed: Set[str], here: Set[str] = frozenset(), *, workers: int = 1, others: int = 0
    ) -> dict[str, Job]:
        """Look at the store, and choose the next stretch.

        Args:
            claimed: ids of the videos that other runs are working on.
            here: of those that this run is working on. They stay in the list, so that nothing counts twice.
            workers: of this run, which share the cores of this machine.
            others: workers of other runs.

        Returns:
            By id, the jobs of the first videos that are neither done nor worked on; none if all are done or worked on.
            At most a shard, or several if each worker has many processes, and four times as many videos are left for
            it.
        """
        chosen: dict[str, Job] = {}
        passed: list[int] = []
        processes = self._settings.processes or max(1, usable_cores() // workers)
        useful = min(VIDEOS_PER_PROCESS * processes, self.left // (4 * (workers + others)))
        size = most = max(1, useful // self._settings.shard_size) * self._settings.shard_size
        while self.left and len(chosen) < most:
            rows = self._queue[self._begin : self._begin + size]
            self._begin += len(rows)
            size = min(2 * size, max(FEW, size))  # other runs may have done many, and each round asks the store once
            videos = [self._videos[row] for row in rows.tolist()]
            for row, job in zip(rows.tolist(), self._lookup.jobs(videos), strict=True):
                video_id = job.video.video_id
                if video_id in here:
                    passed.append(row)
                    continue
                if not job.static and not job.dynamic:
                    self._set_aside.discard(video_id)
                    continue
                if job.attempts > self._attempts_before.get(video_id, 0):
                    self.refused += 1
                    self._set_aside.discard(video_id)
                    continue
                passed.append(row)
                if video_id not in claimed and video_id not in self._set_aside and len(chosen) < most:
                    chosen[video_id] = job
        self._queue[self._begin - len(passed) : self._begin] = passed
        self._begin -= len(passed)
        return chosen

    def set_aside(self, video_ids: Iterable[str]) -> None:
        """Never choose these videos again: this run has tried them."""
        self._set_aside.update(video_ids)

    @property
    def all_set_aside(self) -> bool:
        """Return whether this run has tried all remaining videos."""
        return all(video_id in self._set_aside for video_id in self._ids_left())

    def _ids_left(self) -> Iterator[str]:
        return (self._videos[row].video_id for row in self._queue[self._begin :].tolist())

    def held_by(self, claims: Iterable[Claim]) -> Counter[str]:
        """Count the remaining videos that other runs have claimed, by machine name."""
        left = set(self._ids_left())
        held = Counter({claim.process.host: 0 for claim in claims})
        for claim in claims:
            held[claim.process.host] += len(claim.videos & left)
        return +held


def _may_have_passed(video: VideoFile, last: LastFailure) -> bool:
    """Return whether the cause of a refusal may have passed. A file that is still unreadable has no digest."""
    return last.reason in TRANSIENT and video.sha256 != ""

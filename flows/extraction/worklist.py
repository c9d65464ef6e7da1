"""The remaining videos of a run, while other runs may work on the same store."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence, Set

from extractors.errors import TRANSIENT
from flows.archive.families import Families
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.extraction.jobs import Job
from storage.files.paths import StorePath
from storage.leases.claims import Claim
from storage.shards.store import FeatureStore
from storage.tables.failures import FailureLog, LastFailure


class Lookup:
    """Looks up what videos still need, in a few requests however large the store is."""

    def __init__(self, root: StorePath, families: Families) -> None:
        self._families = families
        self._store = FeatureStore(root)
        self._failures = FailureLog(root)

    def jobs(self, videos: Sequence[VideoFile]) -> Iterator[Job]:
        """Yield a job for each video, which may need nothing."""
        digests = {video.video_id: video.sha256 for video in videos}
        static, dynamic = self._store.has_all([self._families.static, self._families.dynamic], digests).values()
        refused = self._failures.last(digests, self._families.features)
        for video in videos:
            missing = {"static": video.video_id not in static, "dynamic": video.video_id not in dynamic}
            last = refused.get(video.video_id, LastFailure(0, ""))
            yield Job(video, **missing, attempts=last.attempts, reason=last.reason)

    def still_needed(self, jobs: Sequence[Job], claimed: Set[str]) -> dict[str, Job]:
        """Return, by id, the jobs that have not been done, refused or claimed since they were chosen."""
        now = zip(jobs, self.jobs([job.video for job in jobs]), strict=True)
        return {
            job.video.video_id: job
            for chosen, job in now
            if (job.static or job.dynamic) and job.attempts <= chosen.attempts and job.video.video_id not in claimed
        }


class WorkList:
    """Videos that lack features, looked up again in the store for each shard.

    Attributes:
        place: path of the store.
        count: number of videos to do at the start.
        cached: number of videos with features at the start.
        refused_before: number of videos that were refused before with the same settings, because of their bytes, and
            are not tried again.
        refused: number of videos refused since, by this run or another.
    """

    def __init__(self, videos: Sequence[VideoFile], config: RunConfig, families: Families) -> None:
        self._lookup, self._shard_size = Lookup(config.store.path, families), config.extract.shard_size
        self.place = config.store.path
        self._attempts_before: dict[str, int] = {}
        self._set_aside: set[str] = set()
        self._left: deque[VideoFile] = deque()
        self.cached = self.refused_before = self.refused = 0
        for job in self._lookup.jobs(videos):
            if not job.static and not job.dynamic:
                self.cached += 1
            elif job.attempts and not config.extract.retry_failed and not _may_have_passed(job):
                self.refused_before += 1
            else:
                self._left.append(job.video)
                self._attempts_before[job.video.video_id] = job.attempts
        self.count = len(self._left)

    @property
    def todo(self) -> Set[str]:
        """Return the ids of the videos to do at the start."""
        return self._attempts_before.keys()

    @property
    def left(self) -> int:
        """Return the number of videos that were not done at the last look."""
        return len(self._left)

    def choose(self, claimed: Set[str]) -> dict[str, Job]:
        """Look at the store, and choose the next shard.

        Args:
            claimed: ids of the videos that runs are working on.

        Returns:
            By id, the jobs of the first videos that are neither done nor claimed: at most a shard, none if all are
            done or claimed.
        """
        chosen: dict[str, Job] = {}
        passed: list[VideoFile] = []
        size = self._shard_size
        while self._left and len(chosen) < self._shard_size:
            some = [self._left.popleft() for _ in range(min(size, len(self._left)))]
            size *= 2  # other runs may have done many of them, and each round lists the store once
            for job in self._lookup.jobs(some):
                video_id = job.video.video_id
                if not job.static and not job.dynamic:
                    self._set_aside.discard(video_id)
                    continue
                if job.attempts > self._attempts_before[video_id]:
                    self.refused += 1
                    self._set_aside.discard(video_id)
                    continue
                passed.append(job.video)
                if video_id not in claimed and video_id not in self._set_aside and len(chosen) < self._shard_size:
                    chosen[video_id] = job
        self._left.extendleft(reversed(passed))
        return chosen

    def set_aside(self, video_ids: Iterable[str]) -> None:
        """Never choose these videos again: this run has tried them."""
        self._set_aside.update(video_ids)

    @property
    def all_set_aside(self) -> bool:
        """Return whether this run has tried all remaining videos."""
        return all(video.video_id in self._set_aside for video in self._left)

    def held_by(self, claims: Iterable[Claim]) -> Counter[str]:
        """Count the remaining videos that other runs have claimed, by machine name."""
        left = {video.video_id for video in self._left}
        held = Counter({claim.process.host: 0 for claim in claims})
        for claim in claims:
            held[claim.process.host] += len(claim.videos & left)
        return +held


def _may_have_passed(job: Job) -> bool:
    """Return whether the cause of a refusal may have passed. A file that is still unreadable has no digest."""
    return job.reason in TRANSIENT and job.video.sha256 != ""

"""The remaining videos of a run, while other runs may work on the same store."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from extractors.errors import TRANSIENT
from flows.archive.families import Families
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.extraction.jobs import Job
from storage.files.paths import StorePath
from storage.leases.claims import Claim
from storage.shards.store import FeatureStore
from storage.tables.failures import FailureLog, LastFailure
from storage.tables.manifest import FEW, hashes

VIDEOS_AT_A_TIME = 2**16  # of a large archive


class Lookup:
    """Looks up what videos still need, in a few requests however large the store is."""

    def __init__(self, root: StorePath, families: Families) -> None:
        self._families = families
        self._store = FeatureStore(root)
        self._failures = FailureLog(root)

    def jobs(self, videos: Sequence[VideoFile]) -> Iterator[Job]:
        """Yield a job for each video, which may need nothing.

        A large archive takes 48 bytes of memory for each video with features, and reads the whole manifest once.
        """
        families = (self._families.static, self._families.dynamic)
        if len(videos) <= FEW:
            digests = {video.video_id: video.sha256 for video in videos}
            refused = self._failures.last(self._families.features, digests)
            known = self._store.has_all(families, digests).values()
            static, dynamic = ([video.video_id in done for video in videos] for done in known)
            yield from _jobs(videos, static, dynamic, refused)
            return
        places = [self._store.manifest.places(family.key) for family in families]
        refused = self._failures.last(self._families.features)
        for first in range(0, len(videos), VIDEOS_AT_A_TIME):
            some = videos[first : first + VIDEOS_AT_A_TIME]
            which = hashes([video.video_id for video in some]), hashes([video.sha256 for video in some])
            static, dynamic = (place.has(*which).tolist() for place in places)
            yield from _jobs(some, static, dynamic, refused)

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
        todo: videos to do at the start.
        count: their number.
        cached: number of videos with features at the start.
        refused_before: number of videos that were refused before with the same settings, because of their bytes, and
            are not tried again.
        refused: number of videos refused since, by this run or another.
    """

    def __init__(self, videos: Sequence[VideoFile], config: RunConfig, families: Families) -> None:
        store = FeatureStore(config.store.path)
        for family in (families.faces, families.static, families.dynamic):
            store.touch(family)  # before it is looked up what is done: the first claim comes much later
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
                if job.attempts:
                    self._attempts_before[job.video.video_id] = job.attempts
        self.todo = tuple(self._left)
        self.count = len(self.todo)

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
                if job.attempts > self._attempts_before.get(video_id, 0):
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


def _jobs(
    videos: Sequence[VideoFile],
    static: Sequence[bool],
    dynamic: Sequence[bool],
    refused: Mapping[tuple[str, str], LastFailure],
) -> Iterator[Job]:
    """Yield the jobs of videos, of which it is known whether they have features."""
    never = LastFailure(0, "")
    for video, has_static, has_dynamic in zip(videos, static, dynamic, strict=True):
        last = refused.get((video.video_id, video.sha256), never)
        yield Job(video, static=not has_static, dynamic=not has_dynamic, attempts=last.attempts, reason=last.reason)


def _may_have_passed(job: Job) -> bool:
    """Return whether the cause of a refusal may have passed. A file that is still unreadable has no digest."""
    return job.reason in TRANSIENT and job.video.sha256 != ""

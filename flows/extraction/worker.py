"""A worker: an extractor, built once per process, and the claims on the videos that it extracts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType

from flows.archive.families import Families
from flows.config.settings import RunConfig
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import Job, ShardReport
from flows.extraction.worklist import Lookup
from flows.session.environment import restrict_access
from storage.errors import StoreError
from storage.files.paths import StorePath
from storage.leases.leases import LeaseLostError, Leases

log = logging.getLogger(__name__)

OnVideo = Callable[[str, bool], None]
Check = Callable[[], None]


def extract_and_commit(
    extractor: Extractor, jobs: Sequence[Job], leases: Leases, on_video: OnVideo, check: Check | None = None
) -> ShardReport:
    """Extract and commit claimed videos, unless another run takes them over because this one seems dead.

    Args:
        extractor: open.
        jobs: the videos that `leases` hold.
        leases: open.
        on_video: called after each video with its id and whether it was accepted.
        check: called repeatedly; an exception from it stops the shard.
    """

    def go_on() -> None:
        leases.check()
        if check is not None:
            check()

    try:
        try:
            return extractor.extract(jobs, on_video, go_on)
        except StoreError:
            leases.confirm()  # features of a run that was taken for dead may have been removed, which is no error
            raise
    except LeaseLostError as error:
        log.warning("%s; its %d videos are left to another run", error, len(jobs))
        return ShardReport(0, 0, {}, lost=True)


def leases_for(root: StorePath, families: Families) -> Leases:
    """Return the leases of a run, not open yet. Features of the same faces share leases, as they share face tracks."""
    return Leases(root, families.faces.key)


class Worker:
    """Claims and extracts shards, so that a shard that is submitted twice is extracted once.

    Use it as a context manager. Several threads may call it; shards are extracted one after the other.

    Args:
        extractor: not open yet; it has its commits confirmed by `leases`.
        leases: not open yet.
        lookup: tells which videos still need something.
    """

    def __init__(self, extractor: Extractor, leases: Leases, lookup: Lookup) -> None:
        self._extractor, self._leases, self._lookup = extractor, leases, lookup
        self._resources = ExitStack()
        self._busy = threading.Lock()

    def __enter__(self) -> Worker:
        with ExitStack() as resources:
            resources.enter_context(self._extractor)
            resources.enter_context(self._leases)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._busy:
            self._resources.close()

    def extract(self, jobs: Sequence[Job], on_video: OnVideo, check: Check | None = None) -> ShardReport:
        """Extract and commit a shard, except videos that are done or refused by now, or claimed by other runs."""
        with self._busy:
            claimed = self._leases.claim(partial(self._lookup.still_needed, jobs))
            if not claimed:
                return ShardReport(0, 0, {})
            try:
                return extract_and_commit(self._extractor, list(claimed.values()), self._leases, on_video, check)
            finally:
                self._leases.release()


MakeWorker = Callable[[], Worker]
"""Builds a worker in another process; must be picklable."""


def worker_maker(config: RunConfig, families: Families) -> MakeWorker:
    """Return a function that builds workers with the real networks."""
    return partial(_build, config, families)


def _build(config: RunConfig, families: Families) -> Worker:
    restrict_access(config.store.path)
    leases = leases_for(config.store.path, families)
    return Worker(Extractor(config, families, leases.confirm), leases, Lookup(config.store.path, families))

"""A worker: all that one process needs to extract shards, built once, and the claims under which it does so."""

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
from storage.errors import StoreError
from storage.leases.leases import LeaseLostError, Leases

log = logging.getLogger(__name__)

OnVideo = Callable[[str, bool], None]
Check = Callable[[], None]


def extract_and_commit(
    extractor: Extractor, jobs: Sequence[Job], leases: Leases, on_video: OnVideo, check: Check | None = None
) -> ShardReport:
    """Extract and commit videos that are claimed, unless another run takes them over, having taken this one for dead.

    Args:
        extractor: open.
        jobs: what `leases` hold.
        leases: open.
        on_video: called after each video with its id and whether it was accepted.
        check: called again and again; what it raises breaks the shard off.
    """

    def go_on() -> None:
        leases.check()
        if check is not None:
            check()

    try:
        try:
            return extractor.extract(jobs, on_video=on_video, confirm=leases.confirm, check=go_on)
        except StoreError:
            leases.confirm()  # who takes over removes what was about to be committed: that is no fault of the store
            raise
    except LeaseLostError as error:
        log.warning("%s; its %d videos are left to another run", error, len(jobs))
        return ShardReport(0, 0, {}, lost=True)


class Worker:
    """Extracts the shards that it is given, and claims them first, so that a shard given twice is done once.

    Use it as a context manager. Shards that several threads ask for come one after the other.

    Args:
        extractor: not open yet.
        config: of the run.
        families: of the configuration.
    """

    def __init__(self, extractor: Extractor, config: RunConfig, families: Families) -> None:
        self._extractor = extractor
        self._lookup = Lookup(config, families)
        # One log for all that is made from the same faces: their rows are shared.
        self._leases = Leases(config.store.path, families.faces.key)
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
        """Extract and commit a shard, but for videos that were done or refused since, or that others work on.

        Args:
            jobs: the shard, as the work list chose it.
            on_video, check: see `extract_and_commit`.
        """
        with self._busy:
            claimed = self._leases.claim(partial(self._lookup.still_needed, jobs))
            if not claimed:
                return ShardReport(0, 0, {})
            try:
                return extract_and_commit(self._extractor, list(claimed.values()), self._leases, on_video, check)
            finally:
                self._leases.release()


MakeWorker = Callable[[], Worker]
"""Makes a worker, in another process, so it must pickle."""


def worker_maker(config: RunConfig, families: Families) -> MakeWorker:
    """What makes workers with the real networks, which takes seconds."""
    return partial(_build, config, families)


def _build(config: RunConfig, families: Families) -> Worker:
    return Worker(Extractor(config, families), config, families)

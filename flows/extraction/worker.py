"""The work on a shard, wherever it is done: claim its videos, extract them, commit, and give the claim back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from flows.archive.families import Families
from flows.config.settings import RunConfig
from flows.engine.engine import Course, Work
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import Shard, ShardReport
from flows.extraction.worklist import Lookup
from flows.session.environment import restrict_access
from storage.errors import StoreError
from storage.files.paths import StorePath
from storage.leases.leases import LeaseLostError, Leases

log = logging.getLogger(__name__)


def leases_for(root: StorePath, families: Families) -> Leases:
    """Return the leases of a run, not open yet. Features of the same faces share leases, as they share face tracks."""
    return Leases(root, families.faces.key)


@contextmanager
def open_extraction(extractor: Extractor, leases: Leases, lookup: Lookup) -> Iterator[Work[Shard, ShardReport]]:
    """Open the work on shards: extract and commit the videos that are not done, refused or claimed by now.

    A shard that is given twice is therefore extracted once.

    Args:
        extractor: not open yet; `leases` confirm its commits.
        leases: not open yet.
        lookup: tells which videos still need something.
    """

    def extract(shard: Shard, course: Course) -> ShardReport:
        claimed = leases.claim(partial(lookup.still_needed, shard))
        if not claimed:
            return ShardReport(0, 0, {})
        done = failed = 0

        def on_video(_: str, ok: bool) -> None:
            nonlocal done, failed
            done, failed = done + 1, failed + (not ok)
            course.progress(done, failed)

        def check() -> None:
            leases.check()
            course.check()

        try:
            return extractor.extract(list(claimed.values()), on_video, check)
        except LeaseLostError as error:
            return _left_to_another_run(shard, error)
        except StoreError:
            # Another run may have taken this one for dead and removed its features; then the store is not at fault.
            try:
                leases.confirm()
            except LeaseLostError as error:
                return _left_to_another_run(shard, error)
            raise
        finally:
            leases.release()

    with extractor, leases:
        yield extract


def _left_to_another_run(shard: Shard, error: LeaseLostError) -> ShardReport:
    log.warning("%s; its %d videos are left to another run", error, len(shard))
    return ShardReport(0, 0, {}, lost=True)


@contextmanager
def open_shards(config: RunConfig, families: Families, videos: int) -> Iterator[Work[Shard, ShardReport]]:
    """Open the work on shards with the networks of the settings, for at most so many videos."""
    restrict_access(config.store.path)
    leases = leases_for(config.store.path, families)
    extractor = Extractor(config, families, leases.confirm, videos=videos)
    with open_extraction(extractor, leases, Lookup(config.store.path, families)) as work:
        yield work

"""The work on a stretch of videos, wherever it is done: claim them, extract, commit, and give the claim back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from flows.archive.families import Families
from flows.config.settings import RunConfig
from flows.engine.engine import Course, Work
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import Committed, Stretch
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
def open_extraction(extractor: Extractor, leases: Leases, lookup: Lookup) -> Iterator[Work[Stretch, Committed]]:
    """Open the work on stretches: extract and commit the videos that are not done, refused or claimed by now.

    A stretch that is given twice is therefore extracted once.

    Args:
        extractor: not open yet; `leases` confirm its commits.
        leases: not open yet.
        lookup: tells which videos still need something.
    """

    kept: dict[Stretch, Committed] = {}  # by work that raised an exception, and that may be tried again

    def extract(stretch: Stretch, course: Course) -> Committed:
        committed = kept.pop(stretch, Committed())
        claimed = leases.claim(partial(lookup.still_needed, stretch))
        if not claimed:
            return committed
        done, failed = committed.extracted + committed.failed, committed.failed

        def on_video(_: str, ok: bool) -> None:
            nonlocal done, failed
            done, failed = done + 1, failed + (not ok)
            course.progress(done, failed)

        def check() -> None:
            leases.check()
            course.check()

        try:
            for shard in extractor.extract(list(claimed.values()), on_video, check):
                committed += shard
            return committed
        except LeaseLostError as error:
            return _left_to_another_run(committed, error)
        except Exception as error:
            if isinstance(error, StoreError):
                # Another run may have taken this one for dead and removed its features; then the store is not at fault.
                try:
                    leases.confirm()
                except LeaseLostError as lost:
                    return _left_to_another_run(committed, lost)
            kept[stretch] = committed
            raise
        finally:
            leases.release()

    with extractor, leases:
        yield extract


def _left_to_another_run(committed: Committed, error: LeaseLostError) -> Committed:
    log.warning("%s; the rest of its videos is left to another run", error)
    return replace(committed, lost=True)


@contextmanager
def open_stretches(config: RunConfig, families: Families, videos: int) -> Iterator[Work[Stretch, Committed]]:
    """Open the work on stretches with the networks of the settings, for at most so many videos."""
    restrict_access(config.store.path)
    leases = leases_for(config.store.path, families)
    extractor = Extractor(config, families, leases.confirm, videos=videos)
    with open_extraction(extractor, leases, Lookup(config.store.path, families)) as work:
        yield work

"""The flow `extract`: the missing features of an archive, stretch by stretch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial

from extractors.optical_flow.computer import OpticalFlowComputer, why_gpu_is_idle
from extractors.optical_flow.parameters import OpticalFlowSettings
from flows.archive.families import Families, families_of
from flows.archive.outcomes import how_to_list, refusal_reasons
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.engine.choice import open_engine
from flows.engine.engine import RETRIES, Engine, OpenWork
from flows.extraction.jobs import Committed, ExtractReport, Stretch, TooManyRefusedError, keep_report
from flows.extraction.worker import leases_for, open_stretches
from flows.extraction.worklist import WorkList
from flows.pipeline.announce import Commits, Pages
from flows.pipeline.steps import step
from flows.session import console
from flows.session.environment import settle_environment
from storage.files.paths import StorePath
from storage.leases.leases import Leases

log = logging.getLogger(__name__)


@step("extract")
def extract(config: RunConfig, videos: Archive) -> ExtractReport:
    """Extract the features of all videos that lack them. This run ends when all is done, even if other runs do a part.

    Raises:
        TooManyRefusedError: more videos were refused than the settings allow. All features are committed.
    """
    settle_environment()
    families = families_of(config)
    work = WorkList(videos, config, families)
    if not work.count:
        console.say(f"Extract: nothing to decode: {_known(config.store.path, families, videos, work)}")
        return ExtractReport(0, 0, work.cached, work.refused_before, {})
    _say_slow_engine(config.optical_flow)
    with (
        open_engine(config) as engine,
        leases_for(config.store.path, families) as leases,
        console.stage("Extract", work.count, Pages().progress("Extract"), faulty="rejected") as stage,
    ):
        done = extract_stretches(work, leases, stage, engine, partial(open_stretches, config, families, work.count))
    extracted, failed, seconds = done.extracted, done.failed, done.seconds
    by_others = work.count - work.left - extracted - failed
    reasons = refusal_reasons(config.store.path, families, work.todo)
    report = ExtractReport(extracted, failed, work.cached, work.refused_before, seconds, by_others, dict(reasons))
    found = f"{work.cached} in the store before, {work.refused_before} rejected before"
    log.info("Extract: %d extracted, %d rejected, %s", extracted, failed, found)
    keep_report(report, config.store.path)
    if work.refused > config.extract.max_failed_fraction * work.count:
        limit = f", more than extract.max_failed_fraction allows ({config.extract.max_failed_fraction:g})"
        raise TooManyRefusedError(
            f"{work.refused:,} of {console.counted(work.count, 'video')} rejected ({console.tally(reasons)})"
            f"{limit if work.refused < work.count else ''}; {how_to_list(config.store.path)}"
        )
    return report


def _say_slow_engine(chosen: OpticalFlowSettings) -> None:
    """Say if optical flow takes far longer than the machine seems to need, and its features have other keys."""
    if OpticalFlowComputer.from_settings(chosen).engine == "opencv" != chosen.engine:
        console.say(
            "Extract: Numba cannot run here: OpenCV computes optical flow, 20 times more slowly", style="yellow"
        )
    if chosen.engine == "auto" and (obstacle := why_gpu_is_idle()) is not None:
        console.say(f"Extract: the processors compute optical flow, since the GPU cannot: {obstacle}", style="yellow")


def _known(root: StorePath, families: Families, videos: Archive, work: WorkList) -> str:
    """Say what the store knows about the videos if there is nothing to decode."""
    if not work.refused_before:
        return f"{console.counted(work.cached, 'video')} known to the store"
    reasons = console.tally(refusal_reasons(root, families, videos))
    refused = f"{console.counted(work.refused_before, 'video')} rejected before ({reasons})"
    cached = f"{work.cached:,} known to the store, " if work.cached else ""
    return f"{cached}{refused}; {how_to_list(root)}"


def extract_stretches(
    work: WorkList, leases: Leases, stage: console.Stage, engine: Engine, open_work: OpenWork[Stretch, Committed]
) -> Committed:
    """Hand out stretch after stretch until all videos are done, by this run or others.

    Args:
        leases: open; they claim nothing; the worker on each stretch does.
        open_work: opens the work on a stretch.

    Returns:
        What all workers have committed.

    Raises:
        Exception: the first one that a stretch raised. The others are done all the same, except after a user's
            mistake.
    """
    at_work: dict[Stretch, tuple[int, int]] = {}
    total = Committed()
    commits = Commits(work.place)

    def stretches() -> Iterator[Stretch | None]:
        waited_for: Counter[str] = Counter()
        while True:
            claims = leases.others()
            claimed = frozenset[str]().union(*(claim.videos for claim in claims))
            here = {job.video.video_id for stretch in at_work for job in stretch}
            others = sum(here.isdisjoint(claim.videos) for claim in claims)
            chosen = work.choose(claimed, here, workers=engine.workers, others=others)
            stretch = tuple(chosen.values())
            show()
            if stretch:
                waited_for = Counter()
                at_work[stretch] = 0, 0
                yield stretch
            elif at_work:
                yield None
            elif held := work.held_by(claims):
                if held != waited_for:
                    hosts = ", ".join(f"{count} on {host}" for host, count in sorted(held.items()))
                    console.say(f"Extract: waiting for videos of other runs: {hosts}")
                waited_for = held
                yield None
            elif work.all_set_aside:
                return

    def show() -> None:
        seen, refused = (sum(counts) for counts in zip((0, 0), *at_work.values(), strict=True))
        stage.at(work.count - work.left + seen, failed=work.refused + refused)

    def on_progress(stretch: Stretch, seen: int, refused: int) -> None:
        at_work[stretch] = seen, refused
        show()

    def on_result(stretch: Stretch, committed: Committed) -> None:
        nonlocal total
        del at_work[stretch]
        total += committed
        commits.add(committed)

    def on_failure(stretch: Stretch) -> None:
        del at_work[stretch]
        work.set_aside(job.video.video_id for job in stretch)

    with commits:
        engine.run(open_work, stretches(), on_result, on_failure=on_failure, on_progress=on_progress, retries=RETRIES)
    return total

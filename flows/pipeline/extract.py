"""The flow `extract`: the missing features of an archive, shard by shard."""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from prefect import State
from prefect.futures import PrefectFuture

from flows.archive.families import Families, families_of
from flows.archive.outcomes import how_to_list, refusal_reasons
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import ExtractReport, Job, ShardReport, TooManyRefusedError, keep_report
from flows.extraction.pool import Tally
from flows.extraction.runners import Runner, open_runner, shard_task
from flows.extraction.worker import extract_and_commit, leases_for, worker_maker
from flows.extraction.worklist import WorkList
from flows.pipeline.announce import Pages, shard_committed
from flows.pipeline.steps import step
from flows.session import console, stopping
from flows.session.environment import settle_environment
from flows.session.errors import USER_ERRORS
from flows.session.server import prefect_api
from storage.files.paths import StorePath
from storage.leases.leases import Leases

log = logging.getLogger(__name__)


@shard_task
def extract_shard(extractor: Extractor, jobs: list[Job], leases: Leases, stage: console.Stage) -> ShardReport:
    """Extract and commit one shard in this process."""
    return extract_and_commit(extractor, jobs, leases, lambda _, ok: stage.advance(ok=ok))


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
    with ExitStack() as resources:
        resources.enter_context(prefect_api())  # shards are tasks
        with console.console.status("Building the networks"):
            leases = leases_for(config.store.path, families)
            if config.extract.runner == "local":
                extractor = resources.enter_context(Extractor(config, families, leases.confirm, videos=work.count))
            else:
                runner = resources.enter_context(open_runner(config.extract, worker_maker(config, families)))
        resources.enter_context(leases)
        stage = resources.enter_context(console.stage("Extract", work.count, Pages().progress("Extract")))
        if config.extract.runner == "local":
            states = extract_locally(work, leases, stage, partial[Any](extract_shard, extractor))
            outcomes = [state.result(raise_on_failure=False) for state in states]
        else:
            outcomes = extract_in_workers(work, leases, stage, runner)
    shards: list[ShardReport] = []
    for outcome in outcomes:
        # Not before all are done: a failed shard must not prevent the others.
        if isinstance(outcome, BaseException):
            raise outcome
        shards.append(outcome)
    seconds: Counter[str] = Counter()
    for shard in shards:
        seconds.update(shard.seconds)
    extracted, failed = sum(shard.extracted for shard in shards), sum(shard.failed for shard in shards)
    by_others = work.count - work.left - extracted - failed
    reasons = refusal_reasons(config.store.path, families, [video for video in videos if video.video_id in work.todo])
    report = ExtractReport(extracted, failed, work.cached, work.refused_before, dict(seconds), by_others, dict(reasons))
    found = f"{work.cached} in the store before, {work.refused_before} refused before"
    log.info("Extract: %d extracted, %d refused, %s", extracted, failed, found)
    keep_report(report, config.store.path)
    if work.refused > config.extract.max_failed_fraction * work.count:
        limit = f", more than extract.max_failed_fraction allows ({config.extract.max_failed_fraction:g})"
        raise TooManyRefusedError(
            f"{work.refused:,} of {console.counted(work.count, 'video')} refused ({console.tally(reasons)})"
            f"{limit if work.refused < work.count else ''}; {how_to_list(config.store.path)}"
        )
    return report


def _known(root: StorePath, families: Families, videos: Archive, work: WorkList) -> str:
    """Say what the store knows about the videos if there is nothing to decode."""
    if not work.refused_before:
        return f"{console.counted(work.cached, 'video')} known to the store"
    reasons = console.tally(refusal_reasons(root, families, videos))
    refused = f"{console.counted(work.refused_before, 'video')} refused before ({reasons})"
    cached = f"{work.cached:,} known to the store, " if work.cached else ""
    return f"{cached}{refused}; {how_to_list(root)}"


def extract_locally(
    work: WorkList, leases: Leases, stage: console.Stage, extract_claimed: Callable[..., State], *, poll_s: float = 2.0
) -> list[State]:
    """Claim and extract shard after shard until all videos are done, by this run or others.

    Args:
        leases: open.
        extract_claimed: called with the jobs of a shard, `leases`, `stage` and return_state=True.
        poll_s: seconds between two looks at the store while other runs hold the remaining videos.

    Returns:
        The state of each shard that this run worked on.
    """
    states: list[State] = []
    waited_for: Counter[str] = Counter()
    while True:
        stopping.check()
        jobs = leases.claim(work.choose)
        stage.at(work.count - work.left, failed=work.refused)
        if jobs:
            waited_for = Counter()
            states.append(extract_claimed(list(jobs.values()), leases, stage, return_state=True))
            report = states[-1].result(raise_on_failure=False)
            if not (isinstance(report, ShardReport) and report.lost):  # but done or failed
                work.set_aside(jobs)
            leases.release()
            if isinstance(report, ShardReport) and not report.lost:
                shard_committed(work.place, report.extracted, report.failed, report.seconds)
        elif held := work.held_by(leases.others()):
            waited_for = _wait_for(held, waited_for, poll_s)
        elif work.all_set_aside:
            return states


def extract_in_workers(
    work: WorkList, leases: Leases, stage: console.Stage, runner: Runner, *, poll_s: float = 2.0
) -> list[ShardReport | BaseException]:
    """Give shard after shard to workers, which claim them, until all videos are done, by this run or others.

    Args:
        leases: open; this process claims nothing itself.
        runner: open.
        poll_s: seconds between two looks at the store while all remaining videos are in work.

    Returns:
        The report of each shard, or the error that it raised.

    Raises:
        Exception: one of `USER_ERRORS`, raised by a shard; other shards would raise it too.
    """
    outcomes: list[ShardReport | BaseException] = []
    at_work: dict[PrefectFuture[ShardReport], tuple[dict[str, Job], Tally]] = {}
    done: queue.SimpleQueue[PrefectFuture[ShardReport]] = queue.SimpleQueue()
    waited_for: Counter[str] = Counter()
    while True:
        stopping.check()
        while len(at_work) < runner.capacity():
            taken = [claim.videos for claim in leases.others()] + [frozenset(jobs) for jobs, _ in at_work.values()]
            jobs, tally = work.choose(frozenset().union(*taken)), Tally()
            if not jobs:
                break
            future = runner.submit(list(jobs.values()), tally)
            at_work[future] = jobs, tally
            future.add_done_callback(done.put)
        tallies = [tally for _, tally in at_work.values()]
        seen, failed = sum(tally.done for tally in tallies), sum(tally.failed for tally in tallies)
        stage.at(work.count - work.left + seen, failed=work.refused + failed)
        if at_work:
            waited_for = Counter()
            with suppress(queue.Empty):
                future = done.get(timeout=poll_s)
                jobs, _ = at_work.pop(future)
                outcome = _outcome(future)
                outcomes.append(outcome)
                if isinstance(outcome, USER_ERRORS):
                    raise outcome
                if isinstance(outcome, BaseException):
                    work.set_aside(jobs)
                elif not outcome.lost:
                    shard_committed(work.place, outcome.extracted, outcome.failed, outcome.seconds)
        elif held := work.held_by(leases.others()):
            waited_for = _wait_for(held, waited_for, poll_s)
        elif work.all_set_aside:
            return outcomes


def _outcome(future: PrefectFuture[ShardReport]) -> ShardReport | BaseException:
    try:
        return future.result(raise_on_failure=False)
    except Exception as error:  # Dask gives up tasks whose workers die repeatedly
        return error


def _wait_for(held: Counter[str], waited_for: Counter[str], poll_s: float) -> Counter[str]:
    """Wait briefly for other runs, announce them if they differ from `waited_for`, and return `held`."""
    if held != waited_for:
        hosts = ", ".join(f"{count} on {host}" for host, count in sorted(held.items()))
        console.say(f"Extract: waiting for videos of other runs: {hosts}")
    time.sleep(poll_s)
    return held

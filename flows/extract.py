"""The flow `extract`: features for every video of an archive that has none yet, shard by shard."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial

from prefect import State, Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import TaskRun

from flows import announce, console, stopping
from flows.config import RunConfig
from flows.errors import UserError
from flows.extraction import Extractor, Job, ShardReport
from flows.families import families_of
from flows.manifest import Archive
from flows.worklist import WorkList
from storage.commit import commit_file
from storage.errors import StoreError, UnreachableError
from storage.leases import LeaseLostError, Leases

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """Counts of videos, and seconds by stage over all shards.

    Args:
        extracted, failed: by this run.
        cached: had their features before.
        refused_before: were refused before with the same settings, and not tried again.
        seconds: by stage, of this run.
        by_others: extracted or refused meanwhile by other runs.
    """

    extracted: int
    failed: int
    cached: int
    refused_before: int
    seconds: dict[str, float]
    by_others: int = 0


class TooManyRefusedError(UserError):
    """More videos were refused than the settings allow."""


def passes_by_itself(_task: Task, _run: TaskRun, state: State) -> bool:
    """Whether it is worth extracting a shard again: a store that refuses (a full disk) will refuse again."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, StoreError) or isinstance(error, UnreachableError)


@task(
    retries=2,
    retry_delay_seconds=10,
    retry_jitter_factor=0.5,
    retry_condition_fn=passes_by_itself,
    cache_policy=NO_CACHE,
)
def extract_shard(extractor: Extractor, jobs: list[Job], leases: Leases, stage: console.Stage) -> ShardReport:
    """Extract and commit one shard, unless another run takes it over meanwhile, having taken this one for dead."""

    def on_video(_: str, ok: bool) -> None:
        stage.advance(ok=ok)
        leases.check()

    try:
        try:
            return extractor.extract(jobs, on_video=on_video, confirm=leases.confirm)
        except StoreError:
            leases.confirm()  # who takes over removes what was about to be committed: that is no fault of the store
            raise
    except LeaseLostError as error:
        log.warning("%s; its %d videos are left to another run", error, len(jobs))
        return ShardReport(0, 0, {}, lost=True)


@flow(name="extract", validate_parameters=False)
def extract(config: RunConfig, videos: Archive) -> ExtractReport:
    """Extract the features of all videos that lack them. Other runs may do part of it; this one ends when all is done.

    Raises:
        TooManyRefusedError: more videos were refused than the settings allow; all that could be extracted is committed.
    """
    families = families_of(config)
    work = WorkList(videos, config, families)
    if not work.count:
        console.say(f"Extract: nothing to decode: {console.counted(len(videos), 'video')} known to the store")
        return ExtractReport(0, 0, work.cached, work.refused_before, {})
    with ExitStack() as resources:
        with console.console.status("Building the networks"):
            extractor = resources.enter_context(Extractor(config, families))
        # One log for all that is made from the same faces: their rows are shared.
        leases = resources.enter_context(Leases(config.store.path, families.faces.key))
        stage = resources.enter_context(console.stage("Extract", work.count, announce.progress("Extract")))
        states = work_off(work, leases, stage, partial(extract_shard, extractor))
    # Only now: a shard that broke off must not keep the others from being worked on.
    shards: list[ShardReport] = [state.result() for state in states]
    seconds: Counter[str] = Counter()
    for shard in shards:
        seconds.update(shard.seconds)
    extracted, failed = sum(shard.extracted for shard in shards), sum(shard.failed for shard in shards)
    by_others = work.count - work.left - extracted - failed
    report = ExtractReport(extracted, failed, work.cached, work.refused_before, dict(seconds), by_others)
    _keep(report, config)
    if work.refused > config.extract.max_failed_fraction * work.count:
        raise TooManyRefusedError(
            f"{work.refused} of {console.counted(work.count, 'video')} refused, more than "
            f"extract.max_failed_fraction allows ({config.extract.max_failed_fraction:g}); "
            "`traitline failures list` says why"
        )
    return report


def work_off(
    work: WorkList, leases: Leases, stage: console.Stage, extract_claimed: Callable[..., State], *, poll_s: float = 2.0
) -> list[State]:
    """Claim and extract shard after shard, until all is done, be it by other runs.

    Args:
        work: what there is to do.
        leases: open.
        stage: shows how much is done.
        extract_claimed: takes the jobs of a shard, `leases` and `stage`; `return_state` gives its state.
        poll_s: seconds between two looks where other runs hold all that is left.

    Returns:
        The state of each shard that this run worked on. Where the store refuses one, it is the last.
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
            if not (isinstance(report, ShardReport) and report.lost):  # but done, or broken off
                work.set_aside(jobs)
            leases.release()
            if isinstance(report, ShardReport) and not report.lost:
                announce.shard_committed(work.place, report.extracted, report.failed, report.seconds)
        elif held := work.held_by(leases.others()):
            if held != waited_for:
                hosts = ", ".join(f"{count} on {host}" for host, count in sorted(held.items()))
                console.say(f"Extract: waiting for videos that other runs work on: {hosts}")
            waited_for = held
            time.sleep(poll_s)
        elif work.all_set_aside:
            return states


def _keep(report: ExtractReport, config: RunConfig) -> None:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    with commit_file(config.store.path / "runs" / f"{stamp}-extract.json") as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def last_extraction(config: RunConfig) -> ExtractReport | None:
    """The report of the last extraction that had something to do, if there was one."""
    reports = sorted((config.store.path / "runs").glob("*-extract.json"))
    return ExtractReport(**json.loads(reports[-1].read_text(encoding="utf-8"))) if reports else None

"""The flow `extract`: features for every video of an archive that has none yet, shard by shard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import console
from flows.config import RunConfig
from flows.errors import UserError
from flows.extraction import Extractor, Job, ShardReport
from flows.families import Families, families_of
from flows.manifest import Archive, VideoFile
from storage.commit import commit_file
from storage.failures import FailureLog
from storage.feature_store import FeatureStore


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left to do, and what need not be done.

    Args:
        shards: the jobs, in shards.
        cached: videos whose features are in the store already.
        refused_before: videos that were refused before with the same settings and are not tried again.
    """

    shards: list[list[Job]]
    cached: int
    refused_before: int


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """Counts of videos, and seconds by stage over all shards."""

    extracted: int
    failed: int
    cached: int
    refused_before: int
    seconds: dict[str, float]


class TooManyRefusedError(UserError):
    """More videos were refused than the settings allow."""


def plan_extraction(videos: Sequence[VideoFile], config: RunConfig, families: Families) -> Plan:
    """Find what is left to do from the committed shards and the log of failures."""
    store = FeatureStore(config.store.path)
    done = [store.done(family) for family in (families.static, families.dynamic)]
    refused = {
        (failure.video_id, failure.video_sha256): failure.attempts
        for failure in FailureLog(config.store.path).current()
        if failure.key == families.features
    }
    jobs, cached, refused_before = [], 0, 0
    for video in videos:
        static_missing, dynamic_missing = (known.get(video.video_id) != video.sha256 for known in done)
        attempts = refused.get((video.video_id, video.sha256), 0)
        if not static_missing and not dynamic_missing:
            cached += 1
        elif attempts and not config.extract.retry_failed:
            refused_before += 1
        else:
            jobs.append(Job(video, static=static_missing, dynamic=dynamic_missing, attempts=attempts))
    size = config.extract.shard_size
    return Plan([jobs[start : start + size] for start in range(0, len(jobs), size)], cached, refused_before)


@task(retries=2, retry_delay_seconds=10, cache_policy=NO_CACHE)
def extract_shard(extractor: Extractor, jobs: list[Job], stage: console.Stage) -> ShardReport:
    """Extract and commit one shard."""
    return extractor.extract(jobs, on_video=lambda _, ok: stage.advance(ok=ok))


@flow(name="extract", validate_parameters=False)
def extract(config: RunConfig, videos: Archive) -> ExtractReport:
    """Extract the features of all videos that lack them.

    Raises:
        TooManyRefusedError: more videos were refused than the settings allow; all that could be extracted is committed.
    """
    families = families_of(config)
    plan = plan_extraction(videos, config, families)
    count = sum(len(jobs) for jobs in plan.shards)
    if not count:
        console.say(f"Extract: all {len(videos)} videos are known to the store; nothing to decode")
        return ExtractReport(0, 0, plan.cached, plan.refused_before, {})
    with ExitStack() as resources:
        with console.console.status("Building the networks"):
            extractor = resources.enter_context(Extractor(config, families))
        stage = resources.enter_context(console.stage("Extract", count))
        states = [extract_shard(extractor, jobs, stage, return_state=True) for jobs in plan.shards]
    # Only now: a shard that broke off must not keep the others from being worked on.
    shards: list[ShardReport] = [state.result() for state in states]
    seconds: Counter[str] = Counter()
    for shard in shards:
        seconds.update(shard.seconds)
    failed = sum(shard.failed for shard in shards)
    report = ExtractReport(count - failed, failed, plan.cached, plan.refused_before, dict(seconds))
    _keep(report, config)
    if failed > config.extract.max_failed_fraction * count:
        raise TooManyRefusedError(
            f"{failed} of {count} videos were refused, more than extract.max_failed_fraction allows "
            f"({config.extract.max_failed_fraction:g}); `traitline failures list` says why"
        )
    return report


def _keep(report: ExtractReport, config: RunConfig) -> None:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    with commit_file(config.store.path / "runs" / f"{stamp}-extract.json") as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def last_extraction(config: RunConfig) -> ExtractReport | None:
    """The report of the last extraction that had something to do, if there was one."""
    reports = sorted((config.store.path / "runs").glob("*-extract.json"))
    return ExtractReport(**json.loads(reports[-1].read_text(encoding="utf-8"))) if reports else None

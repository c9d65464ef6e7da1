"""What an extraction finds left to do, from what the store holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from flows.config import load_config
from flows.extract import plan_extraction
from flows.families import families_of
from flows.manifest import VideoFile
from storage import Failure, FailureLog, FeatureStore, VideoFeatures


def video(name: str, content: str = "as filmed") -> VideoFile:
    return VideoFile(name, Path(name), hashlib.sha256(content.encode()).hexdigest())


@pytest.fixture
def config(tmp_path):
    return load_config(flags={"store.path": tmp_path / "store", "weights": "random", "extract.shard_size": 2})


@pytest.fixture
def families(config):
    return families_of(config)


@pytest.fixture
def cache(config, families):
    def write(file: VideoFile, *names: str) -> None:
        for name in names:
            family = getattr(families, name)
            row = VideoFeatures(
                file.video_id,
                file.sha256,
                np.zeros((2, family.dim), np.float32),
                np.arange(2.0),
                np.arange(2.0) + 1,
                {column: np.ones(2, np.float32) for column in family.quality},
            )
            FeatureStore(config.store.path).write(family, [row])

    return write


@pytest.fixture
def refuse(config, families):
    def add(file: VideoFile, attempts: int, key: str = families.features) -> None:
        row = Failure(file.video_id, file.sha256, key, "faces", "no_face", "none in 3 frames", attempts)
        FailureLog(config.store.path).add([row])

    return add


def test_an_empty_store_leaves_everything_to_do_in_shards_of_the_size_asked_for(config, families):
    files = [video(f"{number}.mp4") for number in range(5)]
    plan = plan_extraction(files, config, families)
    assert [[job.video for job in shard] for shard in plan.shards] == [files[:2], files[2:4], files[4:]]
    assert all(job.static and job.dynamic for shard in plan.shards for job in shard)


def test_a_video_with_both_kinds_of_tokens_is_done(config, families, cache):
    cache(video("a.mp4"), "faces", "static", "dynamic")
    plan = plan_extraction([video("a.mp4")], config, families)
    assert (plan.shards, plan.cached) == ([], 1)


def test_only_the_family_that_lacks_is_made(config, families, cache):
    cache(video("a.mp4"), "faces", "static")
    ((job,),) = plan_extraction([video("a.mp4")], config, families).shards
    assert (job.static, job.dynamic) == (False, True)


def test_changed_bytes_are_done_anew(config, families, cache):
    cache(video("a.mp4"), "faces", "static", "dynamic")
    ((job,),) = plan_extraction([video("a.mp4", "as cut again")], config, families).shards
    assert (job.static, job.dynamic) == (True, True)


def test_a_refused_video_is_tried_again_only_when_asked_and_the_attempts_are_counted(config, families, refuse):
    refuse(video("a.mp4"), attempts=2)
    plan = plan_extraction([video("a.mp4")], config, families)
    assert (plan.shards, plan.refused_before) == ([], 1)
    retrying = config.model_copy(update={"extract": config.extract.model_copy(update={"retry_failed": True})})
    ((job,),) = plan_extraction([video("a.mp4")], retrying, families).shards
    assert job.attempts == 2


def test_a_refused_video_is_tried_again_when_its_bytes_or_the_settings_change(config, families, refuse):
    refuse(video("a.mp4"), attempts=1)
    refuse(video("b.mp4"), attempts=1, key="other settings")
    plan = plan_extraction([video("a.mp4", "mended"), video("b.mp4")], config, families)
    assert [job.video.video_id for shard in plan.shards for job in shard] == ["a.mp4", "b.mp4"]
    assert plan.refused_before == 0

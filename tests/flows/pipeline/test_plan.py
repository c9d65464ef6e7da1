"""What an extraction finds left to do, from what the store holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from flows.archive.families import families_of
from flows.archive.videos import Archive, VideoFile
from flows.config.load import load_config
from flows.config.settings import ExtractSettings
from flows.extraction.worklist import WorkList
from storage import Failure, FailureLog, FeatureStore, VideoFeatures
from storage.tables import table


def video(name: str, content: str = "as filmed") -> VideoFile:
    return VideoFile(name, Path(name), hashlib.sha256(content.encode()).hexdigest())


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.archive.videos.archive.VIDEOS_AT_A_TIME", 2)
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


def ids(work: WorkList, claimed: set[str] = frozenset()) -> list[str]:
    return list(work.choose(claimed))


def test_an_empty_store_leaves_everything_to_do_a_shard_at_a_time(config, families):
    files = [video(f"{number}.mp4") for number in range(5)]
    work = WorkList(Archive(files), config, families)
    assert (work.count, work.left, work.cached, work.refused_before) == (5, 5, 0, 0)
    jobs = work.choose(set())
    assert [job.video for job in jobs.values()] == files[:2]
    assert all(job.static and job.dynamic and not job.attempts for job in jobs.values())
    assert ids(work) == ["0.mp4", "1.mp4"]  # to choose is not to claim


@pytest.mark.parametrize(
    ("videos", "cores", "workers", "others", "expected"),
    [
        (10_000, 2, 1, 0, 64),
        (10_000, 16, 1, 0, 256),
        (10_000, 16, 1, 19, 64),  # 20 runs share the work, and none is to wait long for the last
        (10_000, 128, 8, 0, 256),
        (2_000, 128, 8, 0, 64),
        (900, 16, 1, 0, 192),
        (200, 16, 1, 0, 64),
        (30, 16, 1, 0, 30),
    ],
)
def test_workers_with_many_cores_claim_several_shards_as_long_as_much_is_left(
    config, families, monkeypatch, videos, cores, workers, others, expected
):
    monkeypatch.setattr("flows.extraction.worklist.usable_cores", lambda: cores)
    archive = Archive(VideoFile(f"{number:05}.mp4", Path(f"{number:05}.mp4"), "") for number in range(videos))
    whole = config.model_copy(update={"extract": ExtractSettings()})
    chosen = WorkList(archive, whole, families).choose(set(), workers=workers, others=others)
    assert list(chosen) == [file.video_id for file in archive[:expected]]


def test_what_others_claim_is_passed_over_and_comes_back_when_they_give_up(config, families):
    work = WorkList(Archive([video(f"{number}.mp4") for number in range(5)]), config, families)
    assert ids(work, {"0.mp4", "2.mp4"}) == ["1.mp4", "3.mp4"]
    assert ids(work, {f"{number}.mp4" for number in range(5)}) == []
    assert work.left == 5
    assert ids(work) == ["0.mp4", "1.mp4"]


def test_what_others_commit_meanwhile_is_no_longer_left(config, families, cache, refuse):
    files = [video(f"{number}.mp4") for number in range(9)]
    work = WorkList(Archive(files), config, families)
    for file in files[:6]:
        cache(file, "faces", "static", "dynamic")
    refuse(files[6], attempts=1)
    assert ids(work) == ["7.mp4", "8.mp4"]
    assert (work.left, work.refused) == (2, 1)


def test_videos_of_a_shard_that_broke_off_are_not_chosen_again(config, families):
    work = WorkList(Archive([video(f"{number}.mp4") for number in range(3)]), config, families)
    work.set_aside(["0.mp4", "1.mp4"])
    assert ids(work) == ["2.mp4"]
    assert not work.all_set_aside
    work.set_aside(["2.mp4"])
    assert ids(work) == []
    assert work.all_set_aside


def test_a_video_with_both_kinds_of_tokens_is_done(config, families, cache):
    cache(video("a.mp4"), "faces", "static", "dynamic")
    work = WorkList(Archive([video("a.mp4")]), config, families)
    assert (work.count, work.cached) == (0, 1)


def test_only_the_family_that_lacks_is_made(config, families, cache):
    cache(video("a.mp4"), "faces", "static")
    (job,) = WorkList(Archive([video("a.mp4")]), config, families).choose(set()).values()
    assert (job.static, job.dynamic) == (False, True)


def test_changed_bytes_are_done_anew(config, families, cache):
    cache(video("a.mp4"), "faces", "static", "dynamic")
    (job,) = WorkList(Archive([video("a.mp4", "as cut again")]), config, families).choose(set()).values()
    assert (job.static, job.dynamic) == (True, True)


def test_a_refused_video_is_tried_again_only_when_asked_and_once_in_a_run(config, families, refuse):
    refuse(video("a.mp4"), attempts=2)
    work = WorkList(Archive([video("a.mp4")]), config, families)
    assert (work.count, work.refused_before) == (0, 1)
    retrying = config.model_copy(update={"extract": config.extract.model_copy(update={"retry_failed": True})})
    work = WorkList(Archive([video("a.mp4")]), retrying, families)
    (job,) = work.choose(set()).values()
    assert job.attempts == 2
    refuse(video("a.mp4"), attempts=3)
    assert ids(work) == []
    assert (work.left, work.refused) == (0, 1)


@pytest.mark.parametrize("reason", ["file_changed", "unreadable"])
def test_what_was_refused_for_what_has_passed_is_tried_again_once_in_each_run(config, families, reason):
    def refuse(file: VideoFile, attempts: int) -> None:
        row = Failure(file.video_id, file.sha256, families.features, "decode", reason, "it changed", attempts)
        FailureLog(config.store.path).add([row])

    file, gone = video("a.mp4"), VideoFile("b.mp4", Path("b.mp4"), "")
    refuse(file, attempts=1)
    refuse(gone, attempts=1)
    work = WorkList(Archive([file, gone]), config, families)
    assert ids(work) == ["a.mp4"]  # what cannot be read has no digest, and is what it was
    assert work.refused_before == 1
    refuse(file, attempts=2)
    assert ids(work) == []
    assert work.refused == 1


def test_a_refused_video_is_tried_again_when_its_bytes_or_the_settings_change(config, families, refuse):
    refuse(video("a.mp4"), attempts=1)
    refuse(video("b.mp4"), attempts=1, key="other settings")
    work = WorkList(Archive([video("a.mp4", "mended"), video("b.mp4")]), config, families)
    assert ids(work) == ["a.mp4", "b.mp4"]
    assert work.refused_before == 0


def test_a_plan_in_many_steps_finds_what_lacks_features(config, families, cache, refuse, monkeypatch):
    """Archive, manifest and data files end at different ids, and files whose ranges overlap are read in parts."""
    monkeypatch.setattr("flows.archive.videos.archive.VIDEOS_AT_A_TIME", 7)
    monkeypatch.setattr(table, "ROWS_IN_MEMORY", 8)
    monkeypatch.setattr(table, "_SAMPLE_EVERY", 2)
    rng = np.random.default_rng(3)
    files = [video(f"{number:03d}.mp4") for number in range(26)]
    state = rng.choice(["new", "static", "done", "changed", "back again", "refused"], len(files))
    for row in rng.permutation(len(files)):
        file, cut = files[row], video(files[row].video_id, "as cut before")
        match state[row]:
            case "static":
                cache(file, "faces", "static")
            case "done":
                cache(file, "faces", "static", "dynamic")
            case "changed":
                cache(file, "faces", "static", "dynamic")
                cache(cut, "faces", "static", "dynamic")
            case "back again":
                cache(cut, "faces", "static", "dynamic")
                cache(file, "faces", "static", "dynamic")
            case "refused":
                refuse(file, attempts=1)
    FeatureStore(config.store.path).manifest.table.compact()
    for row in np.flatnonzero(state == "new")[::2]:
        cache(files[row], "faces", "static", "dynamic")
        state[row] = "done"
    cache(video("099.mp4"), "faces", "static", "dynamic")  # elsewhere, and not in the archive
    work = WorkList(Archive(files), config, families)
    wanted = [file for file, its in zip(files, state, strict=True) if its in ("new", "static", "changed")]
    assert list(work.todo) == wanted
    assert work.cached == sum(its in ("done", "back again") for its in state)
    assert work.refused_before == sum(state == "refused")
    assert ids(work) == [file.video_id for file in wanted[:2]]
    for file in wanted[:5]:
        cache(file, "faces", "static", "dynamic")
    assert ids(work) == [file.video_id for file in wanted[5:7]]
    assert work.left == len(wanted) - 5

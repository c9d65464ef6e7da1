"""What becomes of videos whose extraction raises, and is tried again. Features are drawn; all else is real."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from worker_farm import FAMILIES, DrawingExtractor, Order, drawn_videos, refusal

from extractors.optical_flow import computer
from extractors.optical_flow.gpu import HIDDEN, NO_GPU, Obstacle
from flows.engine import engine
from flows.extraction import worker
from flows.pipeline import extract as extract_flow
from flows.session.console import Stage
from storage import FailureLog, FeatureStore, StoreError
from storage.leases.leases import LeaseLostError, Leases


class Stumbling(DrawingExtractor):
    """Draws features, but raises the first `times` times that it comes upon the video `at`."""

    times, at, error = 0, "", RuntimeError("out of GPU memory")

    def _shard(self, jobs, on_video, check):
        if type(self).times and self.at in {job.video.video_id for job in jobs}:
            type(self).times -= 1
            raise type(self).error
        return super()._shard(jobs, on_video, check)


@pytest.fixture
def order(tmp_path, monkeypatch, request) -> Order:
    video_s = getattr(request, "param", 0.01)
    order = Order(str(tmp_path / "store"), str(tmp_path), videos=20, shard_size=4, video_s=video_s)
    monkeypatch.setattr(extract_flow, "families_of", lambda _: FAMILIES)
    monkeypatch.setattr(worker, "Extractor", lambda *given, videos: Stumbling(order, given[2]))
    monkeypatch.setattr(engine, "RETRY_S", 0)
    return order


def test_shard_that_fails_once_is_tried_again(order, monkeypatch):
    videos = drawn_videos(order.videos)
    monkeypatch.setattr(Stumbling, "times", 1)
    monkeypatch.setattr(Stumbling, "at", videos[5].video_id)
    report = extract_flow.extract(order.config(), videos)
    refused = [refusal(video) for video in videos if refusal(video)]
    assert (report.extracted, report.failed, report.by_others) == (20 - len(refused), len(refused), 0)
    assert FailureLog(order.store).current() == refused
    again = extract_flow.extract(order.config(), videos)
    assert (again.extracted, again.cached, again.refused_before) == (0, 20 - len(refused), len(refused))


@pytest.fixture
def two_shards_at_a_time(order) -> Order:
    """An order whose first stretch has two shards: a quarter of 40 videos."""
    return replace(order, videos=40)


def test_what_was_committed_before_a_failure_counts_once_and_is_not_done_again(two_shards_at_a_time, monkeypatch):
    order, videos = two_shards_at_a_time, drawn_videos(40)
    monkeypatch.setattr(Stumbling, "times", 2)
    monkeypatch.setattr(Stumbling, "at", videos[5].video_id)  # in the second shard
    shown = []
    monkeypatch.setattr(Stage, "at", lambda self, seen, failed: shown.append((seen, failed)))
    report = extract_flow.extract(order.config(), videos)
    refused = [refusal(video) for video in videos if refusal(video)]
    assert (report.extracted, report.failed, report.by_others) == (40 - len(refused), len(refused), 0)
    assert order.log.read_text().split() == [video.video_id for video in videos]
    assert shown == sorted(shown)
    assert shown[-1] == (40, len(refused))


def test_what_was_committed_before_another_run_took_over_counts(two_shards_at_a_time, monkeypatch):
    order, videos = two_shards_at_a_time, drawn_videos(40)
    monkeypatch.setattr(Stumbling, "times", 1)
    monkeypatch.setattr(Stumbling, "at", videos[5].video_id)
    monkeypatch.setattr(Stumbling, "error", LeaseLostError("claim 1 was taken over"))
    report = extract_flow.extract(order.config(), videos)
    refused = [refusal(video) for video in videos if refusal(video)]
    assert (report.extracted, report.failed, report.by_others) == (40 - len(refused), len(refused), 0)
    assert order.log.read_text().split() == [video.video_id for video in videos]


@pytest.mark.parametrize(
    ("engine", "obstacle", "said"),
    [
        ("auto", Obstacle("its driver is too old", "install driver 525"), True),
        ("cpu", Obstacle("its driver is too old", "install driver 525"), False),
        ("auto", NO_GPU, False),
        ("auto", HIDDEN, False),
    ],
)
def test_a_gpu_that_stays_idle_is_told_to_those_who_left_the_choice_open(
    order, monkeypatch, capsys, engine, obstacle, said
):
    monkeypatch.setattr(computer, "_missing_for_gpu", lambda: obstacle)
    config = order.config()
    chosen = config.model_copy(update={"optical_flow": config.optical_flow.model_copy(update={"engine": engine})})
    extract_flow.extract(chosen, drawn_videos(order.videos))
    assert ("install driver 525" in " ".join(capsys.readouterr().err.split())) == said


@pytest.mark.parametrize(("engine", "said"), [("cpu", True), ("opencv", False)])
def test_opencv_in_place_of_numba_is_told(order, monkeypatch, capsys, engine, said):
    monkeypatch.setitem(sys.modules, "extractors.optical_flow.cpu.engine", None)
    config = order.config()
    chosen = config.model_copy(update={"optical_flow": config.optical_flow.model_copy(update={"engine": engine})})
    extract_flow.extract(chosen, drawn_videos(order.videos))
    assert ("Numba cannot run here" in capsys.readouterr().err) == said


def test_shard_that_keeps_failing_holds_up_no_other_and_is_free_afterwards(order, monkeypatch):
    videos = drawn_videos(order.videos)
    monkeypatch.setattr(Stumbling, "times", 3)
    monkeypatch.setattr(Stumbling, "at", videos[5].video_id)
    with pytest.raises(RuntimeError, match="out of GPU memory"):
        extract_flow.extract(order.config(), videos)
    broken_off = {video.video_id for video in videos[4:8]}
    good = {video.video_id for video in videos if not refusal(video)}
    assert set(FeatureStore(order.store).done(FAMILIES.dynamic)) == good - broken_off
    assert Leases(order.store, FAMILIES.faces.key).others() == []
    report = extract_flow.extract(order.config(), videos)
    assert report.extracted == len(good & broken_off)
    assert set(FeatureStore(order.store).done(FAMILIES.dynamic)) == good


@pytest.mark.parametrize("order", [0.2], indirect=True)  # a shard outlasts many heartbeats
def test_disk_that_takes_no_heartbeat_ends_the_run_in_one_clear_error(order, monkeypatch):
    videos = drawn_videos(order.videos)
    monkeypatch.setattr(Leases.__init__, "__kwdefaults__", {"beat_s": 0.05, "timeout_s": 0.4})
    monkeypatch.setattr(
        "storage.leases.claims.commit_file",
        lambda path: (_ for _ in ()).throw(StoreError(f"cannot write {path}: disk full")),
    )
    with pytest.raises(StoreError, match=r"cannot write .*\.beat: disk full"):
        extract_flow.extract(order.config(), videos)
    assert FeatureStore(order.store).done(FAMILIES.dynamic) == {}
    assert len(list(Path(order.store).rglob("leases/*/*.end"))) == 1  # no second shard was begun
    monkeypatch.undo()

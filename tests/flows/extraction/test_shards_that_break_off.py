"""What becomes of a shard whose extraction raises, and is tried again. Features are drawn; all else is real."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_farm import FAMILIES, DrawingExtractor, Order, drawn_videos, refusal

from flows.engine import engine
from flows.extraction import worker
from flows.pipeline import extract as extract_flow
from storage import FailureLog, FeatureStore, StoreError
from storage.leases.leases import Leases


class Stumbling(DrawingExtractor):
    """Draws features, but raises the first `times` times that it comes upon the video `at`."""

    times, at = 0, ""

    def extract(self, jobs, on_video, check):
        if type(self).times and self.at in {job.video.video_id for job in jobs}:
            type(self).times -= 1
            raise RuntimeError("out of GPU memory")
        return super().extract(jobs, on_video, check)


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

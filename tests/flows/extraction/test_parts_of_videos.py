"""What a shard keeps of the parts that come of its videos. Parts and features are drawn; the store is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from face_tracks import track_of

from extractors.faces.crops import Window
from extractors.faces.quality import QUALITY, Quality
from extractors.faces.track import FaceTrack
from extractors.optical_flow.computer import OpticalFlowComputer
from extractors.preparation.pool import Again, Finished
from extractors.preparation.preparer import FaceCrop, Motion, Request
from flows.archive.families import families_of
from flows.archive.videos import VideoFile
from flows.config.load import load_config
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import Job
from storage import FailureLog, FeatureStore

FIELDS = 16


class ScriptedPool:
    """Yields the parts that a test wrote down."""

    def __init__(self, parts: list[tuple[int, object]]) -> None:
        self._parts = parts
        self.requests: list[Request] = []

    def prepare(self, requests: Iterator[Request], meanwhile: Callable[[], None]) -> Iterator[tuple[int, object]]:
        self.requests += requests
        meanwhile()
        yield from self._parts


class Mean:
    """Describes each item by its mean, so that a feature says which part it came from."""

    def __init__(self, features: int) -> None:
        self._features = features

    def extract(self, items: np.ndarray) -> np.ndarray:
        means = items.reshape(len(items), -1).mean(axis=1, dtype=np.float32)
        return np.repeat(means[:, None], self._features, axis=1)


def track(quality: float) -> FaceTrack:
    facts = Quality(**dict.fromkeys(QUALITY, quality))
    return track_of(np.ones((FIELDS + 1, 4)), facts=facts)


def crop(value: int, frame: int = 3) -> FaceCrop:
    return FaceCrop(frame, np.full((224, 224, 3), value, np.uint8))


def motion(value: float) -> Motion:
    return Motion(Window(0, 0, FIELDS, (0, 0, 9)), np.full((FIELDS, 224, 224, 2), value, np.float32))


def extractor_of(folder: Path, parts: list[tuple[int, object]], batch_size: int, **settings) -> Extractor:
    """An extractor whose child processes send these parts."""
    sizes = {"static.batch_size": batch_size, "dynamic.batch_size": batch_size, "crops.window_fields": FIELDS}
    flags = {"videos": folder, "weights": "random", "store.path": folder / "store", **sizes, **settings}
    config = load_config(flags=flags)
    families = families_of(config)
    extractor = Extractor(config, families)
    extractor._pool, extractor._processes, extractor._cores = ScriptedPool(parts), 1, 1
    extractor._optical_flow = OpticalFlowComputer("cpu")
    extractor._static, extractor._dynamic = Mean(families.static.dim), Mean(families.dynamic.dim)
    return extractor


def jobs_of(folder: Path, videos: int) -> list[Job]:
    files = [VideoFile(f"v{number}", folder / f"v{number}.mp4", f"{number:064}") for number in range(videos)]
    return [Job(video, static=True, dynamic=True) for video in files]


def extract(folder: Path, parts: list[tuple[int, object]], batch_size: int) -> tuple[dict, FailureLog]:
    """Extract as many videos as the parts have; return (family, video) -> features, and the failures."""
    extractor = extractor_of(folder, parts, batch_size)
    list(extractor.extract(jobs_of(folder, len({number for number, _ in parts}))))
    config, families = extractor._config, extractor._families
    store, kept = FeatureStore(config.store.path), (families.faces, families.static, families.dynamic)
    found = {(family.name, row.video_id): row for family in kept for row in store.read(family)}
    return found, FailureLog(config.store.path)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_only_the_parts_of_the_last_try_are_kept(tmp_path, batch_size):
    first = [track(0.25), crop(10), motion(0.125)]
    second = [track(0.5), crop(20), motion(0.25)]
    parts = [(0, part) for part in (*first, Again(), *second, Finished({}))]
    found, failures = extract(tmp_path, parts, batch_size)
    assert failures.current() == []
    static, dynamic = found["static", "v0"], found["dynamic", "v0"]
    assert static.vectors[:, 0].tolist() == [20]
    assert dynamic.vectors[:, 0].tolist() == [0.25]
    assert (len(static.start_s), len(dynamic.start_s)) == (1, 1)
    assert static.quality["people"].tolist() == dynamic.quality["people"].tolist() == [0.5]
    assert found["faces", "v0"].quality["people"].tolist() == [0.5] * (FIELDS + 1)


def test_a_fault_while_parts_are_taken_costs_one_video_and_the_log_says_where(tmp_path, caplog):
    beyond = crop(10, frame=FIELDS + 1)  # its track has no score there
    parts = [(0, track(0.5)), (1, track(0.5)), (0, beyond), (1, crop(20)), (0, motion(0.125)), (1, motion(0.25))]
    found, failures = extract(tmp_path, [*parts, (0, Finished({})), (1, Finished({}))], batch_size=4)
    (failure,) = failures.current()
    assert (failure.video_id, failure.stage, failure.reason) == ("v0", "extract", "internal_error")
    assert "IndexError" in failure.message
    assert {video for family, video in found if family != "faces"} == {"v1"}
    assert found["static", "v1"].vectors[:, 0].tolist() == [20]
    assert found["dynamic", "v1"].vectors[:, 0].tolist() == [0.25]
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "v0.mp4" in record.getMessage()
    assert "_add_face" in record.getMessage()


def test_a_fault_while_a_video_is_finished_costs_that_video_only(tmp_path):
    whole = [(1, track(0.5)), (1, crop(20)), (1, motion(0.25)), (1, Finished({}))]
    found, failures = extract(tmp_path, [(0, Finished({})), *whole], batch_size=4)  # no part of it came
    (failure,) = failures.current()
    assert (failure.video_id, failure.reason) == ("v0", "internal_error")
    assert {video for _, video in found} == {"v1"}


def whole(number: int) -> list[tuple[int, object]]:
    return [(number, part) for part in (track(0.5), crop(20), motion(0.25), Finished({"faces": 1.0}))]


def test_finished_videos_are_committed_as_soon_as_they_fill_a_shard(tmp_path):
    """The third video begins first and ends last; the batches are never full."""
    parts = [(2, track(0.5)), (2, crop(30)), *whole(0), *whole(1), (2, motion(0.5)), (2, Finished({"faces": 3.0}))]
    extractor = extractor_of(tmp_path, parts, batch_size=64, **{"extract.shard_size": 2})
    store, static = FeatureStore(tmp_path / "store"), extractor._families.static
    counts, seconds, found = [], [], []
    for committed in extractor.extract(jobs_of(tmp_path, 3)):
        counts.append((committed.shards, committed.extracted, committed.failed))
        seconds.append(committed.seconds["faces"])
        found.append({row.video_id: row.vectors[:, 0].tolist() for row in store.read(static)})
    assert counts == [(1, 2, 0), (1, 1, 0)]
    assert seconds == [2.0, 3.0]
    assert found == [{"v0": [20], "v1": [20]}, {"v0": [20], "v1": [20], "v2": [30]}]


def test_finished_videos_do_not_wait_long_for_a_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.extraction.extractor.COMMIT_S", 0.0)
    extractor = extractor_of(tmp_path, [*whole(0), *whole(1)], batch_size=64)
    assert [committed.extracted for committed in extractor.extract(jobs_of(tmp_path, 2))] == [1, 1]


def test_large_files_are_prepared_first(tmp_path):
    for number, size in enumerate([10, 1000, 100]):
        (tmp_path / f"v{number}.mp4").write_bytes(bytes(size))
    extractor = extractor_of(tmp_path, [], batch_size=64)
    list(extractor.extract(jobs_of(tmp_path, 4)))  # there is no fourth file
    assert [request.path.name for request in extractor._pool.requests] == ["v1.mp4", "v2.mp4", "v0.mp4", "v3.mp4"]

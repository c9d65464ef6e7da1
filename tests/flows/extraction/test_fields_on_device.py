"""Optical flow of the engine gpu goes to I3D without a copy on the host: the real extractor, on a stand-in for a GPU.

The stand-in computes with the engine cpu, and returns what can be read through DLPack only, as memory of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from device_memory import OnDevice
from face_tracks import track_of

from extractors.errors import DeviceError
from extractors.faces.crops import Window
from extractors.faces.quality import QUALITY, Quality
from extractors.optical_flow import computer
from extractors.optical_flow.computer import OpticalFlowComputer, scale_for_i3d
from extractors.optical_flow.parameters import FAST, TVL1Parameters
from extractors.preparation.pool import Finished
from extractors.preparation.preparer import Motion
from flows.archive.families import families_of
from flows.archive.videos import VideoFile
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.extraction import extractor as module
from flows.extraction.jobs import Job
from storage import FeatureStore

FIELDS = 10
LENGTHS = (FIELDS, 4, FIELDS)  # of the windows; the second is shorter, so that its fields are repeated


class StandIn:
    """In place of `GpuEngine`."""

    def __init__(self, parameters: TVL1Parameters) -> None:
        self._computer = OpticalFlowComputer("cpu", parameters=parameters, threads=1)
        self.returned: list[OnDevice] = []

    def fits(self, height: int, width: int) -> bool:
        return True

    def compute(self, frames: np.ndarray) -> np.ndarray:
        return self._computer.compute(frames)

    def compute_scaled(self, frames: np.ndarray, bound_px: float) -> OnDevice:
        self.returned.append(OnDevice(self._computer.compute_scaled(frames, bound_px=bound_px)))
        return self.returned[-1]


class Pool:
    """Sends the parts of two videos in turns, in the form that the engine asks for."""

    def __init__(self, settings, processes: int, stall_s: float) -> None:
        grey = settings.optical_flow.engine == "gpu"
        cpu = OpticalFlowComputer("cpu", parameters=FAST, threads=1)
        self._parts: list[tuple[int, object]] = []
        for video in (0, 1):
            facts = Quality(**dict.fromkeys(QUALITY, 0.5))
            self._parts.append((video, track_of(np.ones((FIELDS + 1, 4)), facts=facts)))
        for index, length in enumerate(LENGTHS):
            for video in (0, 1):
                frames = moving_texture(length + 1, seed=10 * video + index)
                motion = frames if grey else scale_for_i3d(cpu.compute(frames))
                self._parts.append((video, Motion(Window(index, 0, length, (0, 0, 9)), motion)))

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prepare(self, requests: Iterator[object], meanwhile: Callable[[], None]) -> Iterator[tuple[int, object]]:
        list(requests)
        meanwhile()
        yield from [*self._parts, (0, Finished({})), (1, Finished({}))]


def moving_texture(frames: int, seed: int) -> np.ndarray:
    """A texture of waves that moves 1.5 px down and 1 px to the left in each frame: uint8 [frames, 224, 224]."""
    waves = np.random.default_rng(seed).uniform((0, 0.05, 0), (np.pi, 0.5, 2 * np.pi), (12, 3))
    t, y, x = np.ogrid[:frames, :224, :224]
    across, down = x + t, y - 1.5 * t
    value = sum(np.sin(f * (across * np.cos(a) + down * np.sin(a)) + phase) for a, f, phase in waves)
    return (128 + 10 * value).astype(np.uint8)


@pytest.fixture
def configured(tmp_path, small_networks):
    """Settings for an engine: I3D, a small network for faces, and batches that have windows of both videos."""
    static = [setting for setting in small_networks if setting.startswith("static.")]

    def config(engine: str) -> RunConfig:
        flags = {"weights": "random", "store.path": tmp_path / engine, "crops.window_fields": FIELDS}
        flags |= {"optical_flow.engine": engine, "optical_flow.preset": "fast", "dynamic.batch_size": 4}
        return load_config(flags=flags, assignments=static)

    return config


def extracted(config: RunConfig, spy=lambda extractor: None) -> dict[str, np.ndarray]:
    """The dynamic vectors of both videos."""
    families = families_of(config)
    jobs = [
        Job(VideoFile(name, config.store.path / name, f"{n:064}"), static=False, dynamic=True)
        for n, name in enumerate("ab")
    ]
    with module.Extractor(config, families) as extractor:
        spy(extractor)
        (committed,) = extractor.extract(jobs)
    assert committed.failed == 0
    return {row.video_id: row.vectors for row in FeatureStore(config.store.path).read(families.dynamic)}


def test_fields_go_from_the_gpu_to_i3d_without_a_copy_on_the_host(monkeypatch, configured):
    monkeypatch.setattr(module, "PreparerPool", Pool)
    expected = extracted(configured("cpu"))
    assert {name: vectors.shape for name, vectors in expected.items()} == {"a": (3, 1024), "b": (3, 1024)}

    engine = StandIn(FAST)
    monkeypatch.setattr(computer, "_missing_for_gpu", lambda: None)
    monkeypatch.setattr(OpticalFlowComputer, "_gpu", engine)
    monkeypatch.setattr(module, "has_gpu", lambda: True)
    seen: list[object] = []

    def spy(extractor: module.Extractor) -> None:
        run = extractor._dynamic._network.predict_on_batch
        monkeypatch.setattr(
            extractor._dynamic._network, "predict_on_batch", lambda windows: seen.append(windows) or run(windows)
        )

    found = extracted(configured("gpu"), spy)
    assert [fields.shape[0] for fields in engine.returned] == [4, 2]  # windows of both videos
    assert [len(windows) for windows in seen] == [4, 2]
    for name, vectors in expected.items():
        np.testing.assert_array_equal(found[name], vectors)


def test_fields_go_through_the_host_if_tensorflow_sees_no_gpu(monkeypatch, configured):
    monkeypatch.setattr(module, "PreparerPool", Pool)
    expected = extracted(configured("cpu"))
    monkeypatch.setattr(computer, "_missing_for_gpu", lambda: None)
    monkeypatch.setattr(OpticalFlowComputer, "_gpu", StandIn(FAST))
    found = extracted(configured("gpu"))
    for name, vectors in expected.items():
        np.testing.assert_array_equal(found[name], vectors)


def test_a_run_for_the_gpu_engine_ends_with_one_line_where_it_cannot_run(configured):
    families = families_of(configured("gpu"))  # a machine without a GPU knows the key
    for engine in ("gpu", "auto"):
        with pytest.raises(DeviceError, match=r"gpu engine of optical flow cannot run: there is no GPU; .* to cpu"):
            module.Extractor(configured(engine), families).__enter__()


def test_a_worker_with_a_gpu_computes_what_the_key_of_the_run_stands_for(monkeypatch, configured):
    families = families_of(configured("cpu"))
    monkeypatch.setattr(computer, "_missing_for_gpu", lambda: None)
    assert OpticalFlowComputer("auto").engine == "gpu"
    engines = []
    monkeypatch.setattr(
        module,
        "PreparerPool",
        lambda settings, *_: engines.append(settings.optical_flow.engine) or Pool(settings, 1, 0),
    )
    with module.Extractor(configured("auto"), families) as extractor:
        assert extractor._network_on_gpu is None
    assert engines == ["cpu"]

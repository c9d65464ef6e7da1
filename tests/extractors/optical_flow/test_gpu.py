"""The gpu engine on a CUDA GPU: agreement with the CPU engine, and the laws that it keeps."""

from __future__ import annotations

import hashlib
import importlib
import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from extractors.errors import DeviceError
from extractors.optical_flow.computer import OpticalFlowComputer, scale_for_i3d
from extractors.optical_flow.gpu import why_unusable
from extractors.optical_flow.parameters import EXACT, FAST, LARGE_MOTION, TVL1Parameters

pytestmark = pytest.mark.gpu

# Whoever asks for these tests with `-m gpu` has a GPU; without one they fail and say why.
UNUSABLE = why_unusable()


@pytest.fixture(scope="module", autouse=True)
def usable() -> None:
    assert not UNUSABLE


def drawn_clip(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A texture that turns, grows and trembles, with some noise: uint8 [frames, height, width]."""
    rng = np.random.default_rng(seed)
    waves = [(*rng.uniform(0, 2 * np.pi, 2), 2 * np.pi / rng.uniform(6, 30)) for _ in range(30)]
    y, x = np.mgrid[:height, :width] - np.array([height, width])[:, None, None] / 2
    clip = np.empty((frames, height, width), np.uint8)
    shake = rng.uniform(-1.5, 1.5, (frames, 2))
    for t in range(frames):
        angle, zoom = 0.01 * t, 1 + 0.01 * t
        across = zoom * (x * np.cos(angle) - y * np.sin(angle)) + shake[t, 0]
        down = zoom * (x * np.sin(angle) + y * np.cos(angle)) + shake[t, 1]
        value = sum(np.sin(f * (across * np.cos(a) + down * np.sin(a)) + phase) for a, phase, f in waves)
        clip[t] = np.clip(128 + 20 * value + rng.normal(0, 2, (height, width)), 0, 255)
    return clip


def computed(frames: np.ndarray, parameters: TVL1Parameters = EXACT) -> np.ndarray:
    computer = OpticalFlowComputer("gpu", parameters=parameters)
    assert computer.engine == "gpu"
    return computer.compute(frames)


def assert_agreement(field: np.ndarray, reference: np.ndarray) -> None:
    difference = np.linalg.norm(field - reference, axis=-1)
    assert difference.mean() <= 0.02
    assert np.percentile(difference, 95) <= 0.05


@pytest.mark.parametrize(
    "size", [(16, 16), (16, 33), (33, 17), (64, 64), (45, 300), (300, 45), (224, 224), (256, 340), (480, 640)], ids=str
)
def test_every_size_agrees_with_the_cpu(size):
    frames = drawn_clip(3, *size)
    assert_agreement(computed(frames), OpticalFlowComputer("cpu", parameters=EXACT).compute(frames))


@pytest.mark.parametrize(
    "parameters",
    [
        FAST,
        LARGE_MOTION,
        TVL1Parameters(median=1),
        TVL1Parameters(median=3),
        TVL1Parameters(scales=1),
        TVL1Parameters(step=0.98, scales=2),
        TVL1Parameters(warps=2, inner=10, outer=3, tau=0.2, lambda_=0.3, theta=0.2, epsilon=0.05),
        TVL1Parameters(inner=1, outer=1),
        TVL1Parameters(epsilon=0, inner=3, outer=2),
    ],
    ids=lambda parameters: ",".join(f"{k}={v}" for k, v in parameters.model_dump(exclude_defaults=True).items()),
)
def test_every_parameter_set_agrees_with_the_cpu(parameters):
    frames = drawn_clip(4, 96, 120)
    assert_agreement(computed(frames, parameters), OpticalFlowComputer("cpu", parameters=parameters).compute(frames))


def test_frames_that_do_not_change_have_exactly_no_motion():
    assert not computed(np.full((4, 224, 224), 200, np.uint8)).any()
    assert not computed(np.repeat(drawn_clip(1, 112, 112), 3, axis=0)).any()


def test_a_pair_has_the_same_numbers_alone_and_in_a_batch_of_any_size(monkeypatch):
    frames = drawn_clip(40, 64, 80)
    frames[20:] = 255 - frames[20:]  # a scene cut
    together = computed(frames)
    np.testing.assert_array_equal(computed(frames), together)
    np.testing.assert_array_equal(computed(frames[18:24]), together[18:23])
    monkeypatch.setattr("extractors.optical_flow.gpu.engine.PIXELS_TOGETHER", 7 * 64 * 80)
    np.testing.assert_array_equal(computed(frames), together)
    monkeypatch.setattr("extractors.optical_flow.gpu.engine.PIXELS_TOGETHER", 1)
    np.testing.assert_array_equal(computed(frames), together)


def test_a_scene_cut_does_not_hold_up_the_others():
    """A pair without correspondence takes the most iterations; it starts first, beside the others."""
    rng = np.random.default_rng(0)
    calm = np.clip(drawn_clip(1, 224, 224) + rng.normal(0, 2, (129, 224, 224)), 0, 255).astype(np.uint8)
    cut = calm.copy()
    cut[-1] = drawn_clip(1, 224, 224, seed=1)[0]
    computer = OpticalFlowComputer("gpu")

    def seconds(frames: np.ndarray) -> float:
        times = []
        for _ in range(4):
            start = time.perf_counter()
            computer.compute(frames)
            times.append(time.perf_counter() - start)
        return min(times)

    together, alone = seconds(cut), seconds(cut[-2:])
    print(f"128 pairs {1000 * seconds(calm):.1f} ms, with one cut {1000 * together:.1f}, the cut {1000 * alone:.1f}")
    assert together < seconds(calm) + alone


def test_fewer_pairs_are_solved_together_if_others_hold_the_memory(caplog):
    from cuda.bindings import driver
    from cuda.core import Device

    from extractors.optical_flow.gpu.solver import allocate

    frames = drawn_clip(100, 256, 256)
    expected = computed(frames)
    device = Device(0)
    stream = device.create_stream()
    spare = device.allocate(96 * 2**20, stream=stream)
    held, size = [], 2**30
    while size >= 2**21:
        try:
            held.append(allocate(device, size, stream))
        except DeviceError:
            size //= 2
    spare.close()
    stream.sync()
    with caplog.at_level(logging.WARNING):
        fields = computed(frames)
    for buffer in held:
        buffer.close()
    stream.sync()
    driver.cuMemPoolTrimTo(device.memory_resource.handle, 0)  # gives the memory back to other processes
    np.testing.assert_array_equal(fields, expected)
    assert "do not fit into the GPU's memory" in caplog.text


def test_order_in_memory_does_not_matter():
    frames = drawn_clip(3, 40, 56)
    turned = np.ascontiguousarray(frames.transpose(0, 2, 1)).transpose(0, 2, 1)
    np.testing.assert_array_equal(computed(turned), computed(frames))


def test_threads_may_share_an_engine():
    clips = [drawn_clip(20, 64, 64 + 16 * (seed % 2), seed) for seed in range(8)]
    computer = OpticalFlowComputer("gpu")
    with ThreadPoolExecutor(4) as pool:
        fields = list(pool.map(computer.compute, clips))
    for clip, field in zip(clips, fields, strict=True):
        np.testing.assert_array_equal(field, computer.compute(clip))


def test_processes_share_a_gpu_and_compiled_kernels(tmp_path):
    program = (
        "import hashlib, sys; import numpy as np; from pathlib import Path\n"
        "from extractors.optical_flow.gpu.engine import GpuEngine\n"
        "from extractors.optical_flow.parameters import EXACT\n"
        "clip = np.load(sys.argv[1])\n"
        "for _ in range(5): fields = GpuEngine(EXACT, cache=Path(sys.argv[2])).compute(clip)\n"
        "print(hashlib.sha256(fields.tobytes()).hexdigest())"
    )
    clip = drawn_clip(30, 96, 96)
    np.save(tmp_path / "clip.npy", clip)
    command = [sys.executable, "-c", program, tmp_path / "clip.npy", tmp_path / "cache"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    expected = hashlib.sha256(computed(clip).tobytes()).hexdigest()
    assert [process.communicate()[0].strip() for process in started] == [expected] * 3
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert sum(path.stat().st_size > 10_000 for path in kept) >= 5
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip() == expected
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("library", ["cupy", "jax", "torch", "tensorflow"])
def test_scaled_windows_stay_on_the_gpu_for_other_libraries(library):
    windows = np.stack([drawn_clip(5, 64, 64), drawn_clip(5, 64, 64, seed=1)])
    computer = OpticalFlowComputer("gpu")
    expected = np.stack([scale_for_i3d(computer.compute(window), bound_px=1.5) for window in windows])
    assert (np.abs(expected) == 1).any()
    taken, to_host = consumer(library)
    fields = computer.compute_scaled(windows, bound_px=1.5)
    assert fields.shape == expected.shape == (2, 4, 64, 64, 2)
    assert fields.dtype == np.float32
    assert fields.__dlpack_device__() == (2, 0)  # kDLCUDA
    array = taken(fields)
    del fields
    later = [computer.compute_scaled(255 - windows) for _ in range(3)]  # would take the memory if it were free
    np.testing.assert_array_equal(to_host(array), expected)
    assert len(later) == 3


def consumer(library: str):
    module = pytest.importorskip(library)
    if library == "cupy":
        return module.from_dlpack, module.asnumpy
    if library == "jax":
        return module.dlpack.from_dlpack, np.asarray
    if library == "torch":
        return module.from_dlpack, lambda tensor: tensor.cpu().numpy()
    dlpack = importlib.import_module("tensorflow.experimental.dlpack")
    return lambda fields: dlpack.from_dlpack(fields.__dlpack__()), lambda tensor: tensor.numpy()


def test_pictures_that_do_not_fit_are_left_to_the_cpu_with_a_warning(caplog):
    frames = drawn_clip(2, 40, 2000)
    computer = OpticalFlowComputer("gpu", parameters=TVL1Parameters(scales=2, warps=1))
    with caplog.at_level(logging.WARNING, logger="extractors.optical_flow"):
        field = computer.compute(frames)
    assert "CPU" in caplog.text
    np.testing.assert_array_equal(field, OpticalFlowComputer("cpu", parameters=computer.parameters).compute(frames))
    assert isinstance(computer.compute_scaled(frames), np.ndarray)


def test_auto_takes_the_gpu():
    assert OpticalFlowComputer().engine == "gpu"

"""The gpu engine itself without a GPU: its streams, copies and memory, on a stand-in for NVIDIA's driver.

The stand-in is as lazy as a GPU may be and fills released memory with nonsense; see `cuda_driver_on_cpu.cpp`.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tvl1_on_cpu

from extractors.errors import DeviceError
from extractors.optical_flow import computer
from extractors.optical_flow.computer import OpticalFlowComputer, scale_for_i3d
from extractors.optical_flow.cpu.engine import CpuEngine
from extractors.optical_flow.gpu import why_unusable
from extractors.optical_flow.parameters import TVL1Parameters

if TYPE_CHECKING:
    from cuda.core.utils import StridedMemoryView

    from extractors.optical_flow.gpu.engine import GpuEngine

PARAMETERS = TVL1Parameters(scales=2, warps=1, inner=4, outer=2)
SIZE = (20, 24)
ALL = 2**62  # bytes


def on_stand_in(function: Callable[[ctypes.CDLL], None]) -> Callable[[Path], None]:
    """Turn a function of the stand-in into a test, which runs it in a process of its own."""

    @pytest.mark.skipif(bool(tvl1_on_cpu.missing()), reason=tvl1_on_cpu.missing())
    def test(compiled: Path) -> None:
        program = (
            f"import runpy, sys; sys.path = {sys.path!r}; from pathlib import Path; import gpu_engine_on_cpu\n"
            f"stand_in = gpu_engine_on_cpu.use(Path({str(compiled)!r}))\n"
            f"runpy.run_path({__file__!r})[{function.__name__!r}].function(stand_in)"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    test.function = function
    test.__name__, test.__doc__ = function.__name__, function.__doc__
    return test


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stand-in and the kernels are compiled once."""
    return tmp_path_factory.mktemp("stand-in")


def drawn_clip(frames: int, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A texture of waves that moves: uint8 [frames, height, width]."""
    waves = np.random.default_rng(seed).uniform((0, 0.1, 0), (np.pi, 0.6, 2 * np.pi), (8, 3))
    t, y, x = np.ogrid[:frames, : size[0], : size[1]]
    across, down = x + 0.7 * t, y - 0.4 * t
    value = sum(np.sin(f * (across * np.cos(a) + down * np.sin(a)) + phase) for a, f, phase in waves)
    return np.clip(128 + 15 * value, 0, 255).astype(np.uint8)


def engine() -> GpuEngine:
    from extractors.optical_flow.gpu.engine import GpuEngine

    return GpuEngine(PARAMETERS)


def in_memory(fields: StridedMemoryView) -> np.ndarray:
    """The numbers that are in the stand-in's memory now; nothing is waited for."""
    floats = ctypes.c_float * int(np.prod(fields.shape))
    return np.frombuffer(floats.from_address(fields.ptr), np.float32).reshape(fields.shape).copy()


@on_stand_in
def test_fields_are_those_of_the_cpu_and_memory_is_given_back(stand_in):
    for frames in (drawn_clip(9), drawn_clip(3, size=(33, 21)), drawn_clip(2)):
        expected = CpuEngine(PARAMETERS, 1).compute(frames)
        assert np.linalg.norm(engine().compute(frames) - expected, axis=-1).mean() < 1e-4
    gc.collect()
    assert stand_in.stand_in_most_held() > drawn_clip(9).nbytes
    assert (stand_in.stand_in_held(), stand_in.stand_in_pinned()) == (0, 0)


@on_stand_in
def test_parts_of_any_size_have_the_same_bits(stand_in):
    frames, solving = drawn_clip(9), engine()
    expected = solving.compute(frames)
    for pairs in (1, 3, 7):
        solving._pixels_together = pairs * SIZE[0] * SIZE[1]
        np.testing.assert_array_equal(solving.compute(frames), expected)
        np.testing.assert_array_equal(in_memory(solving.compute_scaled(frames, 20.0)), scale_for_i3d(expected))
    turned = np.ascontiguousarray(frames.transpose(0, 2, 1)).transpose(0, 2, 1)
    np.testing.assert_array_equal(solving.compute(turned), expected)


@on_stand_in
def test_windows_are_complete_and_keep_their_memory(stand_in):
    windows = np.stack([drawn_clip(5), drawn_clip(5, seed=1)])
    solving = engine()
    expected = np.stack([scale_for_i3d(solving.compute(window), bound_px=0.5) for window in windows])
    assert (np.abs(expected) == 1).any()
    fields = solving.compute_scaled(windows, 0.5)
    np.testing.assert_array_equal(in_memory(fields), expected)
    assert (fields.shape, fields.dtype) == ((2, 4, *SIZE, 2), np.float32)
    assert fields.__dlpack_device__() == (2, 0)  # kDLCUDA
    capsule = fields.__dlpack__()
    others = [solving.compute_scaled(255 - windows, 0.5) for _ in range(3)]
    np.testing.assert_array_equal(in_memory(fields), expected)
    assert len(others) == 3
    assert capsule is not None


@on_stand_in
def test_fewer_pairs_are_solved_together_if_memory_runs_out(stand_in):
    frames, solving = drawn_clip(17), engine()
    expected = solving.compute(frames)
    gc.collect()
    said: list[str] = []
    logging.getLogger("extractors.optical_flow").addHandler(Listener(said))
    stand_in.stand_in_room(stand_in.stand_in_most_held() // 3)
    np.testing.assert_array_equal(solving.compute(frames), expected)
    assert any("do not fit into the GPU's memory" in line for line in said)
    stand_in.stand_in_room(1000)
    for call in (solving.compute, lambda clip: solving.compute_scaled(clip, 20.0)):
        with pytest.raises(DeviceError, match="memory"):
            call(frames)
    stand_in.stand_in_room(ALL)
    np.testing.assert_array_equal(solving.compute(frames), expected)
    gc.collect()
    assert stand_in.stand_in_held() == 0


@on_stand_in
def test_a_full_gpu_is_an_error_of_the_device(stand_in):
    stand_in.stand_in_room(0)
    with pytest.raises(DeviceError, match="memory"):
        engine()


@on_stand_in
def test_a_gpu_that_another_process_has_reserved_is_an_error_of_the_device(stand_in):
    stand_in.stand_in_reserved(1)
    with pytest.raises(DeviceError, match=r"cannot use the GPU \(CUDA_ERROR_DEVICE_UNAVAILABLE.*nvidia-smi"):
        engine()


@on_stand_in
def test_threads_share_an_engine(stand_in):
    clips = [drawn_clip(6, seed, (20, 24 + 4 * (seed % 2))) for seed in range(6)]
    solving = engine()
    with ThreadPoolExecutor(3) as pool:
        fields = list(pool.map(solving.compute, clips))
    for clip, field in zip(clips, fields, strict=True):
        np.testing.assert_array_equal(field, engine().compute(clip))


@on_stand_in
def test_auto_takes_the_gpu_and_leaves_large_pictures_to_the_cpu(stand_in):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(computer, "has_cuda_device", lambda: True)
        assert why_unusable() is None
        chosen = OpticalFlowComputer(parameters=PARAMETERS)
        assert chosen.engine == "gpu"
        frames, large = drawn_clip(3), drawn_clip(2, size=(16, 3000))
        np.testing.assert_array_equal(chosen.compute(frames), engine().compute(frames))
        np.testing.assert_array_equal(chosen.compute(large), CpuEngine(PARAMETERS, 1).compute(large))


class Listener(logging.Handler):
    """Collects messages."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())

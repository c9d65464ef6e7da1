"""The gpu engine's kernels without a GPU: NVRTC compiles them, and a CPU runs them, thread by thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import tvl1_on_cpu
from cuda.bindings import driver
from tvl1_on_cpu import Kernels

from extractors.optical_flow.cpu.engine import CpuEngine, _pyramid
from extractors.optical_flow.gpu import HIDDEN, program, why_unusable
from extractors.optical_flow.gpu.program import compile_kernels
from extractors.optical_flow.gpu.shapes import MARGIN_PX, Gpu, best_shape, shared_bytes
from extractors.optical_flow.parameters import EXACT, LARGE_MOTION, TVL1Parameters, pyramid_sizes

T4 = Gpu(multiprocessors=40, shared_bytes=64 * 1024)
A100 = Gpu(multiprocessors=108, shared_bytes=163 * 1024)
H100 = Gpu(multiprocessors=132, shared_bytes=227 * 1024)
B200 = Gpu(multiprocessors=148, shared_bytes=227 * 1024)


class ComputeCapability(NamedTuple):
    major: int
    minor: int


on_cpu = pytest.mark.skipif(bool(tvl1_on_cpu.missing()), reason=tvl1_on_cpu.missing())


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> Path:
    """Where the kernels that all pyramids share are compiled once."""
    return tmp_path_factory.mktemp("kernels")


def drawn_clip(height: int, width: int, frames: int = 3) -> np.ndarray:
    """A texture that drifts and bends: uint8 [frames, height, width]."""
    y, x = np.mgrid[:height, :width].astype(float)
    clip = []
    for t in range(frames):
        bent = x + 0.6 * t + 0.4 * t * np.sin(y / 9), y - 0.3 * t + 0.02 * t * x
        clip.append(
            128 + 40 * np.sin(bent[0] / 2.3) + 40 * np.cos(bent[1] / 3.1) + 30 * np.sin((bent[0] - bent[1]) / 5)
        )
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("architecture", "gpu", "median"), [("sm_80", A100, 3), ("sm_90", H100, 1), ("sm_100", B200, 3)]
)
def test_nvrtc_compiles_the_kernels_and_keeps_them(architecture, gpu, median, tmp_path):
    finest, *_, coarsest = pyramid_sizes(224, 224, LARGE_MOTION)

    def compiled(size: tuple[int, int], median: int) -> bytes:
        shape = best_shape(*size, gpu)
        macros, registers = program.level_macros(*size, shape, median), shape.registers
        return bytes(compile_kernels(program.LEVEL, macros, architecture, registers=registers, cache=tmp_path).code)

    with ThreadPoolExecutor() as pool:
        codes = list(pool.map(compiled, (finest, coarsest), (EXACT.median, median)))
    assert all(code.startswith(b"\x7fELF") and b"solve_level" in code for code in codes)
    pyramid = compile_kernels(program.PYRAMID, program.PYRAMID_MACROS, architecture).code
    assert all(name in pyramid for name in (b"to_float", b"shrink", b"difference", b"longest_first"))
    assert set(codes) == {path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_compiled_kernels_come_from_the_cache(tmp_path, monkeypatch):
    def compiled() -> bytes:
        return bytes(compile_kernels(program.PYRAMID, program.PYRAMID_MACROS, "sm_90", cache=tmp_path).code)

    first = compiled()
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    file.write_bytes(first + b"kept")
    assert compiled() == first + b"kept"
    changed = "// changed\n" + program.source(program.PYRAMID)
    monkeypatch.setattr(program, "source", lambda files: changed)
    assert not compiled().endswith(b"kept")


def test_a_cache_that_cannot_be_written_is_said_and_does_without(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    code = compile_kernels(program.PYRAMID, program.PYRAMID_MACROS, "sm_90", cache=tmp_path / "file")
    assert code.code.startswith(b"\x7fELF")
    assert str(tmp_path / "file") in caplog.text


@pytest.mark.parametrize("gpu", [T4, A100, H100, B200])
def test_a_shape_covers_the_picture_within_the_limits_of_the_gpu(gpu):
    assert best_shape(1080, 1920, gpu) is None
    sizes = [
        (16, 16),
        (16, 400),
        (400, 16),
        *pyramid_sizes(224, 224, LARGE_MOTION),
        *([] if gpu is T4 else [(16, 700), (256, 340), (480, 640)]),
    ]
    for height, width in sizes:
        shape = best_shape(height, width, gpu)
        assert shape.rows * shape.warps * shape.group >= height > shape.rows * shape.warps * (shape.group - 1)
        assert shape.group <= gpu.multiprocessors
        assert shared_bytes(width, shape) <= gpu.shared_bytes
        assert shape.registers * 32 * -(-shape.warps // 4) * 4 <= 65536


@pytest.mark.parametrize("size", [(224, 224), (16, 16), (17, 300), (255, 341), (480, 640), (97, 131)])
@pytest.mark.parametrize("parameters", [EXACT, LARGE_MOTION], ids=["exact", "large motion"])
def test_both_engines_have_the_same_levels(size, parameters):
    levels = _pyramid(np.zeros(size, np.uint8), parameters)
    assert [level.shape for level in levels] == pyramid_sizes(*size, parameters)
    assert min(levels[-1].shape) >= 16
    if parameters is LARGE_MOTION:
        assert min(levels[-1].shape) * parameters.step < 16.5


@on_cpu
@pytest.mark.parametrize(
    ("size", "shapes", "parameters"),
    [
        (
            (36, 30),
            [(2, 5), (2, 4), (2, 3)],
            LARGE_MOTION.model_copy(update={"warps": 2, "inner": 9, "outer": 4}),
        ),  # several blocks; rows left over; as many levels as there are
        (
            (33, 71),
            [(1, 6), (3, 9)],
            TVL1Parameters(scales=2, warps=2, inner=9, outer=4, median=3),
        ),  # a width that no warp divides
        ((22, 40), [(3, 3)], TVL1Parameters(scales=1, warps=2, inner=9, median=1)),
        ((16, 16), [(8, 2)], TVL1Parameters(scales=1, warps=2, inner=7, outer=3, epsilon=0)),
    ],
    ids=["median 5", "median 3", "median 1", "no early end"],
)
def test_kernels_on_a_cpu_give_the_numbers_of_the_cpu_engine(size, shapes, parameters, libraries):
    frames = drawn_clip(*size)
    kernels = Kernels(size, shapes, parameters, libraries)
    levels = zip(*(_pyramid(frame, parameters) for frame in frames), strict=True)
    for padded, level in zip(kernels.pyramid(frames), levels, strict=True):
        margin = ((0, 0), (MARGIN_PX, MARGIN_PX), (MARGIN_PX, MARGIN_PX))
        np.testing.assert_array_equal(padded, np.pad(np.stack(level), margin, mode="edge"))
    fields = kernels.compute(frames)
    difference = np.linalg.norm(fields - CpuEngine(parameters, 1).compute(frames), axis=-1)
    assert difference.mean() < 0.002
    assert np.percentile(difference, 95) < 0.005
    # A missing barrier, or a read of memory that nobody has written, shows when threads run in another order.
    np.testing.assert_array_equal(kernels.compute(frames, "backwards"), fields)
    scaled = np.clip(fields, -0.3, 0.3) / np.float32(0.3)
    np.testing.assert_array_equal(kernels.compute(frames, "shuffled", most_px=0.3), scaled)
    still = np.repeat(frames[:1], 2, axis=0)
    assert not kernels.compute(still).any()


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [
        ((7, 0), "sm_70"),
        ((9, 0), "sm_90"),
        ((8, 8), "sm_87"),  # NVRTC 12.9 does not know it, but it runs what is compiled for 8.7
        ((99, 0), None),
    ],
)
def test_kernels_are_compiled_for_the_gpu_or_an_older_one_of_its_generation(capability, architecture):
    assert program.architecture_for(*capability) == architecture


@pytest.mark.parametrize(
    ("version", "capability", "said"),
    [
        (12020, (9, 0), ""),
        (11080, (9, 0), "driver is for CUDA 11.8"),
        (13000, (6, 1), "compute capability 6.1, and 7.0 is the oldest"),
        (14000, (99, 0), "compute capability 99.0, for which the installed NVRTC cannot compile"),
    ],
)
def test_why_a_gpu_cannot_be_used_is_said(monkeypatch, version, capability, said):
    success = driver.CUresult.CUDA_SUCCESS
    monkeypatch.setattr(driver, "cuInit", lambda _: (success,))
    monkeypatch.setattr(driver, "cuDriverGetVersion", lambda: (success, version))
    pretended = SimpleNamespace(compute_capability=ComputeCapability(*capability))
    monkeypatch.setattr("cuda.core.Device", lambda _: pretended)
    obstacle = why_unusable()
    assert said in str(obstacle) if said else obstacle is None


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "restart the machine"),
        ("CUDA_ERROR_SYSTEM_NOT_READY", "nvidia-fabricmanager"),
        ("CUDA_ERROR_UNKNOWN", "nvidia-smi"),
    ],
)
def test_a_driver_that_refuses_to_start_is_named_with_a_cure(monkeypatch, status, cure):
    monkeypatch.setattr(driver, "cuInit", lambda _: (getattr(driver.CUresult, status),))
    obstacle = why_unusable()
    assert obstacle is not None
    assert status in obstacle.found
    assert cure in obstacle.cure
    monkeypatch.setattr(driver, "cuInit", lambda _: (driver.CUresult.CUDA_ERROR_NO_DEVICE,))
    assert why_unusable() == HIDDEN


def test_the_engine_loads_where_there_is_no_driver():
    from extractors.optical_flow.gpu.engine import GpuEngine

    assert GpuEngine.compute

"""The GPU engine's own kernels on a CPU, compiled by g++: every thread of a group of blocks is a fibre."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from extractors.optical_flow.gpu import program
from extractors.optical_flow.gpu.shapes import MARGIN_PX, Shape, inbox_bytes, shared_bytes
from extractors.optical_flow.parameters import TVL1Parameters, pyramid_sizes

SHIM = Path(__file__).with_name("cuda_on_cpu.h")
Turns = Literal["forwards", "backwards", "shuffled"]  # in which order threads run

_GLUE = {
    program.PYRAMID: """
extern "C" void run_to_float(const unsigned char* from, float* to, int frames, int height, int width) {
    unsigned pixels = frames * (height + 2 * MARGIN) * (width + 2 * MARGIN);
    emulated::launch((pixels + 31) / 32, 1, 32, 0, 0, [&] { to_float(from, to, frames, height, width); });
}
extern "C" void run_shrink(const float* from, float* to, int frames, int old_height, int old_width,
                           int height, int width, double scale) {
    unsigned pixels = frames * (height + 2 * MARGIN) * (width + 2 * MARGIN);
    emulated::launch((pixels + 31) / 32, 1, 32, 0, 0,
                     [&] { shrink(from, to, frames, old_height, old_width, height, width, scale); });
}
extern "C" void run_difference(int turns, const float* frames, const int* first, float* cost, int height, int width,
                               int pairs) {
    emulated::launch(pairs, 1, 32, 0, turns, [&] { difference(frames, first, cost, height, width); });
}
extern "C" void run_longest_first(int turns, const float* cost, int* order, int pairs) {
    emulated::launch((pairs + 31) / 32, 1, 32, 0, turns, [&] { longest_first(cost, order, pairs); });
}
""",
    program.LEVEL: """
extern "C" int group_inbox_bytes() { return GROUP * INBOX * (int)sizeof(uint4); }
extern "C" void run_solve_level(
    int turns, int shared_bytes, const float* frames, const int* first, const int* order, const float* coarse,
    float* out, float* cost, int coarse_height, int coarse_width, int finest, float most_px, float bound, float tau,
    float tau_by_theta, float limit, float finer, int warps, int outer, int inner, int pairs, unsigned* queue,
    void* inboxes) {
    emulated::launch(GROUP, GROUP, THREADS, shared_bytes, turns, [&] {
        solve_level(frames, first, order, coarse, out, cost, coarse_height, coarse_width, finest, most_px, bound, tau,
                    tau_by_theta, limit, finer, warps, outer, inner, pairs, queue, (uint4*)inboxes);
    });
}
""",
}


def missing() -> str:
    """Say what this machine lacks to run kernels; empty if nothing."""
    if platform.machine() != "x86_64":
        return "the fibres' switch is written for x86-64"
    return "" if shutil.which("g++") else "there is no g++"


class Kernels:
    """The kernels of one pyramid, compiled into a folder.

    Args:
        size: height and width of the frames.
        shapes: (rows, warps) of each level, the finest first; as many as levels.
        parameters: of the algorithm.
        folder: for the compiled code; what it holds already is not compiled again.
    """

    def __init__(
        self, size: tuple[int, int], shapes: Sequence[tuple[int, int]], parameters: TVL1Parameters, folder: Path
    ) -> None:
        self._parameters = parameters
        self._sizes = pyramid_sizes(*size, parameters)
        self._shapes = [
            Shape(rows, warps, -(-height // (rows * warps)), registers=0)
            for (height, _), (rows, warps) in zip(self._sizes, shapes, strict=True)
        ]
        wanted = [(program.PYRAMID, program.PYRAMID_MACROS)] + [
            (program.LEVEL, program.level_macros(*level, shape, parameters.median))
            for level, shape in zip(self._sizes, self._shapes, strict=True)
        ]
        compilers = [_compiler(files, macros, folder) for files, macros in wanted]
        for _, process in compilers:
            assert process is None or process.wait() == 0
        self._pyramid, *self._levels = (ctypes.CDLL(str(library)) for library, _ in compilers)
        for level, (_, width), shape in zip(self._levels, self._sizes, self._shapes, strict=True):
            assert level.group_inbox_bytes() == inbox_bytes(width, shape)

    def compute(self, frames: np.ndarray, turns: Turns = "forwards", most_px: float = 0.0) -> np.ndarray:
        """As `GpuEngine.compute`; with `most_px`, as `compute_scaled`."""
        parameters, pairs, turn = self._parameters, len(frames) - 1, get_args(Turns).index(turns)
        pyramid = self.pyramid(frames)
        first, order = np.arange(pairs, dtype=np.int32), np.empty(pairs, np.int32)
        cost = np.empty(pairs, np.float32)
        coarsest = [ctypes.c_int(side) for side in self._sizes[-1]]
        self._pyramid.run_difference(turn, *map(_pointer, (pyramid[-1], first, cost)), *coarsest, pairs)
        coarse = None
        for level, (height, width), shape, padded in reversed(
            list(zip(self._levels, self._sizes, self._shapes, pyramid, strict=True))
        ):
            self._pyramid.run_longest_first(turn, _pointer(cost), _pointer(order), pairs)
            assert sorted(order) == list(range(pairs))
            assert (np.diff(cost[order]) <= 0).all()
            finest = level is self._levels[0]
            out = np.full((pairs, height, width, 2) if finest else (pairs, 2, height, width), np.nan, np.float32)
            queue = np.zeros(1, np.uint32)
            inbox = np.zeros(inbox_bytes(width, shape) + 16, np.uint8)
            inbox = inbox[-inbox.ctypes.data % 16 :]
            level.run_solve_level(
                turn,
                shared_bytes(width, shape),
                *map(_pointer, (padded, first, order, coarse, out, cost)),
                *((0, 0) if coarse is None else coarse.shape[2:]),
                int(finest),
                *map(
                    ctypes.c_float,
                    (
                        most_px,
                        parameters.lambda_ * parameters.theta,
                        parameters.tau,
                        parameters.tau / parameters.theta,
                        parameters.epsilon**2 * height * width,
                        1 / parameters.step,
                    ),
                ),
                *(parameters.warps, parameters.outer, parameters.inner, pairs),
                *map(_pointer, (queue, inbox)),
            )
            coarse = out
        return coarse

    def pyramid(self, frames: np.ndarray) -> list[np.ndarray]:
        """Every level's frames with their margins: float32, (F, height + 2 margin, width + 2 margin)."""
        made: list[np.ndarray] = []
        for level, size in enumerate(self._sizes):
            made.append(np.full((len(frames), *(side + 2 * MARGIN_PX for side in size)), np.nan, np.float32))
            if level == 0:
                whole = np.ascontiguousarray(frames)
                self._pyramid.run_to_float(_pointer(whole), _pointer(made[0]), len(frames), *size)
            else:
                scale = ctypes.c_double(1 / self._parameters.step)
                self._pyramid.run_shrink(*map(_pointer, made[-2:]), len(frames), *self._sizes[level - 1], *size, scale)
        return made


def _compiler(files: tuple[str, ...], macros: dict[str, int], folder: Path) -> tuple[Path, subprocess.Popen | None]:
    """The library of these files, and what compiles it unless it is there already."""
    name = "_".join([Path(files[-1]).stem, *map(str, macros.values())])
    code, library = folder / f"{name}.cpp", folder / f"{name}.so"
    if library.exists():
        return library, None
    code.write_text(f'#include "{SHIM}"\n{program.source(files[1:])}\n{_GLUE[files]}')
    options = ["-O1", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC", "-w"]
    defined = [f"-D{name}={value}" for name, value in macros.items()]
    return library, subprocess.Popen(["g++", *options, *defined, "-o", library, code])


def _pointer(array: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)

"""TV-L1 optical flow on the CPU: OpenCV's scheme, compiled by Numba into vector code."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from extractors.optical_flow.cpu.iterate import dual_rates, iterate
from extractors.optical_flow.cpu.median import RANK_FLOATS, image_floats, median_filter
from extractors.optical_flow.cpu.planes import PANEL, U1, U2, aligned_zeros, planes_floats, read_plane, write_plane
from extractors.optical_flow.cpu.warp import CHANNELS, TAPS, cubic_weights, lay_out_taps, padded_floats, warp
from extractors.optical_flow.parameters import SMALLEST_SIDE_PX, TVL1Parameters

logger = logging.getLogger(__name__)

NOTICE_AFTER_S = 2.0  # loading takes less than this, compiling more


class CpuEngine:
    """Compute optical flow, a thread for every pair at a time; their number does not change the result."""

    def __init__(self, parameters: TVL1Parameters, threads: int) -> None:
        self._parameters = parameters
        self._threads = threads
        # The first use of fresh memory takes as long as a sixth of a pair, so memory is kept between calls.
        self._idle: deque[_PairSolver] = deque()

    def compute(self, frames: np.ndarray) -> np.ndarray:
        """Do as `OpticalFlowComputer.compute`, on two frames or more."""
        pairs, (height, width) = len(frames) - 1, frames.shape[1:]
        workers = min(self._threads, pairs)
        displacement_px = np.empty((pairs, height, width, 2), np.float32)
        _load_kernels()
        waiting = iter(range(pairs))  # shared by the threads: a slow pair or a busy core does not hold up the others

        def take_pairs(_: int) -> None:
            solver = self._solver((height, width))
            for pair in waiting:
                displacement_px[pair] = solver.solve(frames[pair], frames[pair + 1])
            self._idle.append(solver)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(take_pairs, range(workers)))
        return displacement_px

    def _solver(self, size: tuple[int, int]) -> _PairSolver:
        while self._idle:
            try:
                solver = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if solver.size == size:
                return solver
        return _PairSolver(size, self._parameters)


class _PairSolver:
    """The memory that one thread needs, and the loops over scales, warps and rounds."""

    def __init__(self, size: tuple[int, int], parameters: TVL1Parameters) -> None:
        height, width = size
        self.size = size
        self._parameters = parameters
        self._planes = aligned_zeros(planes_floats(height, width))
        self._padded = aligned_zeros(padded_floats(height, width))
        self._taps = aligned_zeros(TAPS * padded_floats(height, width))
        self._image = aligned_zeros(image_floats(height, width))
        self._ranks = aligned_zeros(RANK_FLOATS)
        self._places = np.zeros(CHANNELS * PANEL, np.int32)
        self._samples = aligned_zeros(CHANNELS * PANEL)
        self._weights_x, self._weights_y = cubic_weights()

    def solve(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Optical flow from `first` to `second`, uint8 (H, W): float32, (H, W, 2), pixels."""
        levels = list(zip(_pyramid(first, self._parameters), _pyramid(second, self._parameters), strict=True))
        coarsest = np.zeros_like(levels[-1][0])
        u1, u2 = coarsest, coarsest
        finer = np.float32(1 / self._parameters.step)
        for level, (start, end) in enumerate(reversed(levels)):
            if level:
                size = start.shape[::-1]
                u1, u2 = cv2.resize(u1, size) * finer, cv2.resize(u2, size) * finer
            u1, u2 = self._solve_level(start, end, u1, u2)
        return np.stack([u1, u2], axis=-1)

    def _solve_level(
        self, first: np.ndarray, second: np.ndarray, u1: np.ndarray, u2: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Improve the displacement at one level of the pyramid; all are float32, (H, W)."""
        height, width = first.shape
        planes = self._planes
        parameters = self._parameters
        planes[: planes_floats(height, width)] = 0
        write_plane(planes, U1, u1)
        write_plane(planes, U2, u2)
        lay_out_taps(second, self._padded, self._taps)
        bound = np.float32(parameters.lambda_ * parameters.theta)
        inverse_theta = np.float32(1 / parameters.theta)
        rates = dual_rates(width, parameters.tau)
        limit = float(np.float32(parameters.epsilon**2 * height * width))
        for _ in range(parameters.warps):
            warp(planes, self._taps, first, self._weights_x, self._weights_y, self._places, self._samples)
            for _ in range(parameters.outer):
                if parameters.median > 1:
                    for plane in (U1, U2):
                        median_filter(planes, height, width, plane, parameters.median, self._image, self._ranks)
                if iterate(planes, height, width, bound, rates, inverse_theta, limit, parameters.inner) <= limit:
                    break
        return read_plane(planes, U1, height, width), read_plane(planes, U2, height, width)


@functools.cache
def _load_kernels() -> None:
    """Load the compiled code; compile it first if necessary, with a notice in the log."""
    notice = threading.Timer(
        NOTICE_AFTER_S, logger.warning, ["compiling TV-L1 optical flow for this processor: once per machine"]
    )
    notice.start()
    try:
        blank = np.zeros((SMALLEST_SIDE_PX, SMALLEST_SIDE_PX), np.uint8)
        _PairSolver((SMALLEST_SIDE_PX, SMALLEST_SIDE_PX), TVL1Parameters(warps=1)).solve(blank, blank)
    finally:
        notice.cancel()


def _pyramid(frame: np.ndarray, parameters: TVL1Parameters) -> list[np.ndarray]:
    """Scale a frame, uint8 (H, W), down step by step, bilinearly and without smoothing, as OpenCV does.

    Returns:
        float32 pictures in 0..255, the finest first; it ends before a side falls under 16 pixels.
    """
    levels: list[np.ndarray] = [np.ascontiguousarray(frame, np.float32)]
    for _ in range(1, parameters.scales):
        coarser = cv2.resize(levels[-1], None, fx=parameters.step, fy=parameters.step, interpolation=cv2.INTER_LINEAR)
        if min(coarser.shape) < SMALLEST_SIDE_PX:
            break
        levels.append(coarser)
    return levels

"""TV-L1 optical flow on an NVIDIA GPU: one kernel for each level of the pyramid keeps a pair's whole state on chip."""

from __future__ import annotations

import logging
import mmap
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import platformdirs
from cuda.core import Buffer, Device, Event, LegacyPinnedMemoryResource, Stream
from cuda.core.utils import StridedMemoryView

from extractors.errors import DeviceError
from extractors.optical_flow.gpu.shapes import Gpu, best_shape
from extractors.optical_flow.gpu.solver import Solver, allocate, memory_of_gpu
from extractors.optical_flow.parameters import TVL1Parameters, pyramid_sizes

logger = logging.getLogger(__name__)

# Pixels of the pairs that are solved together: 128 pairs of 224 x 224. More gain little and take more memory.
PIXELS_TOGETHER = 128 * 224 * 224
# Fields come through page-locked memory of this size by several threads: one alone fills fresh memory too slowly.
_STAGING_BYTES = 4 * 2**20
_COPIERS = 8


class GpuEngine:
    """Compute optical flow on the first CUDA device that this process sees, in TensorFlow's and JAX's context.

    One engine may be used by several threads at a time.

    Raises:
        extractors.errors.DeviceError: CUDA cannot use the GPU, which may be full or reserved for another process.
    """

    def __init__(self, parameters: TVL1Parameters, *, cache: Path | None = None) -> None:
        self._parameters = parameters
        self._cache = platformdirs.user_cache_path("traitline") / "kernels" if cache is None else cache
        self._device = Device(0)
        try:
            with memory_of_gpu():
                self._device.set_current()
                self._stream = self._device.create_stream()
        except DeviceError:
            raise
        except Exception as error:  # `cuda.core` has no public class for it
            raise DeviceError(f"CUDA cannot use the GPU ({error}); nvidia-smi may say who has it") from error
        limits = self._device.properties
        self._gpu = Gpu(limits.multiprocessor_count, limits.max_shared_memory_per_block_optin)
        self._pixels_together = PIXELS_TOGETHER
        self._solvers: dict[tuple[int, int], Solver] = {}
        self._building = threading.Lock()
        self._copiers = ThreadPoolExecutor(_COPIERS, thread_name_prefix="tvl1-copier")
        self._idle: deque[_Copier] = deque()

    def fits(self, height: int, width: int) -> bool:
        """Whether the GPU can hold a pair of this size on chip."""
        return all(best_shape(*size, self._gpu) for size in pyramid_sizes(height, width, self._parameters))

    def compute(self, frames: np.ndarray) -> np.ndarray:
        """Do as `OpticalFlowComputer.compute`, on two frames or more of a size that `fits`.

        Raises:
            extractors.errors.DeviceError: the GPU's memory does not hold one pair.
        """
        solver = self._solver(*frames.shape[1:])
        displacement_px = np.empty((len(frames) - 1, *frames.shape[1:], 2), np.float32)
        copies: deque[list[Future[None]]] = deque()

        def solve(part: slice) -> None:
            fields = self._allocate(displacement_px[part].nbytes)
            solver.solve(frames, np.arange(part.start, part.stop), int(fields.handle), self._stream)
            # The host copies one part while the GPU solves the next; a third one would only take memory.
            copies.append(self._copy(fields, displacement_px[part]))
            if len(copies) > 1:
                _finish(copies.popleft())

        self._in_parts(solve, *displacement_px.shape[:3])
        _finish(copies.popleft())
        return displacement_px

    def compute_scaled(self, frames: np.ndarray, bound_px: float) -> StridedMemoryView:
        """Compute the optical flow of windows, clip and scale it on the GPU, and leave it there.

        Args:
            frames: uint8, (..., T, H, W), grey: windows of T successive frames; T at least 2, H and W at least 16, and
                (H, W) `fits`.
            bound_px: displacement that becomes 1; larger ones are clipped.

        Returns:
            float32, (..., T - 1, H, W, 2), in [-1, 1], complete, on the GPU: a DLPack exporter. Its memory is used
            again once this object and every array made from it are gone; keep one until what reads it has finished.

        Raises:
            extractors.errors.DeviceError: the GPU's memory does not hold the result.
        """
        *windows, length, height, width = frames.shape
        flat = frames.reshape(-1, height, width)
        first = np.arange(len(flat)).reshape(-1, length)[:, :-1].ravel()
        solver = self._solver(height, width)
        fields = self._allocate(first.size * height * width * 8)

        def solve(part: slice) -> None:
            to = int(fields.handle) + part.start * height * width * 8
            solver.solve(flat, first[part], to, self._stream, most_px=bound_px)

        self._in_parts(solve, first.size, height, width)
        self._stream.sync()
        return StridedMemoryView.from_buffer(
            fields, (*windows, length - 1, height, width, 2), itemsize=4, dtype=np.dtype(np.float32)
        )

    def _solver(self, height: int, width: int) -> Solver:
        self._device.set_current()  # of the calling thread
        with self._building, memory_of_gpu():
            if (height, width) not in self._solvers:
                self._solvers[height, width] = Solver(
                    (height, width), self._parameters, self._device, self._gpu, self._cache
                )
            return self._solvers[height, width]

    def _in_parts(self, solve: Callable[[slice], None], pairs: int, height: int, width: int) -> None:
        """Call `solve` with the pairs that are solved together: half as many where they do not fit, which is kept."""
        start = 0
        while start < pairs:
            count = min(max(1, self._pixels_together // (height * width)), pairs - start)
            try:
                solve(slice(start, start + count))
            except DeviceError:
                self._stream.sync()
                if count == 1:
                    raise
                self._pixels_together = count // 2 * height * width
                logger.warning("%d pairs at a time do not fit into the GPU's memory: from now on %d", count, count // 2)
            else:
                start += count

    def _allocate(self, size: int) -> Buffer:
        return allocate(self._device, size, self._stream)

    def _copy(self, fields: Buffer, to: np.ndarray) -> list[Future[None]]:
        """Copy fields to the host when they are there."""
        solved = self._stream.record()
        step = max(1, _STAGING_BYTES // to[0].nbytes)
        return [self._copiers.submit(self._copy_part, fields, solved, to, at, step) for at in range(0, len(to), step)]

    def _copy_part(self, fields: Buffer, solved: Event, to: np.ndarray, at: int, step: int) -> None:
        self._device.set_current()
        try:
            copier = self._idle.pop()
        except IndexError:
            copier = _Copier(self._device)
        copier.copy(fields, at * to[0].nbytes, solved, to[at : at + step])
        self._idle.append(copier)


class _Copier:
    """A stream and page-locked memory of its own, so that copies overlap one another and the GPU's work."""

    def __init__(self, device: Device) -> None:
        self._stream: Stream = device.create_stream()
        self._staging = LegacyPinnedMemoryResource().allocate(0)

    def copy(self, fields: Buffer, offset: int, solved: Event, to: np.ndarray) -> None:
        """Copy `to.nbytes` from `offset` on, once `solved` has happened, and wait for it."""
        if self._staging.size < to.nbytes:
            self._staging = LegacyPinnedMemoryResource().allocate(max(to.nbytes, _STAGING_BYTES))
        self._stream.wait(solved)
        staged = Buffer.from_handle(int(self._staging.handle), to.nbytes, owner=self._staging)
        staged.copy_from(Buffer.from_handle(int(fields.handle) + offset, to.nbytes, owner=fields), stream=self._stream)
        to.reshape(-1)[:: mmap.PAGESIZE // to.itemsize] = 0  # the system gives the memory while the GPU is at work
        self._stream.sync()
        np.copyto(to, np.from_dlpack(staged).view(np.float32).reshape(to.shape))


def _finish(copies: list[Future[None]]) -> None:
    for copy in copies:
        copy.result()

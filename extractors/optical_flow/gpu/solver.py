"""Solving pairs of frames of one size: its kernels, and the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cuda.bindings import driver
from cuda.core import Buffer, Device, Kernel, LaunchConfig, Stream, launch

from extractors.errors import DeviceError
from extractors.optical_flow.gpu.program import (
    LEVEL,
    PYRAMID,
    PYRAMID_MACROS,
    architecture_for,
    compile_kernels,
    level_macros,
)
from extractors.optical_flow.gpu.shapes import LANES, MARGIN_PX, Gpu, Shape, best_shape, inbox_bytes, shared_bytes
from extractors.optical_flow.parameters import TVL1Parameters, pyramid_sizes

_THREADS = 256
_QUEUE_BYTES = 256  # in front of the inboxes; they are aligned


@dataclass(frozen=True)
class _Level:
    """One level of the pyramid.

    Attributes:
        groups: of blocks that the whole GPU holds at the same time.
    """

    height: int
    width: int
    shape: Shape
    kernel: Kernel
    groups: int

    @property
    def frame_pixels(self) -> int:
        """Pixels of a frame with its margin."""
        return (self.height + 2 * MARGIN_PX) * (self.width + 2 * MARGIN_PX)


@dataclass(frozen=True)
class _Pairs:
    """The pairs of one call, on the GPU.

    Attributes:
        first: int32 [count], the first frame of each.
        order: int32 [count], in which order they are solved.
        cost: float32 [count], iterations at the level solved last.
    """

    count: int
    first: Buffer
    order: Buffer
    cost: Buffer


@dataclass(frozen=True)
class _Solved:
    """Fields of a level, but the finest: float32 [pairs, 2, height, width]."""

    height: int
    width: int
    fields: Buffer


class Solver:
    """Kernels for frames of one size.

    Args:
        size: height and width of the frames.
        device: current in this thread.

    Raises:
        ValueError: the size does not fit the GPU.
    """

    def __init__(
        self, size: tuple[int, int], parameters: TVL1Parameters, device: Device, gpu: Gpu, cache: Path
    ) -> None:
        self._parameters, self._device = parameters, device
        self._uploads = device.create_stream()
        capability = device.compute_capability
        architecture = architecture_for(capability.major, capability.minor) or f"sm_{device.arch}"
        sizes = pyramid_sizes(*size, parameters)
        shapes = [_shape(*level, gpu) for level in sizes]
        with ThreadPoolExecutor() as pool:  # NVRTC lets go of the GIL
            pyramid = pool.submit(compile_kernels, PYRAMID, PYRAMID_MACROS, architecture, cache=cache)
            codes = [
                pool.submit(
                    compile_kernels,
                    LEVEL,
                    level_macros(*level, shape, parameters.median),
                    architecture,
                    registers=shape.registers,
                    cache=cache,
                )
                for level, shape in zip(sizes, shapes, strict=True)
            ]
        kernels = pyramid.result()
        self._to_float, self._shrink = kernels.get_kernel("to_float"), kernels.get_kernel("shrink")
        self._difference, self._longest_first = kernels.get_kernel("difference"), kernels.get_kernel("longest_first")
        self._levels = [
            self._level(*level, shape, code.result().get_kernel("solve_level"), gpu)
            for level, shape, code in zip(sizes, shapes, codes, strict=True)
        ]

    def solve(self, frames: np.ndarray, first: np.ndarray, to: int, stream: Stream, *, most_px: float = 0.0) -> None:
        """Enqueue the work on `stream`, and return before it is done.

        Args:
            frames: uint8, (F, H, W), grey.
            first: (pairs,), rising: each pair's first frame; its second is the next one. Other frames are not touched.
            to: address on the GPU for the fields, float32, (pairs, H, W, 2).
            stream: orders this work.
            most_px: clip displacements to it and divide by it; 0 leaves pixels.
        """
        count, offset = len(first), int(first[0])
        pairs = _Pairs(
            count,
            self._upload((first - offset).astype(np.int32), stream),
            order=self._allocate(4 * count, stream),
            cost=self._allocate(4 * count, stream),
        )
        pyramid = self._pyramid(frames[offset : int(first[-1]) + 2], stream)
        self._guess_cost(pairs, pyramid[-1], stream)
        solved: _Solved | None = None
        for level, frames_of_level in zip(reversed(self._levels), reversed(pyramid), strict=True):
            config = LaunchConfig(grid=-(-count // _THREADS), block=_THREADS)
            launch(stream, config, self._longest_first, pairs.cost, pairs.order, np.int32(count))
            if level is self._levels[0]:
                self._launch_level(level, pairs, frames_of_level, solved, to, most_px, stream)
            else:
                fields = self._allocate(count * level.height * level.width * 8, stream)
                self._launch_level(level, pairs, frames_of_level, solved, int(fields.handle), most_px, stream)
                solved = _Solved(level.height, level.width, fields)

    def _guess_cost(self, pairs: _Pairs, coarsest_frames: Buffer, stream: Stream) -> None:
        coarsest = self._levels[-1]
        sides = np.int32(coarsest.height), np.int32(coarsest.width)
        config = LaunchConfig(grid=pairs.count, block=LANES)
        launch(stream, config, self._difference, coarsest_frames, pairs.first, pairs.cost, *sides)

    def _launch_level(
        self,
        level: _Level,
        pairs: _Pairs,
        frames: Buffer,
        coarse: _Solved | None,
        to: int,
        most_px: float,
        stream: Stream,
    ) -> None:
        """Improve what the next coarser level found. Its memory, and that of the frames, is free afterwards."""
        parameters, groups = self._parameters, min(pairs.count, level.groups)
        exchange = self._allocate(_QUEUE_BYTES + groups * inbox_bytes(level.width, level.shape), stream)
        exchange.fill(0, stream=stream)
        launch(
            stream,
            # All blocks run at the same time, as they wait for one another.
            LaunchConfig(
                grid=groups * level.shape.group,
                block=level.shape.warps * LANES,
                shmem_size=shared_bytes(level.width, level.shape),
                is_cooperative=True,
            ),
            level.kernel,
            *(frames, pairs.first, pairs.order, coarse.fields if coarse else 0, to, pairs.cost),
            np.int32(coarse.height if coarse else 0),
            np.int32(coarse.width if coarse else 0),
            np.int32(level is self._levels[0]),
            np.float32(most_px),
            np.float32(parameters.lambda_ * parameters.theta),
            np.float32(parameters.tau),
            np.float32(parameters.tau / parameters.theta),
            np.float32(parameters.epsilon**2 * level.height * level.width),
            np.float32(1 / parameters.step),
            *(np.int32(number) for number in (parameters.warps, parameters.outer, parameters.inner, pairs.count)),
            exchange,
            int(exchange.handle) + _QUEUE_BYTES,
        )
        for done_with in (frames, exchange, *((coarse.fields,) if coarse else ())):
            done_with.close()

    def _pyramid(self, frames: np.ndarray, stream: Stream) -> list[Buffer]:
        """Enqueue the making of every level's frames: float32, with margins, in 0..255, the finest first."""
        count = len(frames)
        made: list[Buffer] = []
        uploaded = self._upload(frames, stream)
        finer: _Level | None = None
        for level in self._levels:
            made.append(self._allocate(4 * count * level.frame_pixels, stream))
            config = LaunchConfig(grid=-(-count * level.frame_pixels // _THREADS), block=_THREADS)
            sides = [np.int32(side) for side in (level.height, level.width)]
            if finer is None:
                launch(stream, config, self._to_float, uploaded, made[-1], np.int32(count), *sides)
            else:
                old_sides = [np.int32(side) for side in (finer.height, finer.width)]
                scale = np.float64(1 / self._parameters.step)
                launch(stream, config, self._shrink, *made[-2:], np.int32(count), *old_sides, *sides, scale)
            finer = level
        uploaded.close()
        return made

    def _level(self, height: int, width: int, shape: Shape, kernel: Kernel, gpu: Gpu) -> _Level:
        shared = shared_bytes(width, shape)
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        # `cuda.core` reads this limit and cannot set it.
        (status,) = driver.cuKernelSetAttribute(attribute, shared, kernel.handle, self._device.device_id)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"the GPU does not give a block {shared} bytes of shared memory: {status.name}")
        blocks = kernel.occupancy.max_active_blocks_per_multiprocessor(shape.warps * LANES, shared)
        return _Level(height, width, shape, kernel, blocks * gpu.multiprocessors // shape.group)

    def _upload(self, array: np.ndarray, stream: Stream) -> Buffer:
        """Copy an array to the GPU, ordered before later work on `stream`."""
        array = np.ascontiguousarray(array)
        to = self._allocate(array.nbytes, self._uploads)
        # In a stream of its own: a copy of ordinary memory waits for all work before it in its stream.
        to.copy_from(Buffer.from_handle(array.ctypes.data, array.nbytes, owner=array), stream=self._uploads)
        to.set_deallocation_stream(stream)
        stream.wait(self._uploads)
        # A machine whose GPU reads ordinary memory itself may still read the array, which the caller may drop.
        self._uploads.sync()
        return to

    def _allocate(self, size: int, stream: Stream) -> Buffer:
        return allocate(self._device, size, stream)


def _shape(height: int, width: int, gpu: Gpu) -> Shape:
    shape = best_shape(height, width, gpu)
    if shape is None:
        raise ValueError(f"pictures of {height} x {width} are too large for this GPU")
    return shape


def allocate(device: Device, size: int, stream: Stream) -> Buffer:
    """Take memory of the GPU, in the order of `stream`. Raises DeviceError if there is not enough."""
    with memory_of_gpu():
        return device.allocate(size, stream=stream)


@contextmanager
def memory_of_gpu() -> Iterator[None]:
    """Raise DeviceError if the GPU's memory runs out in the block: for a buffer, a kernel or CUDA's own context."""
    try:
        yield
    except Exception as error:  # `cuda.core` has no public class for it
        if "CUDA_ERROR_OUT_OF_MEMORY" not in str(error):
            raise
        raise DeviceError("the GPU has not enough memory left: let other programs leave it") from error

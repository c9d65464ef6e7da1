"""How a picture is divided into blocks, warps and threads of a GPU, and the memory that this takes."""

from __future__ import annotations

import functools
from typing import NamedTuple

MARGIN_PX = 5  # around a frame; repeats its border, so that bicubic taps of the gradient need no branch
LANES = 32
PITCH = LANES + 4  # lanes of one column of the tile that the median filter reads, with two more at either side

_MOST_THREAD_REGISTERS = 248
_REGISTERS = 65536  # of a multiprocessor, on every GPU since 2012
_WARPS_PER_QUAD = 4  # each of a multiprocessor's four partitions has a quarter of the registers
_STATE_REGISTERS_PER_PIXEL = 6  # u and p
_OTHER_REGISTERS = 40
_WORD_BYTES = 16


class Gpu(NamedTuple):
    """What of a GPU decides how pictures are divided."""

    multiprocessors: int
    shared_bytes: int  # most for one block


class Shape(NamedTuple):
    """`group` blocks of `warps` warps hold the picture; a warp holds `rows` whole rows; a thread has `registers`."""

    rows: int
    warps: int
    group: int
    registers: int


@functools.cache
def best_shape(height: int, width: int, gpu: Gpu) -> Shape | None:
    """Find the division with the least estimated time, or None if the picture is too large for the GPU."""
    shapes = [shape for shape in _shapes(height, width) if _fits(width, shape, gpu)]
    return min(shapes, key=lambda shape: _cost(width, shape, gpu), default=None)


def shared_bytes(width: int, shape: Shape) -> int:
    """Shared memory of a block: data term, tile of u, rows of p, sums, number of the pair."""
    rows, warps, group, _ = shape
    columns = _columns(width)
    data = 16 * warps * rows * columns * LANES
    tile = 8 * (rows * warps + 4) * columns * PITCH
    rows_p = 8 * (warps + 1) * columns * LANES
    sums = 8 * (-(-group * warps // 128) * 128)
    return data + tile + rows_p + sums + 16


def inbox_bytes(width: int, shape: Shape) -> int:
    """Global memory through which the blocks of one group exchange rows and sums."""
    columns = _columns(width)
    words = 2 * columns * LANES + 2 * shape.group * shape.warps + 4 * columns * PITCH + 1
    return shape.group * words * _WORD_BYTES


def _shapes(height: int, width: int) -> list[Shape]:
    shapes = []
    for rows in range(1, 9):
        for warps in range(2, 25):
            quads = -(-warps // _WARPS_PER_QUAD)
            threads = quads * _WARPS_PER_QUAD * LANES
            registers = min(_MOST_THREAD_REGISTERS, _REGISTERS // threads // 8 * 8)
            shapes.append(Shape(rows, warps, -(-height // (rows * warps)), registers))
    return shapes


def _fits(width: int, shape: Shape, gpu: Gpu) -> bool:
    registers = _STATE_REGISTERS_PER_PIXEL * shape.rows * _columns(width) + _OTHER_REGISTERS
    return (
        shape.group <= gpu.multiprocessors
        and registers <= shape.registers
        and shared_bytes(width, shape) <= gpu.shared_bytes
    )


def _cost(width: int, shape: Shape, gpu: Gpu) -> float:
    """Time of a batch of pairs in arbitrary units: a model fitted to measurements on an H100."""
    pixels = shape.rows * _columns(width)
    quads = -(-shape.warps // _WARPS_PER_QUAD)
    # Cycles for a thread's pixels, more where registers are short, and 1,500 for what comes from other blocks.
    cycles = (pixels * 62 + 300) * (quads + 1) * (1.2 if pixels > 18 else 1) + 1500
    groups = gpu.multiprocessors // shape.group
    return cycles * (256 / groups + 2)


def _columns(width: int) -> int:
    """Neighbouring columns that one thread holds."""
    return -(-width // LANES)

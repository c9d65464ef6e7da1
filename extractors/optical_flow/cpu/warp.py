"""Bicubic warp of the second frame and its gradient on the CPU, and the linearised residual."""

from __future__ import annotations

import numpy as np

from extractors.optical_flow.cpu.planes import (
    INV,
    IX,
    IY,
    PANEL,
    RHO,
    SOURCES,
    U1,
    U2,
    address,
    entry_kernel,
    exact_kernel,
    kernel,
    panels,
)

# Zeros surround the frame, so that taps outside it count as 0 without a branch.
MARGIN = 4
TAPS = 4
CHANNELS = 3  # the frame and its two gradients

_STEPS = 32  # OpenCV quantises positions to 1/32 pixel
_CUBIC_A = -0.75
_FLT_EPSILON = np.float32(np.finfo(np.float32).eps)
_HALF = np.float32(0.5)
_ONE = np.float32(1)
_ZERO = np.float32(0)
_PANEL = np.uint64(PANEL)


def cubic_weights() -> tuple[np.ndarray, np.ndarray]:
    """Weights of the bicubic taps by 1/32 pixel, as OpenCV computes them.

    Returns:
        Two float32 arrays, flat (32 * 16,): weights in x and in y of the 4 x 4 taps, in the order [x, y].
    """
    x = np.arange(_STEPS, dtype=np.float32) / np.float32(_STEPS)
    a = np.float32(_CUBIC_A)
    weights = np.empty((_STEPS, TAPS), np.float32)
    weights[:, 0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    weights[:, 1] = ((a + 2) * x - (a + 3)) * x * x + 1
    weights[:, 2] = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    weights[:, 3] = 1 - weights[:, 0] - weights[:, 1] - weights[:, 2]
    return np.repeat(weights, TAPS, axis=1).reshape(-1), np.tile(weights, TAPS).reshape(-1)


def padded_floats(height: int, width: int) -> int:
    """Size of the frame and its gradients with their margins; the last taps read past the end."""
    return CHANNELS * (height + 2 * MARGIN) * (width + 2 * MARGIN) + TAPS * (width + 2 * MARGIN)


@entry_kernel
def lay_out_taps(frame, padded, taps, sources=SOURCES):
    """Lay out a frame and its central differences (halved, border replicated) for `warp`.

    Every pixel is stored with the three below it, so that the 4 x 4 taps of a position are one vector of 16 floats.

    Args:
        frame: float32, (H, W).
        padded: float32, flat, at least `padded_floats`, scratch.
        taps: float32, flat, at least TAPS times `padded_floats`; overwritten.
    """
    height, width = frame.shape
    line = width + 2 * MARGIN
    channel = line * (height + 2 * MARGIN)
    padded[: CHANNELS * channel + TAPS * line] = _ZERO
    for y in range(height):
        above = max(y - 1, 0)
        below = min(y + 1, height - 1)
        at = np.uint64((y + MARGIN) * line + MARGIN)
        for x in range(width):
            padded[at + np.uint64(x)] = frame[y, x]
        at += np.uint64(channel)
        for x in range(1, width - 1):
            padded[at + np.uint64(x)] = _HALF * (frame[y, x + 1] - frame[y, x - 1])
        padded[at] = _HALF * (frame[y, 1] - frame[y, 0])
        padded[at + np.uint64(width - 1)] = _HALF * (frame[y, width - 1] - frame[y, width - 2])
        at += np.uint64(channel)
        for x in range(width):
            padded[at + np.uint64(x)] = _HALF * (frame[below, x] - frame[above, x])
    line1 = np.uint64(line)
    line2 = line1 + line1
    line3 = line2 + line1
    for i in range(np.uint64(CHANNELS * channel)):
        to = i * np.uint64(TAPS)
        taps[to] = padded[i]
        taps[to + np.uint64(1)] = padded[i + line1]
        taps[to + np.uint64(2)] = padded[i + line2]
        taps[to + np.uint64(3)] = padded[i + line3]


@exact_kernel
def _tap_positions(planes, at, columns, x_first, y, height, width, places):
    """First tap of every column, and the quantised fraction in x and y: three stretches of PANEL in `places`.

    Sums round as OpenCV's do: one position in 2,000 is exactly between two steps, and the choice is visible.
    """
    stride = np.int32((width + 2 * MARGIN) * TAPS)
    steps = np.float32(_STEPS)
    y_float = np.float32(y)
    x_float = np.float32(x_first)
    x_most = np.int32(width + 1)
    y_most = np.int32(height + 1)
    for column in range(columns):
        x = np.int32(np.rint((x_float + np.float32(np.int32(column)) + planes[at + column + U1]) * steps))
        y = np.int32(np.rint((y_float + planes[at + column + U2]) * steps))
        x_tap = min(max(x >> np.int32(5), np.int32(-3)), x_most) + np.int32(MARGIN - 1)
        y_tap = min(max(y >> np.int32(5), np.int32(-3)), y_most) + np.int32(MARGIN - 1)
        places[column] = y_tap * stride + x_tap * np.int32(TAPS)
        places[column + _PANEL] = (x & np.int32(_STEPS - 1)) * np.int32(16)
        places[column + _PANEL + _PANEL] = (y & np.int32(_STEPS - 1)) * np.int32(16)


@kernel
def _sample(taps, channel, weights_x, weights_y, places, columns, samples, sixteen):
    """Sum the 4 x 4 taps of the frame and its gradients for every column.

    The number of taps is an argument because LLVM would unroll a constant one into scalar code.
    """
    for column in range(columns):
        at = np.uint64(places[column])
        fraction_x = np.uint64(places[column + _PANEL])
        fraction_y = np.uint64(places[column + _PANEL + _PANEL])
        value, gradient_x, gradient_y = _ZERO, _ZERO, _ZERO
        for tap in range(sixteen):
            weight = weights_x[fraction_x + tap] * weights_y[fraction_y + tap]
            value += weight * taps[at + tap]
            gradient_x += weight * taps[at + channel + tap]
            gradient_y += weight * taps[at + channel + channel + tap]
        samples[column] = value
        samples[column + _PANEL] = gradient_x
        samples[column + _PANEL + _PANEL] = gradient_y


@kernel
def _linearise(planes, at, columns, samples, frame_row, x_first):
    """Fill the planes of the data term from the samples of one row."""
    for column in range(columns):
        here = at + column
        ix = samples[column + _PANEL]
        iy = samples[column + _PANEL + _PANEL]
        squared = ix * ix + iy * iy
        planes[here + IX] = ix
        planes[here + IY] = iy
        planes[here + INV] = _ONE / squared if squared > _FLT_EPSILON else _ZERO
        rest = samples[column] - ix * planes[here + U1] - iy * planes[here + U2]
        planes[here + RHO] = rest - frame_row[x_first + column]


@entry_kernel
def warp(planes, taps, frame, weights_x, weights_y, places, samples, sources=SOURCES):
    """Take the second frame and its gradient at x + u, and linearise the residual there.

    Args:
        planes: float32, flat, see `planes`; u is read, the data term is written.
        taps: of the second frame, from `lay_out_taps`.
        frame: float32, (H, W), the first frame.
        weights_x: from `cubic_weights`.
        weights_y: from `cubic_weights`.
        places: int32, (3 * PANEL,), scratch.
        samples: float32, (3 * PANEL,), scratch.
    """
    height, width = frame.shape
    channel = np.uint64((width + 2 * MARGIN) * (height + 2 * MARGIN) * TAPS)
    sixteen = np.uint64(len(weights_x) // _STEPS)
    for row in range(height):
        for panel in range(panels(width)):
            at = address(height, panel, row)
            # Columns beyond the picture keep a data term of zero.
            columns = np.uint64(min(PANEL, width - panel * PANEL))
            _tap_positions(planes, at, columns, panel * PANEL, row, height, width, places)
            _sample(taps, channel, weights_x, weights_y, places, columns, samples, sixteen)
            _linearise(planes, at, columns, samples, frame[row], np.uint64(panel * PANEL))

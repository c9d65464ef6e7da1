"""The parts of TV-L1 on batches of pairs, as pure functions of `keras.ops` for XLA to fuse.

Pictures are float32 [N, H, W]. A *slot* is one place of the batch; it holds one pair of frames until that pair is done.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from keras import ops

MARGIN = 4  # pixels of zero around a frame: bicubic taps that fall outside it count as 0
_STEPS = 32  # OpenCV quantises positions to 1/32 pixel
_CUBIC_A = -0.75
_FLT_EPSILON = float(np.finfo(np.float32).eps)


class DataTerm(NamedTuple):
    """The linearised residual of every slot: float32 [slots, H, W] each."""

    ix: object
    iy: object
    rho: object
    inverse: object  # 1 / |gradient|^2, or 0 where there is no gradient


class Motion(NamedTuple):
    """What the iterations change: float32 [slots, H, W] each; u in pixels, p times theta."""

    u1: object
    u2: object
    p1x: object
    p1y: object
    p2x: object
    p2y: object


def resize(pictures, size: tuple[int, int], scale: tuple[float, float]):
    """Bilinear resize to `size` without smoothing; `scale` is old pixels per new pixel, as OpenCV computes it."""
    if tuple(pictures.shape[1:]) == size:
        return pictures  # OpenCV copies pictures of the right size, whatever the scale
    for axis in (1, 2):
        count, old = size[axis - 1], pictures.shape[axis]
        position = ((np.arange(count) + 0.5) * scale[axis - 1] - 0.5).astype(np.float32)
        low = np.floor(position).astype(np.int32)
        weight = np.where((low < 0) | (low >= old - 1), np.float32(0), position - low).astype(np.float32)
        low = np.clip(low, 0, old - 1)
        high = np.minimum(low + 1, old - 1)
        weight = weight.reshape([1, -1, 1] if axis == 1 else [1, 1, -1])
        pictures = ops.take(pictures, low, axis=axis) * (1 - weight) + ops.take(pictures, high, axis=axis) * weight
    return pictures


def gradient(pictures):
    """Central differences in x and y, halved, border replicated."""
    wide = _replicated(pictures, 1)
    return (
        0.5 * (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]),
        0.5 * (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]),
    )


def with_margin(pictures):
    """Put `MARGIN` pixels of zero around pictures, and lay them out flat for `warp`."""
    return ops.reshape(ops.pad(pictures, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))), (-1,))


def warp(first, taps, second_index, u1, u2) -> DataTerm:
    """Take second frames and their gradients at x + u by bicubic interpolation, and linearise the residual there.

    Args:
        first: the first frame of every slot.
        taps: three flat pictures `with_margin`: all frames, and their gradients in x and y.
        second_index: int32 [slots], which of those frames is the second of the slot.
        u1: displacement in x.
        u2: displacement in y.
    """
    _, height, width = first.shape
    line = width + 2 * MARGIN
    y, x = np.mgrid[:height, :width].astype(np.float32)
    column, fraction_x = _position(x + u1, width)
    row, fraction_y = _position(y + u2, height)
    start = ops.reshape(second_index, (-1, 1, 1)) * (line * (height + 2 * MARGIN)) + row * line + column
    weights_x = _cubic_weights(fraction_x)
    weights_y = _cubic_weights(fraction_y)
    values = []
    for channel in taps:
        value = 0.0
        for j, weight_y in enumerate(weights_y):
            across = 0.0
            for i, weight_x in enumerate(weights_x):
                across = across + weight_x * ops.take(channel, start + (j * line + i), axis=0)
            value = value + weight_y * across
        values.append(value)
    value, ix, iy = values
    squared = ix * ix + iy * iy
    has_gradient = squared > _FLT_EPSILON
    inverse = ops.where(has_gradient, 1.0 / ops.where(has_gradient, squared, 1.0), 0.0)
    return DataTerm(ix, iy, value - ix * u1 - iy * u2 - first, inverse)


def _position(position, side: int):
    """First of four taps in a picture with margin (int32), and the quantised fraction of a pixel."""
    steps = ops.round(position * _STEPS)
    whole = ops.floor(steps / _STEPS)
    fraction = (steps - whole * _STEPS) / _STEPS
    tap = ops.cast(ops.clip(whole, -3, side + 1), "int32") + (MARGIN - 1)
    return tap, fraction


def _cubic_weights(x):
    a = _CUBIC_A
    before = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    left = ((a + 2) * x - (a + 3)) * x * x + 1
    right = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    return before, left, right, 1 - before - left - right


def iterate(motion: Motion, data: DataTerm, *, bound: float, tau: float, inverse_theta: float):
    """One iteration: thresholded data step, divergence of p, and dual ascent.

    Returns:
        The new motion, and the sum of squared changes of u for every slot, float32 [slots], pixels^2.
    """
    u1, u2, p1x, p1y, p2x, p2y = motion
    step = ops.clip(-(data.rho + data.ix * u1 + data.iy * u2) * data.inverse, -bound, bound)
    change1 = step * data.ix + _divergence(p1x, p1y)
    change2 = step * data.iy + _divergence(p2x, p2y)
    u1 = u1 + change1
    u2 = u2 + change2
    p1x, p1y = _ascend(u1, p1x, p1y, tau, inverse_theta)
    p2x, p2y = _ascend(u2, p2x, p2y, tau, inverse_theta)
    return Motion(u1, u2, p1x, p1y, p2x, p2y), ops.sum(change1 * change1 + change2 * change2, axis=(1, 2))


def _divergence(px, py):
    left = ops.pad(px[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
    above = ops.pad(py[:, :-1, :], ((0, 0), (1, 0), (0, 0)))
    return px - left + py - above


def _ascend(u, px, py, tau: float, inverse_theta: float):
    dx = tau * ops.pad(u[:, :, 1:] - u[:, :, :-1], ((0, 0), (0, 0), (0, 1)))
    dy = tau * ops.pad(u[:, 1:, :] - u[:, :-1, :], ((0, 0), (0, 1), (0, 0)))
    norm = 1.0 + inverse_theta * ops.sqrt(dx * dx + dy * dy)
    return (px + dx) / norm, (py + dy) / norm


def median_filter(pictures, size: int):
    """Median over size x size pixels (1, 3 or 5), the border replicated."""
    if size == 1:
        return pictures
    _, height, width = pictures.shape
    wide = _replicated(pictures, size // 2)
    sort = _sort5 if size == 5 else _sort3
    ranks = sort(*(wide[:, i : i + height, :] for i in range(size)))
    a, *rest = (sort(*(rank[:, :, i : i + width] for i in range(size))) for rank in ranks)
    if size == 3:
        b, c = rest
        return _sort3(a[2], b[1], c[0])[1]
    b, c, d, e = rest
    # The same comparisons as in the CPU engine, found by a beam search and proved by the 0-1 principle.
    low = ops.maximum(a[3], ops.minimum(ops.minimum(b[4], c[3]), ops.maximum(b[2], d[1])))
    middle = ops.maximum(c[1], ops.minimum(ops.maximum(b[3], d[0]), e[1]))
    high, last = _sort2(ops.minimum(a[4], d[2]), e[0])
    last, spare = _sort2(last, c[2])
    low, high = _sort2(low, high)
    high, low = _sort2(ops.minimum(high, spare), ops.maximum(low, middle))
    return ops.minimum(low, ops.maximum(high, last))


def _replicated(pictures, border: int):
    for axis in (1, 2):
        side = pictures.shape[axis]
        pictures = ops.take(pictures, np.clip(np.arange(-border, side + border), 0, side - 1), axis=axis)
    return pictures


def _sort2(a, b):
    return ops.minimum(a, b), ops.maximum(a, b)


def _sort3(a, b, c):
    a, b = _sort2(a, b)
    b, c = _sort2(b, c)
    a, b = _sort2(a, b)
    return a, b, c


def _sort5(a, b, c, d, e):
    a, b = _sort2(a, b)
    d, e = _sort2(d, e)
    c, e = _sort2(c, e)
    c, d = _sort2(c, d)
    b, e = _sort2(b, e)
    a, d = _sort2(a, d)
    a, c = _sort2(a, c)
    b, d = _sort2(b, d)
    b, c = _sort2(b, c)
    return a, b, c, d, e

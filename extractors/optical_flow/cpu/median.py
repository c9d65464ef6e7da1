"""Median filter of one plane on the CPU: min/max networks that LLVM turns into vectors of columns."""

from __future__ import annotations

import numpy as np

from extractors.optical_flow.cpu.planes import (
    LANES,
    PANEL,
    SOURCES,
    STRIDE,
    address,
    entry_kernel,
    kernel,
    padded_columns,
    panels,
)

# Rows of the scratch `ranks`: columns sorted, smallest first, and the medians.
_A, _B, _C, _D, _E, _OUT = (np.uint64(row * STRIDE) for row in range(6))
RANK_FLOATS = 6 * STRIDE
_1 = np.uint64(1)


@kernel
def _sort2(a, b):
    return min(a, b), max(a, b)


@kernel
def _sort3(a, b, c):
    a, b = _sort2(a, b)
    b, c = _sort2(b, c)
    a, b = _sort2(a, b)
    return a, b, c


@kernel
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


@kernel
def _median_of_candidates(a3, a4, b2, b3, b4, c1, c2, c3, d0, d1, d2, e0, e1):
    """Return the median of 25 values from the 13 candidates that remain after sorting columns and then rows (a to e).

    The comparisons come from a beam search for few of them, with the 0-1 principle as the proof.
    """
    b4 = max(a3, min(min(b4, c3), max(b2, d1)))
    c1 = max(c1, min(max(b3, d0), e1))
    a4, e0 = _sort2(min(a4, d2), e0)
    e0, c2 = _sort2(e0, c2)
    b4, a4 = _sort2(b4, a4)
    a4, b4 = _sort2(min(a4, c2), max(b4, c1))
    return min(b4, max(a4, e0))


@kernel
def _sort_columns5(image, at, line, columns, ranks):
    """Sort 5 values below one another in every column; the k-th smallest goes to row k of `ranks`."""
    at1 = at + line
    at2 = at1 + line
    at3 = at2 + line
    at4 = at3 + line
    for x in range(columns):
        a, b, c, d, e = _sort5(image[at + x], image[at1 + x], image[at2 + x], image[at3 + x], image[at4 + x])
        ranks[x + _A] = a
        ranks[x + _B] = b
        ranks[x + _C] = c
        ranks[x + _D] = d
        ranks[x + _E] = e


@kernel
def _sort_columns3(image, at, line, columns, ranks):
    """Sort 3 values below one another in every column; the k-th smallest goes to row k of `ranks`."""
    at1 = at + line
    at2 = at1 + line
    for x in range(columns):
        a, b, c = _sort3(image[at + x], image[at1 + x], image[at2 + x])
        ranks[x + _A] = a
        ranks[x + _B] = b
        ranks[x + _C] = c


@kernel
def _rank5(ranks, at):
    """Sort 5 neighbours of one row of `ranks`."""
    at2 = at + _1 + _1
    return _sort5(ranks[at], ranks[at + _1], ranks[at2], ranks[at2 + _1], ranks[at2 + _1 + _1])


@kernel
def _median5(ranks, columns):
    for x in range(columns):
        _, _, _, a3, a4 = _rank5(ranks, x + _A)
        _, _, b2, b3, b4 = _rank5(ranks, x + _B)
        _, c1, c2, c3, _ = _rank5(ranks, x + _C)
        d0, d1, d2, _, _ = _rank5(ranks, x + _D)
        e0, e1, _, _, _ = _rank5(ranks, x + _E)
        ranks[x + _OUT] = _median_of_candidates(a3, a4, b2, b3, b4, c1, c2, c3, d0, d1, d2, e0, e1)


@kernel
def _median3(ranks, columns):
    for x in range(columns):
        a = x + _A
        b = x + _B
        c = x + _C
        low = max(max(ranks[a], ranks[a + _1]), ranks[a + _1 + _1])
        _, middle, _ = _sort3(ranks[b], ranks[b + _1], ranks[b + _1 + _1])
        high = min(min(ranks[c], ranks[c + _1]), ranks[c + _1 + _1])
        _, median, _ = _sort3(low, middle, high)
        ranks[x + _OUT] = median


@entry_kernel
def median_filter(planes, height, width, plane, size, image, ranks, sources=SOURCES):
    """Replace one plane by its median over size x size pixels, the border replicated.

    Args:
        planes: float32, flat, see `planes`.
        plane: uint64, offset of the plane.
        size: 3 or 5, pixels.
        image: float32, flat, at least `image_floats`, scratch.
        ranks: float32, (RANK_FLOATS,), scratch.
    """
    border = size // 2
    line = (width + LANES - 1) // LANES * LANES + 2 * LANES
    for row in range(-border, height + border):
        inside = min(max(row, 0), height - 1)
        at = np.uint64((row + border) * line + border)
        for panel in range(panels(width)):
            source = address(height, panel, inside) + plane
            to = at + np.uint64(panel * PANEL)
            for x in range(np.uint64(min(PANEL, width - panel * PANEL))):
                image[to + x] = planes[source + x]
        for x in range(border):
            image[at - np.uint64(x + 1)] = image[at]
            image[at + np.uint64(width + x)] = image[at + np.uint64(width - 1)]
    for row in range(height):
        for panel in range(panels(width)):
            columns = padded_columns(width, panel)
            at = np.uint64(row * line + panel * PANEL)
            if size == 5:
                _sort_columns5(image, at, np.uint64(line), columns + np.uint64(LANES), ranks)
                _median5(ranks, columns)
            else:
                _sort_columns3(image, at, np.uint64(line), columns + np.uint64(LANES), ranks)
                _median3(ranks, columns)
            to = address(height, panel, row) + plane
            # The columns beyond the picture stay zero.
            for x in range(np.uint64(min(PANEL, width - panel * PANEL))):
                planes[to + x] = ranks[x + _OUT]


def image_floats(height: int, width: int) -> int:
    """Size of the scratch image of `median_filter`."""
    return (height + 4) * (width + 3 * LANES)

"""The iterations of TV-L1 on the CPU: thresholding, divergence and dual ascent in one sweep over the picture."""

from __future__ import annotations

import numpy as np

from extractors.optical_flow.cpu.planes import (
    INV,
    IX,
    IY,
    LANES,
    ONE,
    P1X,
    P1Y,
    P2X,
    P2Y,
    PANEL,
    RHO,
    ROW,
    SOURCES,
    U1,
    U2,
    address,
    entry_kernel,
    kernel,
    padded_columns,
    panels,
)

_ZERO = np.float32(0)
_UNIT = np.float32(1)


@kernel
def _advance_row(planes, at, columns, bound, rates, rates_at, rate_down, inverse_theta):
    """Update u in one row, and p in the row two above it; returns the sum of squared changes of u.

    A row of p needs the new u of its own row and of the next. One row more between them lets the processor work on
    both at once, since neither waits for the other.
    """
    change = _ZERO
    for column in range(columns):
        here = at + column
        above = here - ROW
        ix = planes[here + IX]
        iy = planes[here + IY]
        u1 = planes[here + U1]
        u2 = planes[here + U2]
        # p is kept times theta, which saves two multiplications.
        divergence1 = planes[here + P1X] - planes[here + P1X - ONE] + planes[here + P1Y] - planes[above + P1Y]
        divergence2 = planes[here + P2X] - planes[here + P2X - ONE] + planes[here + P2Y] - planes[above + P2Y]
        # The three cases of the thresholding operator are one clipping: |rho| < bound |grad|^2 is -rho / |grad|^2.
        step = -(planes[here + RHO] + ix * u1 + iy * u2) * planes[here + INV]
        step = min(max(step, -bound), bound)
        change1 = step * ix + divergence1
        change2 = step * iy + divergence2
        planes[here + U1] = u1 + change1
        planes[here + U2] = u2 + change2
        change += change1 * change1 + change2 * change2

        dual = above - ROW
        rate = rates[rates_at + column]
        d1x = rate * (planes[dual + U1 + ONE] - planes[dual + U1])
        d2x = rate * (planes[dual + U2 + ONE] - planes[dual + U2])
        d1y = rate_down * (planes[above + U1] - planes[dual + U1])
        d2y = rate_down * (planes[above + U2] - planes[dual + U2])
        shrink1 = _UNIT / (_UNIT + inverse_theta * np.sqrt(d1x * d1x + d1y * d1y))
        shrink2 = _UNIT / (_UNIT + inverse_theta * np.sqrt(d2x * d2x + d2y * d2y))
        planes[dual + P1X] = (planes[dual + P1X] + d1x) * shrink1
        planes[dual + P1Y] = (planes[dual + P1Y] + d1y) * shrink1
        planes[dual + P2X] = (planes[dual + P2X] + d2x) * shrink2
        planes[dual + P2Y] = (planes[dual + P2Y] + d2y) * shrink2
    return change


@kernel
def _copy_halos(planes, height, panel, row):
    """Exchange border columns between a panel and its left neighbour: u in this row, p two rows above."""
    at = address(height, panel, row)
    beyond = address(height, panel - 1, row) + np.uint64(PANEL)
    planes[beyond + U1] = planes[at + U1]
    planes[beyond + U2] = planes[at + U2]
    dual = address(height, panel, row - 2) - ONE
    last = address(height, panel - 1, row - 2) + np.uint64(PANEL - 1)
    planes[dual + P1X] = planes[last + P1X]
    planes[dual + P2X] = planes[last + P2X]


@entry_kernel
def iterate(planes, height, width, bound, rates, inverse_theta, limit, most, sources=SOURCES):
    """Iterate until the sum of squared changes of u is at most `limit`.

    Args:
        planes: float32, flat, see `planes`; u and p (times theta) are changed.
        bound: float32, lambda theta.
        rates: float32, (columns padded to whole vectors,), from `dual_rates`.
        inverse_theta: float32.
        limit: pixels^2.
        most: iterations at most, at least 1.

    Returns:
        Sum of squared changes in the last iteration, pixels^2.
    """
    change = 0.0
    for _ in range(most):
        change = 0.0
        for row in range(height + 2):
            # The difference to the row below is 0 in the last row of p, and in the halo above the first.
            rate_down = rates[0] if 2 <= row <= height else _ZERO
            for panel in range(panels(width)):
                at = address(height, panel, row)
                columns = padded_columns(width, panel)
                rates_at = np.uint64(panel * PANEL)
                change += _advance_row(planes, at, columns, bound, rates, rates_at, rate_down, inverse_theta)
            for panel in range(1, panels(width)):
                _copy_halos(planes, height, panel, row)
        if change <= limit:
            break
    return change


def dual_rates(width: int, tau: float) -> np.ndarray:
    """Step of the dual variables by column, float32, padded to whole vectors: tau, and 0 from the last one on."""
    rates = np.zeros(-(-width // LANES) * LANES, np.float32)
    rates[: width - 1] = tau
    return rates

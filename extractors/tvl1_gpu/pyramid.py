"""Sizes of the image pyramid's levels."""

from __future__ import annotations

from extractors.tvl1_parameters import SMALLEST_SIDE_PX, TVL1Parameters


def pyramid_sizes(height: int, width: int, parameters: TVL1Parameters) -> list[tuple[int, int]]:
    """Size (height, width) of every level, the finest first; they end before a side falls under 16 pixels."""
    sizes = [(height, width)]
    for _ in range(1, parameters.scales):
        coarser = (round(sizes[-1][0] * parameters.step), round(sizes[-1][1] * parameters.step))
        if min(coarser) < SMALLEST_SIDE_PX:
            break
        sizes.append(coarser)
    return sizes

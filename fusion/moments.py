"""Mean and standard deviation of the training set's features, clip by clip."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# A spread of less than this share of the mean is float32 rounding, not signal.
ROUNDING = 1e-6


def mean_and_std(blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Statistics over all rows of all blocks, each row weighing the same, without holding them together.

    Args:
        blocks: arrays [n, D], one or more rows in all.

    Returns:
        Mean and standard deviation, each float32 [D]. A feature that never changes gets the deviation 1, so that
        standardising leaves it at 0 rather than at rounding errors blown up.

    Sources:
        Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    count = 0
    mean = squares = np.zeros(1)
    for block in blocks:
        rows = block.astype(np.float64)
        block_mean = rows.mean(axis=0)
        block_squares = ((rows - block_mean) ** 2).sum(axis=0)
        total = count + len(rows)
        shift = block_mean - mean
        squares = squares + block_squares + shift**2 * (count * len(rows) / total)
        mean = mean + shift * (len(rows) / total)
        count = total
    std = np.sqrt(squares / count)
    constant = std <= ROUNDING * np.abs(mean)
    return mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)

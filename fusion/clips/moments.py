"""Mean and standard deviation of the training set's features, clip by clip."""

from __future__ import annotations

import numpy as np

# A standard deviation below this share of the mean is float32 rounding, not signal.
ROUNDING = 1e-6


class Moments:
    """Statistics over the rows of all blocks, each row with the same weight, without storing the blocks.

    Sources:
        Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = np.zeros(1)

    def add(self, block: np.ndarray) -> None:
        """Add the rows of an array [n, D], n >= 1."""
        rows = block.astype(np.float64)
        mean = rows.mean(axis=0)
        rows -= mean
        squares = np.einsum("nd,nd->d", rows, rows)
        total = self._count + len(rows)
        shift = mean - self._mean
        self._squares = self._squares + squares + shift**2 * (self._count * len(rows) / total)
        self._mean = self._mean + shift * (len(rows) / total)
        self._count = total

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation, each float32 [D].

        A constant feature gets the deviation 1, so that standardisation yields 0 rather than amplified rounding errors.
        """
        std = np.sqrt(self._squares / self._count)
        constant = std <= ROUNDING * np.abs(self._mean)
        return self._mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)

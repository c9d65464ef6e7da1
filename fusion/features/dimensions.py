"""Statistics of feature dimensions and the directions of most variance, in one pass over any number of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from fusion.clips.moments import ROUNDING

SATURATED = 0.05  # share of tokens exactly at a dimension's own limit
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE_TOKENS = 4096
BLOCK_TOKENS = 1024  # smaller blocks would move [D, D] numbers through memory for every clip


@dataclass(frozen=True, slots=True, eq=False)
class Dimensions:
    """Statistics of each dimension of some tokens.

    Attributes:
        tokens: number of tokens examined, excluding those with a number that is not finite.
        left_out: number of the excluded tokens.
        mean, std, lowest, highest: float64 [D].
        zeros: share of tokens that are 0 in the dimension, float64 [D].
        quantiles: float32 [5, D], at 5, 25, 50, 75 and 95%, of the sample.
        dead: dimensions that are 0 in every token.
        constant: other dimensions whose values differ by no more than rounding.
        saturated: other dimensions in which at least 5% of the tokens are exactly at the highest value, or at the
            lowest if that is not 0, as if something cut them off there.
        sample_tokens: number of tokens in the sample.
    """

    tokens: int
    left_out: int
    mean: np.ndarray
    std: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    zeros: np.ndarray
    quantiles: np.ndarray
    dead: tuple[int, ...]
    constant: tuple[int, ...]
    saturated: tuple[int, ...]
    sample_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Principal components of some tokens.

    Attributes:
        variance: along each component, float64 [D], descending.
        ratio: the same as shares of their sum.
        axes: float64 [k, D], the first components, of length 1; the largest number of each is positive.
        mean: float64 [D].
    """

    variance: np.ndarray
    ratio: np.ndarray
    axes: np.ndarray
    mean: np.ndarray

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Return the coordinates [N, k] of vectors [N, D]."""
        coordinates: np.ndarray = (vectors - self.mean) @ self.axes.T
        return coordinates

    def needed(self, share: float) -> int:
        """Return how many components hold this share of the variance."""
        return int(np.searchsorted(np.cumsum(self.ratio), share * (1 - 1e-12)) + 1)


class DimensionMeter:
    """Accumulates sums over blocks of tokens: float64 [D, D], and a seeded sample of 4,096 of any number of tokens.

    Args:
        dim: D.
        seed: of the sample, in which every token is equally likely.
    """

    def __init__(self, dim: int, *, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._tokens = self._left_out = 0
        self._origin: np.ndarray | None = None  # near the mean, so that the sums of squares keep their precision
        self._sum, self._products = np.zeros(dim), np.zeros((dim, dim))
        self._lowest, self._highest = np.full(dim, np.inf), np.full(dim, -np.inf)
        self._at_lowest, self._at_highest, self._zeros = (np.zeros(dim, np.int64) for _ in range(3))
        self._sample = np.empty((SAMPLE_TOKENS, dim), np.float32)
        self._labels = [""] * SAMPLE_TOKENS
        self._waiting: list[np.ndarray] = []
        self._waiting_labels: list[str] = []

    def add(self, vectors: np.ndarray, label: str = "") -> None:
        """Add tokens, float32 [n, D]; the label, such as a person, is stored beside those in the sample."""
        good = np.isfinite(vectors).all(axis=1)
        self._left_out += int((~good).sum())
        if good.any():
            self._waiting.append(vectors[good])
            self._waiting_labels += [label] * int(good.sum())
        if len(self._waiting_labels) >= BLOCK_TOKENS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows, labels = np.concatenate(self._waiting), self._waiting_labels
        self._waiting, self._waiting_labels = [], []
        if self._origin is None:
            self._origin = rows.mean(axis=0, dtype=np.float64)
        self._draw(rows, labels)
        self._tokens += len(rows)
        centred = (rows - self._origin).astype(np.float32)
        self._sum += centred.sum(axis=0, dtype=np.float64)
        self._products += centred.T @ centred
        self._zeros += (rows == 0).sum(axis=0)
        _count_at(rows.max(axis=0), np.greater, rows, self._highest, self._at_highest)
        _count_at(rows.min(axis=0), np.less, rows, self._lowest, self._at_lowest)

    def sample(self) -> tuple[np.ndarray, list[str]]:
        """Return the sampled tokens, float32 [n, D], and their labels."""
        self._flush()
        count = min(self._tokens, SAMPLE_TOKENS)
        return self._sample[:count], self._labels[:count]

    def dimensions(self) -> Dimensions:
        """Return the statistics of every dimension.

        Raises:
            ValueError: no tokens were added.
        """
        mean, covariance = self._mean_and_covariance()
        std = np.sqrt(np.maximum(np.diag(covariance), 0))
        spread = self._highest - self._lowest
        dead = (self._lowest == 0) & (self._highest == 0)
        constant = ~dead & (spread <= ROUNDING * np.maximum(np.abs(self._highest), np.abs(self._lowest)))
        enough = max(SATURATED * self._tokens, 2)
        cut = (self._at_highest >= enough) & (self._highest != 0)
        cut |= (self._at_lowest >= enough) & (self._lowest != 0)
        sample, _ = self.sample()
        return Dimensions(
            tokens=self._tokens,
            left_out=self._left_out,
            mean=mean,
            std=std,
            lowest=self._lowest.copy(),
            highest=self._highest.copy(),
            zeros=self._zeros / self._tokens,
            quantiles=np.quantile(sample, QUANTILES, axis=0).astype(np.float32),
            dead=_places(dead),
            constant=_places(constant),
            saturated=_places(cut & ~dead & ~constant),
            sample_tokens=len(sample),
        )

    def components(self, count: int) -> Components:
        """Return the directions of most variance, over all tokens.

        The full covariance is exact and costs one matrix product per block. scikit-learn's IncrementalPCA decomposes
        each block and loses the part that its components cannot represent.

        Args:
            count: number of axes to return.

        Raises:
            ValueError: fewer than two tokens were added.
        """
        mean, covariance = self._mean_and_covariance(freedom=1)
        variance, vectors = linalg.eigh(covariance, overwrite_a=True, driver="evd")
        variance = np.maximum(variance[::-1], 0)
        axes = vectors[:, ::-1][:, :count].T.copy()
        largest = np.abs(axes).argmax(axis=1)
        axes *= np.sign(axes[np.arange(len(axes)), largest])[:, None]
        total = variance.sum()
        return Components(variance, variance / total if total > 0 else variance, axes, mean)

    def _mean_and_covariance(self, freedom: int = 0) -> tuple[np.ndarray, np.ndarray]:
        self._flush()
        if self._origin is None or self._tokens <= freedom:
            raise ValueError(f"{self._tokens} tokens are too few")
        shift = self._sum / self._tokens
        covariance = self._products - self._tokens * np.outer(shift, shift)
        return self._origin + shift, covariance / (self._tokens - freedom)

    def _draw(self, rows: np.ndarray, labels: list[str]) -> None:
        """Vitter's algorithm R."""
        at = np.arange(self._tokens, self._tokens + len(rows))
        places = np.where(at < SAMPLE_TOKENS, at, self._rng.integers(at + 1))
        for row in np.flatnonzero(places < SAMPLE_TOKENS):
            self._sample[places[row]], self._labels[places[row]] = rows[row], labels[row]


def _count_at(limits: np.ndarray, beyond: np.ufunc, rows: np.ndarray, known: np.ndarray, counts: np.ndarray) -> None:
    """Move each dimension's limit outwards in place, and count the tokens exactly at the limit."""
    further = beyond(limits, known)
    known[further], counts[further] = limits[further], 0
    counts += (rows == known).sum(axis=0)


def _places(which: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(which).tolist())

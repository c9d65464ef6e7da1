"""Differences between the scores of two models, or of two times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusion.traits import TRAITS

BINS = 10
# A bin without any score of one population would make the index infinite, so each share is at least this.
LEAST_SHARE = 1e-4
PSI_SHIFT = 0.1  # by convention, a smaller index means no shift


@dataclass(frozen=True, slots=True)
class TraitDrift:
    """The earlier and the current scores of one trait.

    Args:
        previous_mean, mean: of the earlier and the current scores.
        previous_sd, sd: standard deviations, of whole populations.
        psi: population stability index over the tenths of the earlier scores, >= 0; by convention below 0.1 is no
            shift, above 0.25 a large one.
        ks: Kolmogorov-Smirnov statistic, the largest distance between the two distribution functions, 0 to 1.
        rank_correlation: Spearman's, over the videos scored both times; None if there are fewer than three of them, or
            if their scores are all equal.
        videos: number of those videos.
    """

    trait: str
    previous_mean: float
    mean: float
    previous_sd: float
    sd: float
    psi: float
    ks: float
    rank_correlation: float | None
    videos: int


def measure_drift(previous: np.ndarray, current: np.ndarray, pairs: np.ndarray) -> list[TraitDrift]:
    """Compare two populations of scores, trait by trait, in the trait order.

    Args:
        previous: float [N, 5], in the trait order; N >= 1.
        current: float [M, 5]; M >= 1.
        pairs: int [K, 2]: rows of `previous` and `current` that belong to the same video. K may be 0.

    Raises:
        ValueError: a population is empty or does not have five traits.

    Sources:
        PSI: Siddiqi, Credit Risk Scorecards (2006), with the customary limits 0.1 and 0.25.
    """
    for scores in (previous, current):
        if scores.ndim != 2 or scores.shape[1] != len(TRAITS) or not len(scores):
            raise ValueError(f"scores must be [videos, {len(TRAITS)}] with at least one video, not {scores.shape}")
    from scipy import stats  # takes half a second to import

    drifts = []
    for column, trait in enumerate(TRAITS):
        before, now = previous[:, column].astype(np.float64), current[:, column].astype(np.float64)
        both = before[pairs[:, 0]], now[pairs[:, 1]]
        ranked = len(pairs) >= 3 and all(np.ptp(values) > 0 for values in both)
        drifts.append(
            TraitDrift(
                trait=trait,
                previous_mean=float(before.mean()),
                mean=float(now.mean()),
                previous_sd=float(before.std()),
                sd=float(now.std()),
                psi=_psi(before, now),
                ks=float(stats.ks_2samp(before, now, method="asymp").statistic),
                rank_correlation=float(stats.spearmanr(*both).statistic) if ranked else None,
                videos=len(pairs),
            )
        )
    return drifts


def psi_by_chance(previous: int, current: int) -> float:
    """Return the expected index of two samples of this many videos from the same population.

    Sources:
        Yurdakul, Statistical Properties of Population Stability Index (2018): PSI / (1/N + 1/M) approximately follows a
        chi-square distribution with BINS - 1 degrees of freedom; the fewer videos, the rougher the approximation.
    """
    return (BINS - 1) * (1 / previous + 1 / current)


def _psi(before: np.ndarray, now: np.ndarray) -> float:
    # Equal scores can make tenths coincide; such tenths share a bin.
    edges = np.unique(np.quantile(before, np.arange(1, BINS) / BINS))
    shares = [
        np.maximum(
            np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1) / len(values),
            LEAST_SHARE,
        )
        for values in (before, now)
    ]
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))

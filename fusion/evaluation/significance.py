"""Tests of whether one predictor is better than another on people who were not drawn into the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.evaluation.intervals import person_means, standard_error, t_quantile
from fusion.evaluation.metrics import with_mean


@dataclass(frozen=True, slots=True, eq=False)
class Gain:
    """How much lower a predictor's mean absolute error is than another's, on one person's clips, mean over people.

    All arrays are by trait and for the mean over traits, float64 [T + 1].

    Attributes:
        value: the gain; above 0 if the predictor is better.
        low, high: its 95% interval.
        p: one-sided, of the hypothesis that it is not above 0; below .025 if and only if the interval lies above 0.
        people_better: share of the people whose gain is above 0.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    people_better: np.ndarray


def gain(
    scores: np.ndarray, others: np.ndarray, labels: np.ndarray, subjects: Sequence[str], *, test_share: float = 0.0
) -> Gain:
    """Compare two predictors by Student's t over people, each of whom counts once however many clips there are.

    Args:
        scores: float [R, N, T] of R repetitions.
        others: float [R, N, T] of the other predictor in the same repetitions; each of the two may also have just one.
        labels: float [N, T].
        test_share: see `fusion.evaluation.intervals.standard_error`.
    """
    from scipy.special import stdtr  # scipy.stats takes half a second to import

    errors, other_errors = (np.abs(some.astype(np.float64) - labels) for some in (scores, others))
    by_clip = np.moveaxis(other_errors - errors, 0, 1)
    by_person = np.moveaxis(with_mean(person_means(by_clip, subjects)), 1, 0)
    people = by_person.shape[1]
    by_seed = by_person.mean(axis=1)
    value = by_seed.mean(axis=0)
    without = (people * by_seed[:, None] - by_person) / max(people - 1, 1)
    error = standard_error(by_seed, without, test_share=test_share)
    reach = error * t_quantile(people - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stdtr(people - 1, -value / error)
    better = np.mean(by_person.mean(axis=0) > 0, axis=0)
    # without differences, or with a single person, there is nothing to test
    return Gain(value, value - reach, value + reach, np.where(np.isnan(p), 1.0, p), better)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust the p values [M] of M tests so that the chance of any false finding among them stays below the level.

    Sources:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted

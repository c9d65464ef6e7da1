"""Confidence intervals of measures: Student's t with a standard error from the jackknife over people.

Clips of one person resemble each other, so the units are people, not clips. Measures are brought onto a scale on which
they are nearly normal, and one person with many clips counts as fewer degrees of freedom: on the raw scale and with one
degree for every person, nominal 95% intervals of few people hold less. `docs/explanation/evaluation.md` has the
figures.

Sources:
    Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 11 (jackknife).
    Nadeau and Bengio 2003, "Inference for the generalization error", Machine Learning 52 (corrected variance).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fusion.evaluation.metrics import clip_terms, metrics_of_sums, with_mean

LEVEL = 0.95
LEAST_PEOPLE = 5  # each weighted by their clips; fewer have no interval
ERRORS = 3  # the first METRICS compare scores with labels as they are
# A perfect score has no finite place on the scale of intervals.
PERFECT = 1 - 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Measures with their intervals.

    Attributes:
        value: float64 [6, T + 1]: METRICS by traits and their mean.
        interval: float64 [2, 6, T + 1]: lower and upper bound; NaN if there are too few people.
        by_seed: float64 [R, 6, T + 1]: of each repetition.
    """

    value: np.ndarray
    interval: np.ndarray
    by_seed: np.ndarray


def measure(
    scores: np.ndarray,
    labels: np.ndarray,
    subjects: Sequence[str],
    learned_mean: np.ndarray | None = None,
    *,
    test_share: float = 0.0,
) -> Measured:
    """Measure scores of one or more repetitions, and average the repetitions.

    Clips of all folds are measured together: the variance of the labels of a fold of few people is too small, so that
    the average R2 of such folds is too low. But the models of different folds learn different means, and these
    correlate negatively with the labels of their folds. Pearson's correlation, the concordance and the sd ratio are
    therefore those of the scores less the mean that their model has learned.

    Args:
        scores: float [R, N, T].
        labels: float [N, T].
        subjects: the person in each of N clips.
        learned_mean: float [R, N, T], the mean label of the clips that the model of each score has learned from; None
            if a single model made all scores of a repetition.
        test_share: see `standard_error`.
    """
    _, person, clips = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    if learned_mean is None:
        learned_mean = np.zeros((1, 1, 1))
    centred = scores - learned_mean + learned_mean.mean(axis=1, keepdims=True)
    pairs = zip(scores, centred, strict=True)
    values, left_out = zip(*(_leave_out(one, other, labels, person) for one, other in pairs), strict=True)
    by_seed, without = np.stack(values), np.stack(left_out)
    value = by_seed.mean(axis=0)
    error = standard_error(_scaled(by_seed), _scaled(without), test_share=test_share)
    effective = len(subjects) ** 2 / np.sum(np.square(clips, dtype=np.float64))
    reach = error * t_quantile(effective - 1) if effective >= LEAST_PEOPLE else np.full_like(error, np.nan)
    ends = _unscaled(_scaled(value) + np.array([-1, 1])[:, None, None] * reach)
    interval = np.where(reach == 0, value, np.sort(ends, axis=0))
    return Measured(value, interval, by_seed)


def standard_error(by_seed: np.ndarray, without: np.ndarray, *, test_share: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the standard error of a statistic averaged over R repetitions, by the jackknife over P people.

    On one split (`test_share` 0), the trained predictors are given, up to their seeds, and the people vary. In repeated
    cross-validation, people of one fold are also in the training part of all others, and the repetitions share all
    people. The corrected resampled variance accounts for that: without it, a difference between two equally good
    methods is found significant at 5% in 7 to 14% of drawn data sets of up to 30 people.

    Args:
        by_seed: float [R, ...], the statistic in each repetition.
        without: float [R, P, ...], the same without each of the people.
        test_share: share of the clips that are tested by each training, 1 / K for K folds; 0 for a single split.

    Returns:
        float64 [...]; NaN for a single person.
    """
    repetitions, people = without.shape[:2]
    if people < 2:
        return np.full(by_seed.shape[1:], np.nan)
    deviations = without - without.mean(axis=1, keepdims=True)
    scale = (people - 1) / people
    if test_share:
        variance = scale * np.square(deviations).sum(axis=1).mean(axis=0)
        return np.asarray(np.sqrt(variance * (1 / repetitions + 1 / (1 - test_share))))
    of_people = scale * np.square(deviations.mean(axis=0)).sum(axis=0)
    of_seeds = by_seed.var(axis=0, ddof=1) / repetitions if repetitions > 1 else 0.0
    return np.asarray(np.sqrt(of_people + of_seeds))


def t_quantile(degrees: float, level: float = LEVEL) -> float:
    """Return half the width of an interval of this level, in standard errors."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(degrees, (1 + level) / 2))


def person_means(values: np.ndarray, subjects: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the mean over each person's clips: [N, ...] becomes float64 [P, ...], people sorted by name."""
    _, person, clips = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    return _sums(values.astype(np.float64), person) / clips.reshape(-1, *[1] * (values.ndim - 1))


def share_interval(share: np.ndarray, people: int) -> npt.NDArray[np.float64]:
    """Return Clopper and Pearson's interval of a mean over people of shares: float64 [2, ...].

    It is exact for one clip per person, and wider than needed for more. Unlike Student's t it has a width when all
    shares are 1.
    """
    from scipy.special import betaincinv

    hits, tail = share * people, (1 - LEVEL) / 2
    misses = people - hits
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1e-12), misses + 1, tail), 0.0)
    high = np.where(misses > 0, betaincinv(hits + 1, np.maximum(misses, 1e-12), 1 - tail), 1.0)
    return np.stack([low, high])


def cell(value: float, low: float, high: float) -> dict[str, float | None]:
    """Return a measure and its interval as JSON values; a number that is not finite is None."""
    return {"value": finite(value), "low": finite(low), "high": finite(high)}


def finite(value: float) -> float | None:
    """Return a number as a JSON value; None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def _leave_out(
    scores: np.ndarray, centred: np.ndarray, labels: np.ndarray, person: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the measures [6, T + 1], and the same without each person, [P, 6, T + 1].

    Errors and R2 are those of the scores, the other measures those of the centred scores.
    """
    values, without = [], []
    for some, rows in ((scores, slice(None, ERRORS)), (centred, slice(ERRORS, None))):
        terms, offset = clip_terms(some, labels)
        by_person = _sums(terms, person)
        total = by_person.sum(axis=0)
        values.append(metrics_of_sums(total, offset)[rows])
        without.append(metrics_of_sums(total - by_person, offset)[:, rows])
    return with_mean(np.concatenate(values)), with_mean(np.concatenate(without, axis=1))


def _sums(values: np.ndarray, person: np.ndarray) -> np.ndarray:
    order = np.argsort(person, kind="stable")
    return np.add.reduceat(values[order], np.flatnonzero(np.diff(person[order], prepend=-1)), axis=0)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Bring METRICS [..., 6, T] onto a scale on which they are nearly normal: log of errors, Fisher's z."""
    one_minus_mae, rmse, r2, pearson, ccc, sd_ratio = np.moveaxis(values, -2, 0)
    positive = (np.log(np.maximum(one, 1 - PERFECT)) for one in (1 - one_minus_mae, rmse, 1 - r2, sd_ratio))
    mae, rmse, mse, sd_ratio = positive
    pearson, ccc = (np.arctanh(np.clip(one, -PERFECT, PERFECT)) for one in (pearson, ccc))
    return np.stack([mae, rmse, mse, pearson, ccc, sd_ratio], axis=-2)


def _unscaled(values: np.ndarray) -> np.ndarray:
    mae, rmse, mse, pearson, ccc, sd_ratio = np.moveaxis(values, -2, 0)
    return np.stack(
        [1 - np.exp(mae), np.exp(rmse), 1 - np.exp(mse), np.tanh(pearson), np.tanh(ccc), np.exp(sd_ratio)], axis=-2
    )

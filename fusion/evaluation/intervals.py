"""Confidence intervals of measures: Student's t with a standard error from the jackknife over people.

Clips of one person resemble each other, so the units are people, not clips. Measures are brought onto a scale on which
they are nearly normal, and one person with many clips counts as fewer degrees of freedom: on the raw scale and with one
degree for every person, nominal 95 % intervals of few people hold less. `docs/explanation/evaluation.md` has the
figures.

Sources:
    Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 11 (jackknife).
    Nadeau and Bengio 2003, "Inference for the generalization error", Machine Learning 52 (corrected variance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fusion.evaluation.metrics import METRICS, clip_terms, metrics_of_sums, with_mean

LEVEL = 0.95
LEAST_PEOPLE = 5  # in all, each weighted by their clips; fewer have no interval
LEAST_PEOPLE_PER_FOLD = 3
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
    folds: np.ndarray | None = None,
    *,
    test_share: float = 0.0,
) -> Measured:
    """Measure scores of one or more repetitions, and average them.

    Each fold is measured separately and the results are averaged, because scores of different folds come from different
    models: pooled over five folds, even the training means correlate with the labels.

    Args:
        scores: float [R, N, T].
        labels: float [N, T].
        subjects: the person in each of N clips.
        folds: int [R, N], the fold of each clip in each repetition; None means one fold.
        test_share: see `standard_error`.
    """
    people, person, clips = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    if folds is None:
        folds = np.zeros(scores.shape[:2], int)
    values, left_out = zip(
        *(_leave_out(one, labels, person, fold) for one, fold in zip(scores, folds, strict=True)), strict=True
    )
    by_seed, without = np.stack(values), np.stack(left_out)
    value = by_seed.mean(axis=0)
    error = standard_error(_scaled(by_seed), _scaled(without), test_share=test_share)
    effective = len(subjects) ** 2 / np.sum(np.square(clips, dtype=np.float64))
    fewest = min(len(np.unique(person[fold == own])) for fold in folds for own in np.unique(fold))
    enough = effective >= LEAST_PEOPLE and (fewest >= LEAST_PEOPLE_PER_FOLD or fewest == len(people))
    reach = error * t_quantile(effective - 1) if enough else np.full_like(error, np.nan)
    ends = _unscaled(_scaled(value) + np.array([-1, 1])[:, None, None] * reach)
    interval = np.where(reach == 0, value, np.sort(ends, axis=0))
    return Measured(value, interval, by_seed)


def standard_error(by_seed: np.ndarray, without: np.ndarray, *, test_share: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the standard error of a statistic averaged over R repetitions, by the jackknife over P people.

    On one split (`test_share` 0), the trained predictors are given, up to their seeds, and the people vary. In repeated
    cross-validation, people of one fold are also in the training part of all others, and the repetitions share all
    people. The corrected resampled variance accounts for that: without it, a difference between two equally good
    methods is found significant at 5 % in 7 to 14 % of drawn data sets of up to 30 people.

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


def t_quantile(degrees: float) -> float:
    """Return the half-width of a 95 % interval in standard errors."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


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


def _leave_out(
    scores: np.ndarray, labels: np.ndarray, person: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the measures [6, T + 1], mean over folds, and the same without each person, [P, 6, T + 1]."""
    names = np.unique(folds)
    values = []
    change = np.zeros((person.max() + 1, len(METRICS), scores.shape[1]))
    for fold in names:
        clips = np.flatnonzero(folds == fold)
        terms, offset = clip_terms(scores[clips], labels[clips])
        people, place = np.unique(person[clips], return_inverse=True)
        by_person = _sums(terms, place)
        total = by_person.sum(axis=0)
        values.append(metrics_of_sums(total, offset))
        change[people] += (metrics_of_sums(total - by_person, offset) - values[-1]) / len(names)
    value = np.mean(values, axis=0)
    return with_mean(value), with_mean(value + change)


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

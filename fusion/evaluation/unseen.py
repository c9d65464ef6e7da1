"""The quality of a trained model on people whom it has not seen: the figures that every page and command shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusion.evaluation.intervals import cell, measure, standard_error, t_quantile
from fusion.evaluation.metrics import METRICS
from fusion.traits import TRAITS

SHOWN = ("one_minus_mae", "r2", "ccc")
# Both ends of an interval of 90%: a model that is useless looks better than the mean in one case out of twenty.
GAIN_LEVEL = 0.9
MOST_SHOWN = 300  # points of a scatter
# Fewer do not tell a useless model from a useful one: with 20, an R2 of .2 is found in 6 of 10 drawn data sets.
LEAST_PEOPLE = 30


def measure_unseen(
    scores: np.ndarray,
    labels: np.ndarray,
    subjects: Sequence[str],
    *,
    mean: np.ndarray,
    folds: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measure scores of clips by models that have not seen their people.

    Args:
        scores: float [N, 5].
        labels: float [N, 5].
        subjects: the person in each clip, at least two people.
        mean: float [N, 5], the mean label of the clips that the model of each clip has learned from.
        folds: int [N], the fold of each clip, if the models of the other folds made the scores; None if a single model
            did. Models of different folds share training clips, so intervals are wider, see
            `fusion.evaluation.intervals.standard_error`.

    Returns:
        JSON values: "clips", "people"; of each of SHOWN, by trait and for the "mean" of the traits, its "value" with
        the ends "low" and "high" of its 95% interval over people, None if a measure is not defined; "gain", the share
        of the mean's squared error that the scores save, mean over traits, with the ends of its 90% interval; and
        "better_than_mean", whether that lies above 0; None if it does not and there are fewer than LEAST_PEOPLE people.
    """
    test_share = 0.0 if folds is None else 1 / len(np.unique(folds))
    measured = measure(np.asarray(scores)[None], labels, subjects, mean[None], test_share=test_share)
    interval = measured.interval
    found: dict[str, Any] = {"clips": len(scores), "people": len(set(subjects))}
    for name in SHOWN:
        place = METRICS.index(name)
        found[name] = {
            trait: cell(measured.value[place, column], *interval[:, place, column])
            for column, trait in enumerate((*TRAITS, "mean"))
        }
    gain = _gain(scores, labels, subjects, mean, test_share)
    better = gain["low"] is not None and gain["low"] > 0
    return {**found, "gain": gain, "better_than_mean": better if better or found["people"] >= LEAST_PEOPLE else None}


def sample_of(scores: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> dict[str, list[list[float]]]:
    """Draw at most MOST_SHOWN clips for a scatter: JSON values "scores" and "labels", each [5][clips]."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(scores))[:MOST_SHOWN])
    parts = {"scores": scores, "labels": labels}
    return {name: np.asarray(values, np.float64)[rows].T.round(3).tolist() for name, values in parts.items()}


def _gain(
    scores: np.ndarray, labels: np.ndarray, subjects: Sequence[str], mean: np.ndarray, test_share: float
) -> dict[str, float | None]:
    """Return the gain with its interval: Student's t with a jackknife over people."""
    labels = labels.astype(np.float64)
    error = np.square(mean - labels)
    unit = error.mean(axis=0)
    if not (unit > 0).all():
        return cell(math.nan, math.nan, math.nan)
    of_clip = ((error - np.square(scores - labels)) / unit).mean(axis=1)
    _, person, clips = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    value = of_clip.mean()
    without = (of_clip.sum() - np.bincount(person, of_clip)) / (len(of_clip) - clips)
    standard = standard_error(value[None], without[None], test_share=test_share)
    reach = float(standard * t_quantile(len(clips) - 1, GAIN_LEVEL))
    return cell(value, value - reach, value + reach)

"""How often a model's intervals contain the labels of people whom it has not seen, and how far its scores are off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.labels.split import folds_by_subject, sides_of
from fusion.uncertainty.intervals import ClipQuality, Reliability, calibrate, half_widths, least_people

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FOLDS = 5
BINS = 5


def check_reliability(
    scores: np.ndarray,
    labels: np.ndarray,
    subjects: Sequence[str],
    quality: ClipQuality,
    *,
    centre: np.ndarray,
    seed: int = 0,
) -> Reliability:
    """Evaluate every held-out clip with intervals calibrated on the other held-out people.

    The intervals stored with the model come from all of these people, so their own clips cannot show how often the
    intervals hold. Here each fifth of the people is evaluated with the other four fifths.

    Args:
        scores: float [N, T] of clips of people whom the model has not seen.
        labels: float [N, T].
        subjects: the person in each; at least two different people.
        centre: float [T], mean of the training labels.

    Returns:
        Coverage at those of `LEVELS` for which every fold leaves enough people, possibly none; and the mean score and
        mean label of up to 5 equally large groups of clips by score.

    Raises:
        ValueError: all clips show one person.
    """
    scores, labels = scores.astype(np.float64), labels.astype(np.float64)
    names, person_of_clip, counts = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    parts = list(sides_of(folds_by_subject(subjects, FOLDS, seed)))
    fewest = min(len(np.unique(person_of_clip[fit])) for fit, _ in parts)
    levels = [level for level in LEVELS if least_people(level) <= fewest]
    covered = []
    for level in levels:
        inside = np.zeros(scores.shape)
        for fit, tested in parts:
            own, material = [subjects[row] for row in fit], quality.take(fit)
            found = calibrate(scores[fit], labels[fit], own, material, centre=centre, confidence=level, seed=seed)
            half_width = half_widths(found, scores[tested], quality.take(tested))
            inside[tested] = np.abs(scores[tested] - labels[tested]) <= half_width
        # Every person counts once, as in calibration.
        covered.append(tuple((inside / counts[person_of_clip, None]).sum(axis=0) / len(names)))
    bins = [np.array_split(np.argsort(column, kind="stable"), min(BINS, len(column))) for column in scores.T]
    return Reliability(
        levels=tuple(levels),
        covered=tuple(covered),
        scores=tuple(tuple(scores[rows, trait].mean() for rows in groups) for trait, groups in enumerate(bins)),
        labels=tuple(tuple(labels[rows, trait].mean() for rows in groups) for trait, groups in enumerate(bins)),
        subjects=len(names),
        clips=len(scores),
    )

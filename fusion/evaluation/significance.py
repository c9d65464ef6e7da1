"""Tests of whether two predictors differ by more than chance, person by person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.evaluation.metrics import with_mean


def paired_p_values(scores: np.ndarray, others: np.ndarray, labels: np.ndarray, subjects: Sequence[str]) -> np.ndarray:
    """Apply Wilcoxon's signed-rank test to the mean absolute errors of each person, who counts once.

    Args:
        scores: float [seeds, N, T]; errors are averaged over seeds.
        others: float [seeds, N, T] of the other predictor, with any number of seeds.
        labels: float [N, T].
        subjects: the person in each clip.

    Returns:
        float64 [T + 1]: two-sided p for each trait and for the error averaged over traits; 1 if no person's errors
        differ.
    """
    errors, other_errors = (np.abs(some.astype(np.float64) - labels).mean(axis=0) for some in (scores, others))
    _, person_of_clip, counts = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    from scipy.stats import wilcoxon  # takes half a second to import

    differences = np.zeros((len(counts), labels.shape[1]))
    np.add.at(differences, person_of_clip, errors - other_errors)
    differences = with_mean(differences / counts[:, None])
    return np.array([wilcoxon(column).pvalue if column.any() else 1.0 for column in differences.T])


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

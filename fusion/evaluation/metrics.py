"""The agreement of scores with labels: six measures, all computed from a few sums over clips.

Sums are additive over people, so that the measures without one of them cost no pass over the clips.
"""

from __future__ import annotations

import numpy as np

METRICS = ("one_minus_mae", "rmse", "r2", "pearson", "ccc", "sd_ratio")
"""1 - mean absolute error; root mean squared error; share of variance explained, 1 - MSE / variance of the labels;
Pearson's correlation; Lin's concordance; standard deviation of the scores divided by that of the labels."""

# Deviations below this, on labels in [0, 1], are float32 rounding: the scores are constant.
CONSTANT_SD = 1e-6


def clip_terms(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the contribution of each clip, scores and labels float [N, T], to the sums.

    Returns:
        float64 [N, 7, T]: 1, p, y, p^2, y^2, p y, |error|, with scores p and labels y relative to their means, so that
        squares keep their precision; and float64 [T], the mean score minus the mean label.
    """
    scores, labels = scores.astype(np.float64), labels.astype(np.float64)
    p, y = scores - scores.mean(axis=0), labels - labels.mean(axis=0)
    terms = np.stack([np.ones_like(p), p, y, p * p, y * y, p * y, np.abs(scores - labels)], axis=1)
    return terms, scores.mean(axis=0) - labels.mean(axis=0)


def metrics_of_sums(sums: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Compute the six measures from sums of `clip_terms`.

    Args:
        sums: float64 [..., 7, T].
        offset: float64 [T], from `clip_terms`.

    Returns:
        float64 [..., 6, T] in the order of METRICS. For constant scores, the correlation is NaN and the concordance 0;
        for constant labels, only the errors are defined.

    Sources:
        Lin 1989, "A concordance correlation coefficient to evaluate reproducibility".
    """
    count, p, y, pp, yy, py, error = np.moveaxis(sums, -2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_mean, y_mean = p / count, y / count
        p_var = np.maximum(pp / count - p_mean**2, 0.0)
        y_var = np.maximum(yy / count - y_mean**2, 0.0)
        covariance = py / count - p_mean * y_mean
        difference = p_mean - y_mean + offset
        mse = p_var + y_var - 2 * covariance + difference**2
        p_constant, y_constant = p_var <= CONSTANT_SD**2, y_var <= CONSTANT_SD**2
        r2 = np.where(y_constant, np.nan, 1 - mse / y_var)
        pearson = np.where(p_constant | y_constant, np.nan, covariance / np.sqrt(p_var * y_var))
        ccc = np.where(y_constant, np.nan, 2 * covariance / (p_var + y_var + difference**2))
        ccc = np.where(p_constant & ~y_constant, 0.0, ccc)
        sd_ratio = np.where(y_constant, np.nan, np.sqrt(p_var / y_var))
        sd_ratio = np.where(p_constant & ~y_constant, 0.0, sd_ratio)
        return np.stack([1 - error / count, np.sqrt(np.maximum(mse, 0.0)), r2, pearson, ccc, sd_ratio], axis=-2)


def with_mean(values: np.ndarray) -> np.ndarray:
    """Append the mean over traits: [..., T] becomes [..., T + 1]; the mean is NaN if the value of any trait is NaN."""
    return np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1)

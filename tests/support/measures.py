"""The measures of scores without intervals."""

from __future__ import annotations

import numpy as np

from fusion.evaluation.metrics import clip_terms, metrics_of_sums


def metrics(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the six measures of scores [N, T] against labels [N, T]: float64 [6, T]."""
    terms, offset = clip_terms(scores, labels)
    return metrics_of_sums(terms.sum(axis=0), offset)

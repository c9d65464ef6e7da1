"""Arithmetic of boxes."""

from __future__ import annotations

import numpy as np


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Shared area over area of the union of boxes (x, y, width, height, ... in the last axis), broadcast, 0 to 1."""
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., :2] + first[..., 2:4], second[..., :2] + second[..., 2:4])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    return shared / (np.prod(first[..., 2:4], axis=-1) + np.prod(second[..., 2:4], axis=-1) - shared)

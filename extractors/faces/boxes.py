"""Boxes in pictures: overlap and cutting out."""

from __future__ import annotations

import cv2
import numpy as np

# Numbers of a detection: x, y, width, height in px, score, x and y of the right eye and of the left eye in px.
ROW = 9


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes (x, y, width, height, ... in the last axis), broadcast, 0 to 1."""
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., :2] + first[..., 2:4], second[..., :2] + second[..., 2:4])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    areas = first[..., 2] * first[..., 3] + second[..., 2] * second[..., 3]
    return np.asarray(shared / (areas - shared))


def cut_square(picture: np.ndarray, box: tuple[int, int, int]) -> np.ndarray:
    """Cut [side, side, 3] out of [height, width, 3]; border pixels are repeated beyond the edges."""
    x, y, side = box
    height, width = picture.shape[:2]
    inside = picture[
        min(max(y, 0), height - 1) : min(max(y + side, 1), height),
        min(max(x, 0), width - 1) : min(max(x + side, 1), width),
    ]
    if inside.shape[:2] == (side, side):
        return inside
    top, left = min(side - 1, max(0, -y)), min(side - 1, max(0, -x))
    bottom, right = side - inside.shape[0] - top, side - inside.shape[1] - left
    return cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_REPLICATE)

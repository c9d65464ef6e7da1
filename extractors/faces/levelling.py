"""Square views of faces, levelled and scaled by the eyes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

# Distance of the eyes of a face seen from the front, in sides of the detector's box: medians over twenty recordings
# lie between 0.40 and 0.44.
EYES_SHARE = 0.41
# The eyes of a turned head are closer to each other, which makes it no smaller: a view shrinks no further than this
# beside one that follows the box.
LEAST_SCALE = 0.8
# Views of faces and of what is wrongly taken for one are never turned further.
MAX_ROLL_DEG = 45.0


@dataclass(frozen=True)
class View:
    """A square in a picture, which may be turned.

    Args:
        x, y: its centre in px.
        side: in px.
        roll_deg: angle of its upper edge, clockwise from the horizontal.
    """

    x: float
    y: float
    side: float
    roll_deg: float

    def to_picture(self, size: int) -> np.ndarray:
        """Return the affine map, float64 [2, 3], from pixels of the view, cut out as [size, size], to the picture's.

        In both, whole numbers are the middles of pixels.
        """
        angle, step = math.radians(self.roll_deg), self.side / size
        axes = step * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        corner = np.array([self.x, self.y]) - 0.5 - axes @ np.full(2, (size - 1) / 2)
        return np.column_stack([axes, corner])

    @property
    def corners(self) -> np.ndarray:
        """Float64 [4, 2], x and y in px: top left, top right, bottom right, bottom left."""
        ends = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
        place = self.to_picture(1)
        return np.asarray(ends @ place[:, :2].T + place[:, 2])


def view_of(box: np.ndarray, eyes: np.ndarray, margin: float) -> View:
    """Return the view of a face: level with its eyes, and as large as margin times the box of a face with such eyes.

    Args:
        box: float [4], x, y, width, height in px.
        eyes: float [4], x, y of the right and of the left eye in px; NaN if they are unknown.
        margin: side of the view as a multiple of the box.
    """
    x, y, width, height = (float(value) for value in box[:4])
    side, roll = max(width, height), 0.0
    if not np.isnan(eyes).any():
        right, down = (float(value) for value in eyes[2:] - eyes[:2])
        roll = min(max(math.degrees(math.atan2(down, right)), -MAX_ROLL_DEG), MAX_ROLL_DEG)
        side = max(math.hypot(right, down) / EYES_SHARE, LEAST_SCALE * side)
    return View(x + width / 2, y + height / 2, max(1.0, margin * side), roll)


def cut_view(picture: np.ndarray, view: View, size: int) -> np.ndarray:
    """Cut a view out of [height, width, 3] as [size, size, 3]; border pixels are repeated beyond the edges."""
    # Averages over areas, without which fine texture would turn into false shapes: several samples for each pixel.
    finer = max(1, math.ceil(view.side / size))
    cut = cv2.warpAffine(
        picture,
        view.to_picture(size * finer),
        (size * finer, size * finer),
        flags=cv2.WARP_INVERSE_MAP | (cv2.INTER_CUBIC if view.side < size else cv2.INTER_LINEAR),
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA) if finer > 1 else cut

"""A second opinion on detected faces, independent of the network that detected them.

BlazeFace is certain about some digits in ovals, letters and globes. A cascade of Haar features looks at light and dark
around eyes, nose and cheeks instead, and hardly ever makes the same mistakes. Alone it would miss many faces; here it
only needs to confirm some of the pictures with a detected face.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np

from extractors.faces.boxes import cut_square, overlaps, resized

# Width of the box in a sample, which is twice as wide.
BOX_PX = 64
# Pictures to check, spread evenly over those with a face; up to twice as many are kept while the video is read.
SAMPLES = 16
# The largest faces of a picture that are kept.
FACES_PER_PICTURE = 4
# The cascade detects upright faces only, within some 10 degrees; many heads are tilted.
TURNS_DEG = (0.0, 20.0, -20.0)
# Places and sizes at which the cascade hits. Real faces usually have some 40 hits; non-faces rarely have one.
MIN_HITS = 3
SAME_FACE_OVERLAP = 0.3


@dataclass
class FaceSamples:
    """Small pictures of the faces in a video, spread evenly over the frames with faces, in bounded memory."""

    _kept: list[tuple[int, list[tuple[np.ndarray, np.ndarray]]]] = field(default_factory=list)
    _every: int = 1
    _seen: int = 0

    def offer(self, frame: int, picture: np.ndarray, faces: np.ndarray) -> None:
        """Offer the faces of the next frame; most frames are not kept.

        Args:
            frame: grid frame.
            picture: uint8 RGB [height, width, 3].
            faces: float32 [n, 9]: x, y, width, height in px, score, eyes.
        """
        if not len(faces):
            return
        if self._seen % self._every == 0:
            largest = faces[np.argsort(-faces[:, 2] * faces[:, 3], kind="stable")[:FACES_PER_PICTURE]]
            self._kept.append((frame, [(face, _cut_out(picture, face)) for face in largest]))
            if len(self._kept) == 2 * SAMPLES:
                self._kept, self._every = self._kept[::2], 2 * self._every
        self._seen += 1

    def of(self, boxes: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
        """Return up to `SAMPLES` pictures of one person, spread evenly.

        Args:
            boxes: float32 [frames, 4], the person's box in each grid frame.
            scores: float32 [frames], above 0 in frames with a detection.

        Returns:
            Grey pictures, uint8 [128, 128], with the box in the middle.
        """
        own = [
            patches[best][1]
            for frame, patches in self._kept
            if scores[frame] > 0
            for shared in [overlaps(np.stack([face for face, _ in patches]), boxes[frame])]
            for best in [int(shared.argmax())]
            if shared[best] >= SAME_FACE_OVERLAP
        ]
        count = min(SAMPLES, len(own))
        return [own[(2 * place + 1) * len(own) // (2 * count)] for place in range(count)]


def is_confirmed(sample: np.ndarray) -> bool:
    """Return whether the cascade also detects a face in the middle of a sample, upright or tilted.

    Args:
        sample: uint8 [128, 128], from `FaceSamples`.

    Sources:
        P. Viola, M. Jones, Rapid object detection using a boosted cascade of simple features, 2001; the trees of
        R. Lienhart, which come with OpenCV.
    """
    return any(_hits(turned) >= MIN_HITS for turned in _turned(_stretched(sample)))


def _cut_out(picture: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Cut out the square of twice the box's side around its centre, grey [128, 128]."""
    x, y, width, height = face[:4].tolist()
    side = max(2, round(2 * max(width, height)))
    square = cut_square(picture, (round(x + (width - side) / 2), round(y + (height - side) / 2), side))
    return cv2.cvtColor(resized(square, 2 * BOX_PX), cv2.COLOR_RGB2GRAY)


def _stretched(sample: np.ndarray) -> np.ndarray:
    """Stretch all but the extreme 2 % of pixels to the full range of grey, for dark and for pale faces."""
    low, high = np.percentile(sample, [2, 98])
    stretched: np.ndarray = np.clip((sample - low) * (255 / max(high - low, 8.0)), 0, 255)
    return stretched.astype(np.uint8)


def _turned(sample: np.ndarray) -> Iterator[np.ndarray]:
    for turn in TURNS_DEG:
        matrix = cv2.getRotationMatrix2D((BOX_PX - 0.5, BOX_PX - 0.5), turn, 1.0)
        yield cv2.warpAffine(sample, matrix, sample.shape[::-1], borderMode=cv2.BORDER_REPLICATE) if turn else sample


def _hits(sample: np.ndarray) -> int:
    """Count the places and sizes around the middle that look like a face."""
    least, most = 3 * BOX_PX // 4, 8 * BOX_PX // 5
    found = np.asarray(
        _cascade().detectMultiScale(
            sample, scaleFactor=1.1, minNeighbors=0, minSize=(least, least), maxSize=(most, most)
        )
    )
    if not len(found):
        return 0
    off = np.abs(found[:, :2] + found[:, 2:] / 2 - BOX_PX)
    return int((off < 0.3 * BOX_PX).all(axis=1).sum())


@cache
def _cascade() -> cv2.CascadeClassifier:
    folder = cv2.data.haarcascades  # type: ignore[attr-defined]  # OpenCV's stubs lack it
    return cv2.CascadeClassifier(f"{folder}haarcascade_frontalface_alt2.xml")

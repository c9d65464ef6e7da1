"""A second opinion on detected faces, independent of the network that detected them.

BlazeFace is certain about some digits in ovals, letters and globes. YuNet, another detector, hardly ever makes the same
mistakes, and knows profiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from extractors.faces.boxes import overlaps
from extractors.faces.levelling import cut_view, view_of
from extractors.video.grid import KeptFrames

# Width of the box in a sample, which is twice as wide.
BOX_PX = 64
# Pictures to check, spread evenly over those with a face; up to twice as many are kept while the video is read.
SAMPLES = 16
# The largest faces of a picture that are kept.
FACES_PER_PICTURE = 4
SAME_FACE_OVERLAP = 0.3
# Measured on 303 real faces and 370 false ones (docs/explanation/quality.md): faces in profile and half hidden ones had
# .81 or more, the false ones at most .50, drawn faces and cats up to .8.
YUNET_SCORE = 0.7


@dataclass
class FaceSamples:
    """Samples of the faces in a video, spread evenly over the frames with faces, in bounded memory.

    A sample is a small picture, uint8 RGB [128, 128, 3], levelled by the eyes, with the face's box in its middle.

    Args:
        frames: those of the pictures, if they are kept.
    """

    frames: KeptFrames
    _kept: list[tuple[int, list[tuple[np.ndarray, Callable[[], np.ndarray]]]]] = field(default_factory=list)
    _every: int = 1
    _seen: int = 0

    def offer(self, frame: int, picture: np.ndarray, faces: np.ndarray) -> None:
        """Offer the faces, float32 [n, 9], of the next frame, uint8 RGB [height, width, 3]; most are not kept."""
        if not len(faces):
            return
        if self._seen % self._every == 0:
            largest = faces[np.argsort(-faces[:, 2] * faces[:, 3], kind="stable")[:FACES_PER_PICTURE]]
            samples = [(face, self.frames.later(partial(sample_of, face=face), frame, picture)) for face in largest]
            self._kept.append((frame, samples))
            if len(self._kept) == 2 * SAMPLES:
                self._kept, self._every = self._kept[::2], 2 * self._every
        self._seen += 1

    def of(self, boxes: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
        """Return up to `SAMPLES` samples of one person, spread evenly.

        Args:
            boxes: float32 [frames, 4], the person's box in each grid frame.
            scores: float32 [frames], above 0 in frames with a detection.
        """
        own = [
            samples[best][1]
            for frame, samples in self._kept
            if scores[frame] > 0
            for shared in [overlaps(np.stack([face for face, _ in samples]), boxes[frame])]
            for best in [int(shared.argmax())]
            if shared[best] >= SAME_FACE_OVERLAP
        ]
        count = min(SAMPLES, len(own))
        return [own[(2 * place + 1) * len(own) // (2 * count)]() for place in range(count)]


def sample_of(picture: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Return the sample of a face, float32 [9] of `FaceDetector.detect`, in uint8 RGB [height, width, 3]."""
    view = view_of(face[:4], face[5:], 1.0)
    return cut_view(picture, replace(view, side=2 * float(face[2:4].max())), 2 * BOX_PX)


class YuNet:
    """Confirms faces with the detector YuNet.

    Args:
        path: `face_detection_yunet_2023mar_int8bq.onnx`.

    Sources:
        W. Wu, H. Peng, S. Yu, YuNet: a tiny millisecond-level face detector, 2023.
    """

    def __init__(self, path: Path) -> None:
        self._detector = cv2.FaceDetectorYN.create(str(path), "", (2 * BOX_PX, 2 * BOX_PX), YUNET_SCORE)

    def confirms(self, sample: np.ndarray) -> bool:
        """Return whether YuNet detects a face in the box of a sample."""
        _, faces = self._detector.detect(cv2.cvtColor(sample, cv2.COLOR_RGB2BGR))
        box = np.array([BOX_PX / 2, BOX_PX / 2, BOX_PX, BOX_PX])
        return faces is not None and bool((overlaps(faces, box) >= SAME_FACE_OVERLAP).any())

"""Who a face belongs to: vectors that are alike for pictures of one person, from OpenCV's SFace.

They tell whether people in different shots are the same. Nothing of them is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from extractors.faces.boxes import cut_square, overlaps
from extractors.faces.persons import SAME_PERSON_OVERLAP, Tracklet
from extractors.networks.preprocessing import resized
from extractors.video.grid import KeptFrames

# The network's input, and where both eyes lie in it: the medians of MediaPipe's eyes in pictures that were aligned by
# five points, as those that the network was trained on.
SIDE_PX = 112
EYES_PX = ((38.2, 55.6), (75.3, 55.6))
# Side of what is cut out first, in sides of the box and in px.
CUT_SIDES, CUT_PX = 2.0, 160
# Faces are kept from each EVERY-th frame, and from their first one; from fewer frames once there are more than MOST.
EVERY, MOST, FACES_PER_PICTURE = 6, 4000, 4
# Pictures of a face that are averaged.
SAMPLES = 3
FEATURES = 128


class FaceRecognizer:
    """Describes faces by who they belong to, with SFace, `face_recognition_sface_2021dec_int8bq.onnx`."""

    def __init__(self, model_path: Path | str) -> None:
        self._path = model_path
        self._network: cv2.FaceRecognizerSF | None = None

    def describe(self, faces: list[np.ndarray]) -> np.ndarray:
        """Describe one person by pictures from `FaceLooks`, uint8 BGR [112, 112, 3]: float32 [128], of length 1."""
        if self._network is None:
            self._network = cv2.FaceRecognizerSF.create(str(self._path), "")
        vectors = np.concatenate([self._network.feature(face) for face in faces])
        mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean))


@dataclass
class _Look:
    """One face, a function that returns it compressed, and how well it shows the person: score and frontality."""

    frame: int
    face: np.ndarray
    compressed: Callable[[], np.ndarray]
    quality: float


@dataclass
class FaceLooks:
    """Small aligned pictures of the faces in a video, in bounded memory.

    Args:
        frames: those of the pictures, if they are kept.
    """

    frames: KeptFrames
    _kept: list[_Look] = field(default_factory=list)
    _every: int = EVERY
    _before: np.ndarray | None = None

    def offer(self, frame: int, picture: np.ndarray, faces: np.ndarray) -> None:
        """Offer the faces, float32 [n, 9], of the next frame, uint8 RGB [height, width, 3]; most are not kept."""
        before, self._before = self._before, faces
        for face in faces[np.argsort(-faces[:, 2], kind="stable")[:FACES_PER_PICTURE]]:
            appears = before is None or not len(before) or overlaps(before, face).max() < SAME_PERSON_OVERLAP
            if (appears or frame % self._every == 0) and not np.isnan(face[5:]).any():
                compressed = self.frames.later(partial(_compressed, face=face), frame, picture)
                apart = float(np.hypot(*(face[7:9] - face[5:7])) / max(face[2], 1.0))
                self._kept.append(_Look(frame, face, compressed, float(face[4]) * apart))
        while len(self._kept) > MOST:
            self._every *= 2
            fewer = [look for look in self._kept if look.frame % self._every == 0]
            self._kept = fewer if len(fewer) < len(self._kept) else self._kept[::2]

    def of(self, tracklets: list[Tracklet]) -> list[list[np.ndarray]]:
        """Return the best pictures of each tracklet, up to SAMPLES, uint8 BGR [112, 112, 3]; none if none was kept."""
        owners = {
            (frame, *face[:4]): number for number, one in enumerate(tracklets) for frame, face in one.detections()
        }
        looks: list[list[_Look]] = [[] for _ in tracklets]
        for look in self._kept:
            owner = owners.get((look.frame, *look.face[:4].tolist()))
            if owner is not None:
                looks[owner].append(look)
        return [
            [
                np.asarray(cv2.imdecode(look.compressed(), cv2.IMREAD_COLOR))
                for look in sorted(some, key=lambda one: -one.quality)[:SAMPLES]
            ]
            for some in looks
        ]


def _compressed(picture: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Cut out a face with both eyes at EYES_PX, [112, 112], as a JPEG, uint8 [n]."""
    x, y, width, height = face[:4].tolist()
    side = max(2, round(CUT_SIDES * max(width, height)))
    left, top = round(x + (width - side) / 2), round(y + (height - side) / 2)
    cut = resized(cut_square(picture, (left, top, side)), (CUT_PX, CUT_PX))
    right_eye, left_eye = (face[5:9].reshape(2, 2) - [left, top]) * (CUT_PX / side)
    # As complex numbers, turning and scaling is one factor.
    goals = [complex(*eye) for eye in EYES_PX]
    between = complex(*(left_eye - right_eye)) or 1j
    turn = (goals[1] - goals[0]) / between
    move = sum(goals) / 2 - turn * complex(*(left_eye + right_eye)) / 2
    place = np.array([[turn.real, -turn.imag, move.real], [turn.imag, turn.real, move.imag]])
    aligned = cv2.warpAffine(cut, place, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.imencode(".jpg", cv2.cvtColor(aligned, cv2.COLOR_RGB2BGR))[1])

"""BlazeFace full range, which finds faces up to some five metres away, run by OpenCV.

MediaPipe Tasks cannot run it: its graph has the anchors of the short-range network built in.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from extractors.faces.boxes import ROW, overlaps

SIDE_PX = 192
# One anchor in the middle of each cell of 4 px.
CELLS = SIDE_PX // 4
SCORES, PLACES = "reshaped_classifier_face_4", "reshaped_regressor_face_4"
# Its boxes are larger than those of the short-range network by this factor, and lie higher by this share of theirs:
# medians over twenty recordings.
LARGER, HIGHER = 1.08, 0.05
# Of the 16 numbers of a place: centre and size of the box, then six points, of which the eyes come first.
BOX_NUMBERS, EYE_NUMBERS = slice(0, 4), slice(4, 8)


class FullRangeBlazeFace:
    """Finds faces in pictures. A fresh object has run nothing and needs no closing.

    Args:
        model_path: `face_detection_full_range.tflite`.
        min_score: lower scores are left out, 0 to 1.
        same_face_overlap: candidates that share more of their union than this are one face.

    Sources:
        V. Bazarevsky et al., BlazeFace: sub-millisecond neural face detection on mobile GPUs, 2019, for the network and
        for averaging candidates; MediaPipe, modules/face_detection/face_detection_full_range.pbtxt, for its anchors.
    """

    def __init__(self, model_path: Path | str, *, min_score: float, same_face_overlap: float) -> None:
        self._network = cv2.dnn.readNetFromTFLite(str(model_path))
        self._min_score, self._same_face_overlap = min_score, same_face_overlap
        rows, columns = np.mgrid[:CELLS, :CELLS]
        self._anchors = (np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5) * (SIDE_PX / CELLS)

    def look(self, image: np.ndarray) -> np.ndarray:
        """Find the faces in one picture, uint8 RGB [height, width, 3].

        Returns:
            float32 [n, 9]: x, y, width, height in px, score, right eye, left eye, as of `FaceDetector.detect`. Boxes
            are those that the short-range network would give.
        """
        height, width = image.shape[:2]
        # The whole picture in the middle of a black square.
        scale = SIDE_PX / max(height, width)
        margin = (SIDE_PX - scale * np.array([width, height])) / 2
        place = np.column_stack([np.eye(2) * scale, margin + (scale - 1) / 2])
        small = cv2.warpAffine(image, place, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR)
        self._network.setInput(cv2.dnn.blobFromImage(small, 1 / 127.5, mean=(127.5, 127.5, 127.5)))
        logits, places = self._network.forward([SCORES, PLACES])
        scores = 1 / (1 + np.exp(-np.clip(logits.reshape(-1).astype(np.float64), -100, 100)))
        candidates = np.flatnonzero(scores >= self._min_score)
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
        found = places.reshape(len(scores), -1)[candidates]
        sizes = found[:, BOX_NUMBERS][:, 2:] / LARGER
        centres = found[:, BOX_NUMBERS][:, :2] + self._anchors[candidates] + sizes * (0, HIGHER)
        eyes = found[:, EYE_NUMBERS] + np.tile(self._anchors[candidates], 2)
        rows = np.column_stack([centres - sizes / 2, sizes, scores[candidates], eyes])
        faces = _merged(rows, self._same_face_overlap)
        faces[:, :2], faces[:, 2:4] = (faces[:, :2] - margin) / scale, faces[:, 2:4] / scale
        faces[:, 5:] = (faces[:, 5:] - np.tile(margin, 2)) / scale
        return faces.astype(np.float32)


def _merged(candidates: np.ndarray, overlap: float) -> np.ndarray:
    """Average candidates of one face by their scores, and keep the best score; [n, 9], best first."""
    faces = []
    while len(candidates):
        same = overlaps(candidates, candidates[0]) > overlap
        same[0] = True
        face = np.average(candidates[same], axis=0, weights=candidates[same, 4])
        face[4] = candidates[0, 4]
        faces.append(face)
        candidates = candidates[~same]
    return np.array(faces).reshape(-1, ROW)

"""Faces in single pictures, detected by MediaPipe's BlazeFace, with a second look at doubtful ones."""

from __future__ import annotations

import math
import threading
import weakref
from pathlib import Path

import cv2
import numpy as np

from extractors.faces.blazeface import FullRangeBlazeFace
from extractors.faces.boxes import ROW, cut_square, overlaps
from extractors.faces.offline import OfflineThread
from extractors.faces.second_opinion import YuNet
from extractors.faces.settings import FaceModels, FaceSettings

# MediaPipe scales the whole picture to 128 x 128 px. Measured on known faces pasted into 1280 x 720: boxes narrower
# than this share of the longer side are up to twice as wide as the face.
RELIABLE_SHARE = 0.15
# Side of the area of the second look, in sides of the doubtful box: real faces scored highest at 2.5.
SECOND_LOOK_SIDES = 2.5
# Limits the cost of pictures full of weak candidates (foliage, lettering): a second look takes 1 to 2 ms.
MAX_SECOND_LOOKS = 12
# The full-range network takes as long as four second looks, and sees a crowd better.
MANY_DOUBTFUL = 4
# What the short-range network takes for a face with less than this is often a group of small faces, or a body.
WEAK_SCORE = 0.5
SAME_FACE_OVERLAP = 0.3
# The middle 90% of a face's pixels span at least this much of 255 grey levels, or nothing can be seen of it: the
# detector finds faces in frames that a fade has left nearly black or white. Faces of dim recordings span over 70.
MIN_CONTRAST = 32

DEFAULTS = FaceSettings()


class FaceDetector:
    """Detects all faces in a picture. Use it as a context manager; it is closed at the latest when Python ends.

    MediaPipe runs in a thread without a network, see `extractors.faces.offline`.

    Args:
        models: the files of the networks; `full_range` may be None with settings.model "short".
        settings: model, candidate_score, sure_score and min_score are used here.
    """

    def __init__(self, models: FaceModels, settings: FaceSettings = DEFAULTS) -> None:
        self._settings = settings
        self._full_range: FullRangeBlazeFace | None = None
        if settings.model != "short":
            if models.full_range is None:
                raise ValueError(f"faces.model {settings.model} needs the file of the full-range network")
            self._full_range = FullRangeBlazeFace(
                models.full_range, min_score=settings.candidate_score, same_face_overlap=SAME_FACE_OVERLAP
            )
        self._check = YuNet(models.check)
        self._thread = OfflineThread()
        try:
            self._thread.call(self._start, models.short_range)
        except BaseException:
            self._thread.close()
            raise
        self._is_open = True
        # MediaPipe cannot be closed once Python has stopped its threads, which comes before `atexit`: this is how
        # concurrent.futures joins its own. A weak reference lets detectors that are no longer used go.
        detector = weakref.ref(self)

        def close() -> None:
            still_used = detector()
            if still_used is not None:
                still_used.close()

        threading._register_atexit(close)  # type: ignore[attr-defined]

    def _start(self, model_path: Path) -> None:
        # Importing MediaPipe takes seconds, and many programs that read these settings detect no faces.
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        self._image = mediapipe.Image
        self._rgb = mediapipe.ImageFormat.SRGB
        options = vision.FaceDetectorOptions(
            base_options=BaseOptions(model_asset_path=str(model_path)),
            running_mode=vision.RunningMode.IMAGE,
            min_detection_confidence=self._settings.candidate_score,
            min_suppression_threshold=SAME_FACE_OVERLAP,
        )
        self._detector = vision.FaceDetector.create_from_options(options)

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """Release MediaPipe's threads and memory; nothing happens the second time."""
        if not self._is_open:
            return
        self._is_open = False
        self._thread.call(self._detector.close)
        self._thread.close()

    def detect(self, image: np.ndarray) -> np.ndarray:
        """Find the faces in one picture.

        A face that is small or scores below `sure_score` gets a second look in an enlarged area around it: this finds
        small faces, corrects their boxes, and drops most false detections. With settings.model "auto", the full-range
        network finds the candidates of pictures in which the short-range network is sure of nobody, or sees a crowd.

        Args:
            image: uint8 RGB [height, width, 3].

        Returns:
            float32 [n, 9]: x, y, width, height in px (a box may extend beyond the edge), score, then x, y of the right
            eye and of the left eye in px, as the person names them; best first; only scores of at least `min_score`,
            and no faces that are nearly black or white.
        """
        faces, is_sure = self._faces_nearby(image) if self._settings.model != "full" else (np.empty((0, ROW)), False)
        if self._full_range is not None and not is_sure:
            faces = self._faces_far_away(image, self._full_range)
        faces = faces[faces[:, 4] >= self._settings.min_score]
        return faces[[_is_visible(image, face) for face in faces]]

    def confirms(self, sample: np.ndarray) -> bool:
        """Return whether the second detector takes a detected face for a face, too."""
        return self._check.confirms(sample)

    def _faces_nearby(self, image: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return what the short-range network finds, and whether it is sure of it."""
        found = self._look(image)
        small = found[:, 2] < RELIABLE_SHARE * max(image.shape[:2])
        doubtful = (found[:, 4] < self._settings.sure_score) | small
        if self._full_range is not None and (
            not len(found) or found[0, 4] < WEAK_SCORE or doubtful.sum() > MANY_DOUBTFUL
        ):
            return found, False
        again = [self._second_look(image, face) for face in found[doubtful][:MAX_SECOND_LOOKS]]
        faces = _distinct(np.concatenate([found[~doubtful], *again, found[doubtful][MAX_SECOND_LOOKS:]]))
        return faces, len(faces) > 0 and bool(faces[0, 4] >= self._settings.sure_score)

    def _faces_far_away(self, image: np.ndarray, full_range: FullRangeBlazeFace) -> np.ndarray:
        """Return the full-range network's candidates as the short-range network sees them from nearby."""
        found = full_range.look(image)
        doubtful = found[:, 4] < self._settings.min_score
        # Of what scores more it is sure by itself: it takes nothing else for a face, and knows small ones and profiles.
        again = [self._second_look(image, face) for face in found[doubtful][:MAX_SECOND_LOOKS]]
        return _distinct(np.concatenate([found[~doubtful], *again]))

    def _look(self, image: np.ndarray) -> np.ndarray:
        # MediaPipe ignores strides and mistakes the padding of rows for pixels.
        picture = self._image(image_format=self._rgb, data=np.ascontiguousarray(image))
        height, width = image.shape[:2]
        rows = [
            (
                *(box.origin_x, box.origin_y, box.width, box.height, detection.categories[0].score),
                # MediaPipe's first two key points, as shares of the picture.
                *(at for point in detection.keypoints[:2] for at in (point.x * width, point.y * height)),
            )
            for detection in self._thread.call(self._detector.detect, picture).detections
            for box in [detection.bounding_box]
        ]
        faces = np.array(rows, dtype=np.float32).reshape(-1, ROW)
        return faces[np.argsort(-faces[:, 4], kind="stable")]

    def _second_look(self, image: np.ndarray, face: np.ndarray) -> np.ndarray:
        """Return the best detection centred within the doubtful box, float32 [1, 9]; [0, 9] if there is none."""
        x, y, width, height = face[:4]
        centre_x, centre_y = x + width / 2, y + height / 2
        half = SECOND_LOOK_SIDES * max(width, height) / 2
        left, top = max(0, int(centre_x - half)), max(0, int(centre_y - half))
        part = image[top : int(np.ceil(centre_y + half)), left : int(np.ceil(centre_x + half))]
        if part.size == 0:
            return face[None][:0]
        found: np.ndarray = self._look(part) + np.array([left, top, 0, 0, 0, left, top, left, top], dtype=np.float32)
        off_x = np.abs(found[:, 0] + found[:, 2] / 2 - centre_x)
        off_y = np.abs(found[:, 1] + found[:, 3] / 2 - centre_y)
        centred: np.ndarray = found[(off_x < width / 2) & (off_y < height / 2)]
        return centred[:1]


def _distinct(faces: np.ndarray) -> np.ndarray:
    """Keep the better of any two boxes that overlap by more than SAME_FACE_OVERLAP of their union; best first."""
    kept: list[np.ndarray] = []
    for face in faces[np.argsort(-faces[:, 4], kind="stable")]:
        if not kept or overlaps(np.stack(kept), face).max() <= SAME_FACE_OVERLAP:
            kept.append(face)
    return np.array(kept, dtype=np.float32).reshape(-1, ROW)


def _is_visible(image: np.ndarray, face: np.ndarray) -> bool:
    """Return whether the pixels of a face's box have contrast."""
    x, y, width, height = face[:4].tolist()
    part = cut_square(image, (round(x), round(y), max(1, round(max(width, height)))))
    step = max(1, part.shape[0] // 32)
    grey = cv2.cvtColor(np.ascontiguousarray(part[::step, ::step]), cv2.COLOR_RGB2GRAY)
    # Most faces have that contrast within the percentiles already, which take NumPy much longer than sorting.
    levels = np.sort(grey, axis=None)
    tail = math.ceil(0.05 * (len(levels) - 1))
    if int(levels[-1 - tail]) - int(levels[tail]) >= MIN_CONTRAST:
        return True
    low, high = np.percentile(grey, [5, 95])
    return bool(high - low >= MIN_CONTRAST)

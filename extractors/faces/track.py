"""The track of the main person's face through a video, from the faces in each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from extractors.errors import VideoError
from extractors.faces.detections import pictures_with_faces
from extractors.faces.persons import Tracklet, people, tracklets
from extractors.faces.quality import Quality, check_quality, quality_of
from extractors.faces.recognizer import FEATURES, FaceLooks, FaceRecognizer
from extractors.faces.second_opinion import FaceSamples
from extractors.faces.settings import FaceSettings
from extractors.video.decoding import Tally
from extractors.video.grid import KeptFrames, grid_frames
from extractors.video.settings import DEFAULT_LIMITS, Limits, VideoSettings
from extractors.video.shots import ShotDetector, Shots

FACE_ROW = (
    *("x", "y", "width", "height", "score"),
    *("right_eye_x", "right_eye_y", "left_eye_x", "left_eye_y"),
    "shot",
)


@dataclass(frozen=True)
class FaceTrack:
    """The main person's face at each point of the frame grid.

    Args:
        boxes: float32 [F, 4], x, y, width, height in px of the upright picture; NaN in frames without a known face.
        scores: float32 [F], detector's score, 0 to 1, or one interpolated by `pictures_with_faces`; 0 in a gap that is
            filled, or if the box is unknown.
        eyes: float32 [F, 4], x, y of the person's right eye, then of the left, in px of the upright picture; NaN where
            they are unknown.
        shots: int32 [F], number of each frame's shot; begins with 0 and never decreases. Each frame of a dissolve, each
            blank one and each that interrupts a shot has a number of its own.
        quality: facts about the whole video; None if only the boxes matter.
    """

    boxes: np.ndarray
    scores: np.ndarray
    eyes: np.ndarray
    shots: np.ndarray
    quality: Quality | None = None

    @property
    def tracked(self) -> np.ndarray:
        """Bool [F]: True if the box is known, by detection or interpolation."""
        unknown: np.ndarray = np.isnan(self.boxes[:, 0])
        return ~unknown

    @property
    def mixed(self) -> np.ndarray:
        """Bool [F]: True in frames that `Shots` calls mixed or covered, which are shots of one frame."""
        return np.asarray((np.bincount(self.shots)[self.shots] == 1) & (self.shots > 0))

    @property
    def coverage(self) -> float:
        """Share of grid frames in which the main person's face was detected, 0 to 1."""
        return float(np.mean(self.scores > 0)) if len(self.scores) else 0.0

    def to_rows(self) -> np.ndarray:
        """Return float32 [F, 10]: boxes, scores, eyes and shots side by side, as `FACE_ROW` names them."""
        columns = (self.boxes, self.scores[:, None], self.eyes, self.shots[:, None])
        return np.concatenate(columns, axis=1, dtype=np.float32)

    @classmethod
    def from_rows(cls, rows: np.ndarray, quality: Quality | None = None) -> FaceTrack:
        """Rebuild a track from `to_rows` and facts about the video. Raises ValueError unless the rows are [F, 10]."""
        if rows.ndim != 2 or rows.shape[1] != len(FACE_ROW):
            raise ValueError(f"rows of a face track must be [frames, {len(FACE_ROW)}], not {list(rows.shape)}")
        rows = rows.astype(np.float32, copy=False)
        return cls(rows[:, :4], rows[:, 4], rows[:, 5:9], rows[:, 9].astype(np.int32), quality)


def follow(person: Sequence[Tracklet], shots: Shots, *, fps: float, settings: FaceSettings) -> FaceTrack:
    """Follow one person through a video.

    Gaps of up to settings.max_gap_s within a tracklet are interpolated linearly; boxes and eyes are then averaged over
    settings.smoothing_s. Neither crosses a cut.
    """
    boxes, eyes = np.full((2, len(shots.numbers), 4), np.nan, dtype=np.float32)
    scores = np.zeros(len(shots.numbers), dtype=np.float32)
    longest = 1 + int(settings.max_gap_s * fps + 1e-9)
    width = 2 * int(settings.smoothing_s * fps / 2) + 1
    for tracklet in person:
        scores[tracklet.frames] = tracklet.faces[:, 4]
        for part in _parts(tracklet, longest):
            _fill(boxes, part.frames, part.faces[:, :4], width)
            known = ~np.isnan(part.faces[:, 5:]).any(axis=1)
            _fill(eyes, part.frames[known], part.faces[known, 5:], width)
    return FaceTrack(boxes, scores, eyes, shots.separate)


class Detector(Protocol):
    """Finds faces in pictures, as `extractors.faces.detector.FaceDetector` does."""

    def detect(self, image: np.ndarray) -> np.ndarray:
        """See `FaceDetector.detect`."""

    def confirms(self, sample: np.ndarray) -> bool:
        """See `FaceDetector.confirms`."""


def track_faces(
    path: Path | str,
    detector: Detector,
    video_settings: VideoSettings,
    face_settings: FaceSettings,
    limits: Limits = DEFAULT_LIMITS,
    recognizer: FaceRecognizer | None = None,
    kept: KeptFrames | None = None,
) -> FaceTrack:
    """Decode a video once, follow its main person, and refuse it if its quality is too low.

    The main person is the one whose face is seen longest and largest.

    Args:
        video_settings: how the video is sampled, and how much of it may be missing.
        face_settings: how often faces are detected, how gaps are filled, and which videos are refused.
        recognizer: tells which faces in different shots, or lost and found elsewhere, are one person's. Without one,
            each of them counts as somebody else's.
        kept: as in `grid_frames`.

    Raises:
        VideoError: stage "decode" as in `grid_frames`; stage "faces", reason "no_face" if no face is found at all,
            and those of `check_quality`.
    """
    detections: list[np.ndarray] = []
    kept = KeptFrames(0) if kept is None else kept
    samples, looks, cutter, tally = FaceSamples(kept), FaceLooks(kept), ShotDetector(), Tally()
    previous, repeated = None, 0
    frames = grid_frames(path, video_settings.fps, thresholds=video_settings, limits=limits, tally=tally, kept=kept)
    for frame, (picture, faces) in enumerate(pictures_with_faces(frames, detector.detect, face_settings)):
        repeated += picture is previous
        detections.append(faces)
        samples.offer(frame, picture, faces)
        looks.offer(frame, picture, faces)
        cutter.add(picture, faces)
        previous = picture
    shots = cutter.shots()
    found = tracklets(detections, shots.parts, fps=video_settings.fps)
    if not found:
        raise VideoError("faces", "no_face", f"no face in any frame ({len(detections)} looked at)")
    everyone = people(found, _vectors(found, looks, recognizer))
    track = follow(everyone[0], shots, fps=video_settings.fps, settings=face_settings)
    quality = quality_of(
        track.scores,
        np.array([len(faces) for faces in detections]),
        [detector.confirms(sample) for sample in samples.of(track.boxes, track.scores)],
        fps=video_settings.fps,
        frames_by_person=[sum(len(one.frames) for one in person) for person in everyone],
        cuts=shots.cuts,
        decoded_share=tally.share,
        repeated_share=repeated / len(detections),
    )
    check_quality(quality, face_settings)
    return replace(track, quality=quality)


def _vectors(found: list[Tracklet], looks: FaceLooks, recognizer: FaceRecognizer | None) -> np.ndarray:
    """Describe tracklets, float32 [n, 128]; NaN where nothing is known. A single one needs no description."""
    vectors = np.full((len(found), FEATURES), np.nan, np.float32)
    if recognizer is not None and len(found) > 1:
        for number, faces in enumerate(looks.of(found)):
            if faces:
                vectors[number] = recognizer.describe(faces)
    return vectors


def _parts(tracklet: Tracklet, longest: int) -> list[Tracklet]:
    """Split a tracklet at gaps of more than `longest` frames between two detections."""
    cuts = np.flatnonzero(np.diff(tracklet.frames) > longest) + 1
    return [
        Tracklet(frames, faces)
        for frames, faces in zip(np.split(tracklet.frames, cuts), np.split(tracklet.faces, cuts), strict=True)
    ]


def _fill(target: np.ndarray, frames: np.ndarray, values: np.ndarray, width: int) -> None:
    """Write [n, 4] at n frames, with straight lines between them, into [frames, 4]; then smooth what was written."""
    if len(frames):
        every = np.arange(frames[0], frames[-1] + 1)
        lines = np.stack([np.interp(every, frames, column) for column in values.T], axis=1)
        target[every] = _smoothed(lines, width)


def _smoothed(boxes: np.ndarray, width: int) -> np.ndarray:
    """Average [n, 4] over `width` (odd) neighbours, over fewer at the ends, always equally many on both sides."""
    count = len(boxes)
    sums = np.concatenate([np.zeros((1, 4)), np.cumsum(boxes, axis=0, dtype=np.float64)])
    index = np.arange(count)
    half = np.minimum(width // 2, np.minimum(index, count - 1 - index))
    return np.asarray((sums[index + half + 1] - sums[index - half]) / (2 * half + 1)[:, None])

"""The track of the main person's face through a video, from the faces in each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from extractors.errors import VideoError
from extractors.faces.persons import Person, main_sequence, persons
from extractors.faces.quality import Quality, check_quality, quality_of
from extractors.faces.second_opinion import FaceSample, FaceSamples
from extractors.faces.settings import FaceSettings
from extractors.video.decoding import Tally
from extractors.video.grid import grid_frames
from extractors.video.limits import DEFAULT_LIMITS, Limits
from extractors.video.settings import VideoSettings

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
        scores: float32 [F], detector's score, 0 to 1; 0 if the box is interpolated or unknown.
        eyes: float32 [F, 4], x, y of the person's right eye, then of the left, in px of the upright picture; NaN where
            they are unknown.
        shots: int32 [F], number of the shot that each frame belongs to; begins with 0 and never decreases.
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
    def coverage(self) -> float:
        """Share of grid frames in which the main person's face was detected, 0 to 1."""
        return float(np.mean(self.scores > 0)) if len(self.scores) else 0.0

    def to_rows(self) -> np.ndarray:
        """Return float32 [F, 10]: boxes, scores, eyes and shots side by side, as `FACE_ROW` names them."""
        columns = (self.boxes, self.scores[:, None], self.eyes, self.shots[:, None])
        return np.concatenate(columns, axis=1, dtype=np.float32)

    @classmethod
    def from_rows(cls, rows: np.ndarray, quality: Quality | None = None) -> FaceTrack:
        """Rebuild a track from the result of `to_rows` and the facts about the video.

        Raises:
            ValueError: the rows are not [F, 10].
        """
        if rows.ndim != 2 or rows.shape[1] != len(FACE_ROW):
            raise ValueError(f"rows of a face track must be [frames, {len(FACE_ROW)}], not {list(rows.shape)}")
        rows = rows.astype(np.float32, copy=False)
        return cls(rows[:, :4], rows[:, 4], rows[:, 5:9], rows[:, 9].astype(np.int32), quality)


def main_person(
    detections: Sequence[np.ndarray], shots: np.ndarray, *, fps: float, settings: FaceSettings
) -> FaceTrack:
    """Follow the person whose face is visible longest and largest; no other mixes in while that person is visible.

    Overlap from frame to frame joins detections into persons, and the main person is a sequence of persons that follow
    each other in time: just one, unless cuts move the picture. Gaps of up to settings.max_gap_s within one person
    are interpolated linearly; boxes and eyes are then averaged over settings.smoothing_s, never across a cut.

    Args:
        detections: for each grid frame float32 [n, 9], as `FaceDetector.detect` returns them.
        shots: int32 [F], number of each frame's shot.
        fps: grid frames per second.
        settings: max_gap_s and smoothing_s are used here.
    """
    boxes, eyes = np.full((2, len(detections), 4), np.nan, dtype=np.float32)
    scores = np.zeros(len(detections), dtype=np.float32)
    longest = 1 + int(settings.max_gap_s * fps + 1e-9)
    width = 2 * int(settings.smoothing_s * fps / 2) + 1
    for person in main_sequence(persons(detections, shots, fps=fps), fps=fps):
        scores[person.frames] = person.faces[:, 4]
        for part in _parts(person, longest):
            _fill(boxes, part.frames, part.faces[:, :4], width)
            known = ~np.isnan(part.faces[:, 5:]).any(axis=1)
            _fill(eyes, part.frames[known], part.faces[known, 5:], width)
    return FaceTrack(boxes, scores, eyes, shots)


class Detector(Protocol):
    """Finds faces in pictures, as `extractors.faces.detector.FaceDetector` does."""

    def detect(self, image: np.ndarray) -> np.ndarray:
        """See `FaceDetector.detect`."""

    def confirms(self, sample: FaceSample) -> bool:
        """See `FaceDetector.confirms`."""


def track_faces(
    path: Path | str,
    detector: Detector,
    video_settings: VideoSettings,
    face_settings: FaceSettings,
    limits: Limits = DEFAULT_LIMITS,
) -> FaceTrack:
    """Decode a video once, follow its main person, and refuse it if its quality is too low.

    Raises:
        VideoError: stage "decode" as in `grid_frames`; stage "faces", reason "no_face" if no face is found at all,
            and those of `check_quality`.
    """
    detections: list[np.ndarray] = []
    samples, tally = FaceSamples(), Tally()
    previous, repeated = None, 0
    frames = grid_frames(path, video_settings.fps, thresholds=video_settings, limits=limits, tally=tally)
    for frame, picture in enumerate(frames):
        if picture is previous:
            repeated += 1
            detections.append(detections[-1])
        else:
            detections.append(detector.detect(picture))
        samples.offer(frame, picture, detections[-1])
        previous = picture
    shots = np.zeros(len(detections), np.int32)
    track = main_person(detections, shots, fps=video_settings.fps, settings=face_settings)
    if track.coverage == 0.0:
        raise VideoError("faces", "no_face", f"no face in any frame ({len(detections)} looked at)")
    quality = quality_of(
        track.scores,
        np.array([len(faces) for faces in detections]),
        [detector.confirms(sample) for sample in samples.of(track.boxes, track.scores)],
        fps=video_settings.fps,
        decoded_share=tally.share,
        repeated_share=repeated / len(detections),
    )
    check_quality(quality, face_settings)
    return replace(track, quality=quality)


def _parts(person: Person, longest: int) -> list[Person]:
    """Split a person at gaps of more than `longest` frames between two detections."""
    cuts = np.flatnonzero(np.diff(person.frames) > longest) + 1
    return [
        Person(frames, faces)
        for frames, faces in zip(np.split(person.frames, cuts), np.split(person.faces, cuts), strict=True)
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
    averages: np.ndarray = (sums[index + half + 1] - sums[index - half]) / (2 * half + 1)[:, None]
    return averages

"""Faces that are detected in some pictures of a video are known in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from extractors.faces.boxes import overlaps
from extractors.faces.detections import pictures_with_faces
from extractors.faces.detector import FaceDetector
from extractors.faces.settings import FaceSettings
from extractors.faces.track import track_faces
from extractors.video.grid import grid_frames
from extractors.video.settings import VideoSettings

EVERY = [1, 2, 3, 4, 5]


def face(x: float, *, y: float = 100.0, side: float = 80.0, score: float = 0.9) -> list[float]:
    return [x, y, side, side, score, x + 0.3 * side, y + 0.4 * side, x + 0.7 * side, y + 0.4 * side]


class Video:
    """Pictures of one scene, and the faces that are in each."""

    def __init__(self, truth: Sequence[list[list[float]]], flashes: Sequence[int] = ()) -> None:
        scene = np.random.default_rng(0).integers(0, 256, (90, 160, 3)).astype(np.uint8)
        self.pictures = [np.full_like(scene, 255) if k in flashes else scene.copy() for k in range(len(truth))]
        self.truth = [np.array(faces, np.float32).reshape(-1, 9) for faces in truth]
        self.asked: list[int] = []

    def detect(self, picture: np.ndarray) -> np.ndarray:
        (number,) = (k for k, one in enumerate(self.pictures) if one is picture)
        self.asked.append(number)
        return self.truth[number]

    def faces(self, every: int, times: Sequence[int] | None = None) -> list[np.ndarray]:
        """The faces found in each picture; pictures are shown `times` in succession."""
        times = [1] * len(self.pictures) if times is None else times
        shown = [picture for picture, count in zip(self.pictures, times, strict=True) for _ in range(count)]
        found = list(pictures_with_faces(iter(shown), self.detect, FaceSettings(detect_every=every)))
        assert all(picture is expected for (picture, _), expected in zip(found, shown, strict=True))
        return [faces for _, faces in found]


def check_exact(found: list[np.ndarray], truth: list[np.ndarray]) -> None:
    for faces, expected in zip(found, truth, strict=True):
        np.testing.assert_allclose(faces, expected, rtol=1e-5)


@pytest.mark.parametrize("every", EVERY)
def test_faces_that_move_evenly_are_known_everywhere_from_few_detections(every):
    video = Video([[face(100 + 0.7 * k, score=0.85 + 0.001 * k), face(400, y=50 + 0.5 * k)] for k in range(61)])
    check_exact(video.faces(every), video.truth)
    assert video.asked == list(range(0, 61, every))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("every", EVERY)
def test_no_picture_is_lost_at_the_end(every, count):
    video = Video([[face(100)]] * count)
    check_exact(video.faces(every), video.truth)
    assert sorted(set(video.asked)) == video.asked
    assert video.asked[-1:] == [count - 1][:count]


@pytest.mark.parametrize("every", EVERY)
def test_repeated_pictures_have_the_same_faces_and_are_looked_at_once(every):
    times = [1, 3, 1, 2, 2, 1, 1, 4, 1, 1, 2]
    video = Video([[face(100 + k)] for k in range(len(times))])
    expected = [faces for faces, count in zip(video.truth, times, strict=True) for _ in range(count)]
    check_exact(video.faces(every, times), expected)
    assert sorted(set(video.asked)) == sorted(video.asked)


@pytest.mark.parametrize("at", range(9, 15))
@pytest.mark.parametrize("every", EVERY)
def test_a_jump_is_found_where_it_is(every, at):
    video = Video([[face(100 if k < at else 150)] for k in range(30)])
    check_exact(video.faces(every), video.truth)
    assert len(video.asked) <= 30 / every + every + 1


@pytest.mark.parametrize("at", range(9, 15))
@pytest.mark.parametrize("every", EVERY)
def test_a_face_that_comes_or_goes_does_so_where_it_is_seen(every, at):
    coming = Video([[face(100), *([face(300)] if k >= at else [])] for k in range(30)])
    check_exact(coming.faces(every), coming.truth)
    going = Video([[face(100)] if k < at else [] for k in range(30)])
    check_exact(going.faces(every), going.truth)


@pytest.mark.parametrize("faces", [[], [face(100, score=0.75)]], ids=["nobody", "doubtful"])
@pytest.mark.parametrize("every", EVERY)
def test_where_nobody_or_a_doubtful_face_is_seen_every_picture_is_looked_at(every, faces):
    video = Video([faces] * 20)
    check_exact(video.faces(every), video.truth)
    assert sorted(video.asked) == list(range(20))


@pytest.mark.parametrize("at", range(9, 15))
@pytest.mark.parametrize("every", EVERY)
def test_a_flash_shows_no_face_although_the_pictures_around_it_do(every, at):
    video = Video([[face(100)] if k != at else [] for k in range(30)], flashes=[at])
    check_exact(video.faces(every), video.truth)


def test_two_people_are_told_apart_when_their_order_changes():
    video = Video([[face(100), face(400)][:: 1 if k < 10 else -1] for k in range(20)])
    for faces in video.faces(5):
        assert sorted(faces[:, 0].tolist()) == [100, 400]


class Counting:
    """A detector that counts the pictures that it looks at."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector, self.looks = detector, 0

    def detect(self, image: np.ndarray) -> np.ndarray:
        self.looks += 1
        return self.detector.detect(image)

    def confirms(self, sample: np.ndarray) -> bool:
        return self.detector.confirms(sample)


def test_the_track_of_a_real_person_hardly_changes_with_half_of_the_detections(
    corpus: Path, detector: FaceDetector, monkeypatch: pytest.MonkeyPatch
):
    pictures = list(islice(grid_frames(corpus / "fi_v2" / "9KAqOrdiZ4I.002.mp4", 25.0, thresholds=None), 100))
    monkeypatch.setattr("extractors.faces.track.grid_frames", lambda *_, **__: iter(pictures))
    counting = Counting(detector)
    tracks, looks = [], []
    for every in (1, 3):
        counting.looks = 0
        tracks.append(track_faces("clip", counting, VideoSettings(), FaceSettings(detect_every=every)))
        looks.append(counting.looks)
    assert looks[0] > 90
    assert looks[1] < 0.6 * looks[0]
    assert overlaps(tracks[0].boxes, tracks[1].boxes).min() > 0.93
    assert tracks[0].quality == tracks[1].quality

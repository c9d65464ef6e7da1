"""The detector finds real faces in their places, even small ones, in the picture's own pixels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from extractors.faces.detector import FaceDetector
from extractors.faces.settings import FaceModels, FaceSettings
from extractors.video.grid import grid_frames


@pytest.fixture(scope="module", params=["short", "full"])
def single(request, face_models: FaceModels) -> Iterator[FaceDetector]:
    """A detector with one network for candidates."""
    with FaceDetector(face_models, FaceSettings(model=request.param)) as detector:
        yield detector


@pytest.fixture(scope="module")
def photographs(corpus: Path) -> list[np.ndarray]:
    """Of three people, uint8 RGB [150, 150, 3] each; the face fills six sevenths of each side."""
    return [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in sorted((corpus / "stills").rglob("*.jpg"))]


def wall_of(photographs: list[np.ndarray], count: int, across: int) -> tuple[np.ndarray, np.ndarray]:
    """Photographs side by side, uint8 RGB [720, 1280, 3], and the middle of each, [count, 2]."""
    wall = np.full((720, 1280, 3), 90, np.uint8)
    width, height = 1280 // across, 720 // -(-count // across)
    side = int(0.8 * min(width, height))
    middles = []
    for place in range(count):
        row, column = divmod(place, across)
        x, y = column * width + (width - side) // 2, row * height + (height - side) // 2
        picture = photographs[place % len(photographs)]
        wall[y : y + side, x : x + side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        middles.append((x + side / 2, y + side / 2))
    return wall, np.array(middles)


@pytest.fixture(scope="module")
def portrait(corpus: Path) -> np.ndarray:
    """First frame of single_face.mp4, uint8 RGB [360, 640, 3]."""
    return next(grid_frames(corpus / "plain" / "single_face.mp4", 25.0)).copy()


# Read off single_face.mp4 by eye, px: left eye, right eye, middle of the mouth, tip of the chin.
LANDMARKS = {
    0: [(260, 170), (330, 167), (300, 252), (300, 303)],
    20: [(256, 160), (327, 158), (297, 236), (297, 293)],
    40: [(256, 156), (326, 153), (297, 231), (293, 290)],
    59: [(260, 162), (331, 160), (302, 240), (300, 297)],
}


def test_nothing_is_found_in_an_empty_picture(detector):
    found = detector.detect(np.zeros((120, 160, 3), np.uint8))
    assert found.shape == (0, 9)
    assert found.dtype == np.float32


@pytest.mark.parametrize("width", [360, 408, 427, 639, 640])
def test_pictures_of_any_width_and_memory_layout_give_the_same_box(detector, portrait, width):
    left = (640 - width) // 2
    part = portrait[:, left : left + width]  # rows are not contiguous
    (whole,), (found,) = detector.detect(portrait), detector.detect(part)
    assert not part.flags.c_contiguous or width == 640
    assert found[:4] + np.array([left, 0, 0, 0]) == pytest.approx(whole[:4], abs=12)
    assert np.array_equal(detector.detect(part.copy()), found[None])


@pytest.mark.parametrize("share", [0.25, 0.15, 0.10, 0.08])
def test_small_faces_are_found_with_boxes_of_their_own_size(detector, portrait, share):
    ((x, y, width, height, *_),) = detector.detect(portrait).tolist()
    scale = share * 1280 / width
    small = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((720, 1280, 3), 110, np.uint8)
    left, top = 500, 200
    small = small[: 720 - top, : 1280 - left]
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    (found,) = detector.detect(canvas)
    truth = np.array([left + x * scale, top + y * scale, width * scale, height * scale])
    assert found[:4] == pytest.approx(truth, abs=0.2 * width * scale)
    assert found[4] > 0.8


def test_faces_of_photographs_are_all_found(corpus, detector):
    scores = []
    for path in sorted(corpus.glob("stills/**/*.jpg")):
        found = detector.detect(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))
        assert len(found) == 1, path.name
        scores.append(found[0, 4])
    assert len(scores) >= 30


def test_boxes_lie_on_the_face_in_every_frame_as_an_independent_detector_sees_it(corpus, detector):
    witness = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
    witnessed = 0
    for picture in grid_frames(corpus / "plain" / "single_face.mp4", 25.0):
        ((x, y, width, height, score, *_),) = detector.detect(picture)
        assert score > 0.9
        seen = witness.detectMultiScale(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 1.05, 5, minSize=(80, 80))
        if len(seen) == 1:
            witnessed += 1
            left, top, side, _ = seen[0]
            assert x + width / 2 == pytest.approx(left + side / 2, abs=0.15 * side)
            # That detector's boxes begin above the brows, this one's end at the chin.
            assert y + height / 2 == pytest.approx(top + side / 2, abs=0.25 * side)
            assert 0.7 < width / side < 1.3
    assert witnessed > 50


@pytest.mark.parametrize(("count", "across"), [(6, 3), (12, 4), (24, 6)])
def test_everybody_on_a_wall_of_photographs_is_found_once(detector, photographs, count, across):
    wall, middles = wall_of(photographs, count, across)
    found = detector.detect(wall)
    centres = found[:, :2] + found[:, 2:4] / 2
    nearest = np.abs(centres[:, None] - middles).max(axis=2)
    assert sorted(nearest.argmin(axis=1)) == list(range(count))
    assert nearest.min(axis=1).max() < 0.2 * (1280 / across)


def test_the_short_range_network_alone_drops_nobody_whom_it_finds_on_a_wall(face_models, photographs):
    wall, _ = wall_of(photographs, 12, 4)
    with FaceDetector(face_models, FaceSettings(model="short")) as detector:
        looks = detector._look(wall)
        assert (looks[:, 4] < 0.8).sum() > 4  # doubtful ones
        assert len(detector.detect(wall)) >= 9


@pytest.mark.parametrize("share", [0.04, 0.05, 0.07])
def test_people_far_away_are_found(detector, portrait, share):
    """A face of that share of the picture's width, which the short-range network does not see."""
    ((x, y, width, height, *_),) = detector.detect(portrait).tolist()
    scale = share * 1280 / width
    small = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((720, 1280, 3), 110, np.uint8)
    canvas[200 : 200 + small.shape[0], 500 : 500 + small.shape[1]] = small
    (found,) = detector.detect(canvas)
    truth = np.array([500 + x * scale, 200 + y * scale, width * scale, height * scale])
    assert found[:4] == pytest.approx(truth, abs=0.2 * width * scale)


@pytest.mark.parametrize("frame", LANDMARKS)
def test_the_eyes_are_where_a_person_sees_them(corpus, single, frame):
    pictures = grid_frames(corpus / "plain" / "single_face.mp4", 25.0)
    ((*_, right_x, right_y, left_x, left_y),) = single.detect(next(islice(pictures, frame, None))).tolist()
    # Read off as the left and the right one in the picture, which are the person's right and left.
    for found, seen in zip([(right_x, right_y), (left_x, left_y)], LANDMARKS[frame], strict=False):
        assert found == pytest.approx(seen, abs=9)


@pytest.mark.parametrize("light", [0.0, 1.0], ids=["black", "white"])
def test_faces_that_a_fade_has_nearly_taken_away_are_not_found(detector, portrait, light):
    def faded(share: float) -> np.ndarray:
        return (portrait * share + 255 * light * (1 - share)).astype(np.uint8)

    assert len(detector.detect(faded(0.08))) == 0
    assert len(detector.detect(faded(0.5))) == 1


@pytest.mark.parametrize("frame", LANDMARKS)
def test_boxes_hold_eyes_mouth_and_chin_as_a_person_sees_them(corpus, detector, frame):
    pictures = grid_frames(corpus / "plain" / "single_face.mp4", 25.0)
    ((x, y, width, height, *_),) = detector.detect(next(islice(pictures, frame, None)))
    points = np.array(LANDMARKS[frame])
    assert (points[:3] > [x, y]).all()
    assert (points[:3] < [x + width, y + height]).all()
    assert y + height == pytest.approx(points[3, 1], abs=10)
    # Not much more than that: cheek to cheek the face is 150 px wide.
    assert 150 <= width <= 190
    assert x + width / 2 == pytest.approx(points[:2, 0].mean(), abs=12)


def test_only_scores_from_the_minimum_on_are_given(face_models, corpus):
    frames = list(grid_frames(corpus / "hard" / "digit_in_ellipse_false_face.mp4", 25.0))
    with FaceDetector(face_models, FaceSettings(model="short", min_score=0.4)) as lax:
        scores = np.concatenate([lax.detect(frame)[:, 4] for frame in frames])
    with FaceDetector(face_models, FaceSettings(model="short")) as strict:
        kept = np.concatenate([strict.detect(frame)[:, 4] for frame in frames])
    assert (scores >= 0.4).all()
    assert len(scores) >= 30  # a numeral in an ellipse looks like a face in each frame, but not much
    assert (kept >= 0.7).all()
    assert len(kept) < 0.3 * len(scores)


def test_detection_does_not_depend_on_earlier_pictures(detector, portrait):
    first = detector.detect(portrait)
    detector.detect(portrait[:, ::-1])
    assert np.array_equal(detector.detect(portrait), first)


def test_settings_refuse_scores_out_of_range():
    with pytest.raises(ValueError, match="less than or equal to 1"):
        FaceSettings(min_score=1.5)


def test_a_detector_that_nobody_closed_is_quiet_when_python_ends(face_models: FaceModels):
    program = f"""
import sys
sys.modules["tensorflow"] = None  # MediaPipe imports it to decorate its documentation, which takes seconds
from pathlib import PosixPath
from extractors.faces.detector import FaceDetector
from extractors.faces.settings import FaceModels
detector = FaceDetector({face_models!r})
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0
    assert "Exception ignored" not in ended.stderr
    assert "Traceback" not in ended.stderr

"""Cuts are found where they were drawn, and nothing else is taken for one: light, motion, missing frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np
import pytest

from extractors.faces.detector import FaceDetector
from extractors.video.grid import grid_frames
from extractors.video.shots import ShotDetector, Shots

HEIGHT, WIDTH = 180, 320
NOBODY = np.zeros((0, 9), np.float32)


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Coloured blurred noise, float32 [height, width, 3] around 128."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 6)
    return 128 + 45 * (blurred - blurred.mean()) / blurred.std()


def in_the_middle(k: int) -> tuple[float, float]:
    return 160, 90


@cache
def scene(seed: int, count: int, head: Callable[[int], tuple[float, float]] = in_the_middle) -> tuple[np.ndarray, ...]:
    """Pictures of a still background with a head, 80 px wide, that nods a little around its place in frame k."""
    rng = np.random.default_rng(seed)
    background, face = texture(seed), texture(seed + 1000, 80, 80)
    rows, columns = np.mgrid[:80, :80] - 39.5
    inside = (rows**2 + columns**2 < 39**2)[..., None].astype(np.float32)
    pictures = []
    for k in range(count):
        x, y = head(k)
        place = np.array([[1, 0, x - 40 + 1.5 * np.sin(k / 4)], [0, 1, y - 40 + np.cos(k / 5)]], np.float32)
        layer = cv2.warpAffine(face, place, (WIDTH, HEIGHT))
        mask = cv2.warpAffine(inside, place, (WIDTH, HEIGHT))[..., None]
        noise = rng.normal(0, 2, (HEIGHT, WIDTH, 1))
        pictures.append(np.clip(background * (1 - mask) + layer * mask + noise, 0, 255).astype(np.uint8))
    return tuple(pictures)


def shots_of(pictures: Sequence[np.ndarray], faces: np.ndarray = NOBODY) -> Shots:
    detector = ShotDetector()
    for picture in pictures:
        detector.add(picture, faces)
    return detector.shots()


def cuts(pictures: Sequence[np.ndarray], faces: np.ndarray = NOBODY) -> list[int]:
    """First frames of all shots but the first."""
    found = shots_of(pictures, faces)
    assert found.numbers.dtype == np.int32
    assert found.cuts == len(np.unique(found.numbers)) - 1
    assert not found.mixed.any()
    return (np.flatnonzero(np.diff(found.numbers)) + 1).tolist()


def zoomed(picture: np.ndarray, scale: float, x: float = 0.0) -> np.ndarray:
    place = np.array([[scale, 0, (1 - scale) * WIDTH / 2 - x], [0, scale, (1 - scale) * HEIGHT / 2]])
    return cv2.warpAffine(picture, place, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)


def test_a_video_of_one_shot_has_no_cut():
    assert cuts(scene(0, 100)) == []
    assert shots_of([]).cuts == 0
    assert shots_of(scene(0, 1)).numbers.tolist() == [0]


@pytest.mark.parametrize("length", [8, 12, 25, 60])
def test_hard_cuts_between_two_scenes_are_found(length):
    first, second = scene(0, 5 * length), scene(1, 5 * length)
    pictures = [(first, second)[k // length % 2][k] for k in range(5 * length)]
    assert cuts(pictures) == [length * number for number in range(1, 5)]


@pytest.mark.parametrize("scale", [1.15, 1.3, 1.9])
def test_punch_ins_and_outs_are_cuts(scale):
    pictures = [zoomed(p, scale) if k // 50 % 2 else p for k, p in enumerate(scene(0, 200))]
    assert cuts(pictures) == [50, 100, 150]


def test_a_jump_cut_that_moves_nothing_but_the_head_is_found_around_the_face():
    pictures = scene(0, 100, lambda k: (160, 90) if k < 50 else (168, 92))
    assert cuts(pictures, np.array([[120, 50, 80, 80]], np.float32)) == [50]


@pytest.mark.parametrize("speed", [2.0, 5.0, 9.0])
def test_a_head_that_turns_away_fast_is_no_cut(speed):
    def place(k: int) -> tuple[float, float]:
        pushed = np.clip(k - 50, 0, 60 / speed) * speed
        return 130 + pushed, 90

    assert cuts(scene(0, 100, place), np.array([[90, 50, 80, 80]], np.float32)) == []


@pytest.mark.parametrize("speed", [1, 4, 16])
def test_a_pan_is_no_cut(speed):
    still = scene(0, 100)
    pictures = [zoomed(p, 2.0, x=min(max(0, k - 30) * speed, WIDTH / 2) - WIDTH / 4) for k, p in enumerate(still)]
    assert cuts(pictures) == []


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("gain", [1.7, 4.0, 100.0])
def test_a_flash_is_no_cut(frames, gain):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    light = 1 + (gain - 1) * np.exp(-((rows - 90) ** 2 + (columns - 160) ** 2) / (2 * 90**2))[..., None]
    pictures = list(scene(0, 100))
    for k in range(50, 50 + frames):
        pictures[k] = np.clip(pictures[k] * light + 20, 0, 255).astype(np.uint8)
    assert cuts(pictures) == []


def test_light_that_is_switched_off_is_no_cut():
    pictures = [(p * (0.4 if k >= 50 else 1)).astype(np.uint8) for k, p in enumerate(scene(0, 100))]
    assert cuts(pictures) == []


@pytest.mark.parametrize("frames", [5, 12, 25])
def test_fading_in_and_out_is_no_cut_and_a_short_dip_to_black_within_a_shot_neither(frames):
    faded = [(p * min(1, k / frames, (99 - k) / frames)).astype(np.uint8) for k, p in enumerate(scene(0, 100))]
    assert cuts(faded) == []
    dipped = [(p * min(1, abs(k - 50) / frames)).astype(np.uint8) for k, p in enumerate(scene(0, 100))]
    blank = shots_of(dipped).covered
    assert blank[50]
    assert len(cuts(dipped)) == (blank.sum() > 6)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("frames", [1, 2, 5, 7, 20])
def test_nothing_continues_through_blank_frames_and_after_many_begins_another_shot(level, frames):
    pictures = list(scene(0, 100))
    pictures[40 : 40 + frames] = [np.full_like(pictures[0], level)] * frames
    found = shots_of(pictures)
    assert np.flatnonzero(found.covered).tolist() == list(range(40, 40 + frames))
    assert np.flatnonzero(np.diff(found.separate)).tolist() == list(range(39, 40 + frames))
    assert cuts(pictures) == ([40 + frames] if frames > 6 else [])


@pytest.mark.parametrize("frames", [3, 4, 6])
def test_a_glance_at_another_scene_interrupts_a_shot(frames):
    pictures = [*scene(0, 40), *scene(1, frames), *scene(0, 90)[40:]]
    found = shots_of(pictures)
    assert found.cuts in (0, 2)
    away = np.arange(40, 40 + frames)
    parts = found.parts
    assert len(np.unique(found.separate[[39, *away, away[-1] + 1]])) >= 3
    assert not set(parts[away]) & set(np.delete(parts, away))
    if found.cuts == 0:
        assert np.flatnonzero(found.covered).tolist() == away.tolist()
        assert len(set(np.delete(parts, away))) == 1


def test_dim_pictures_with_a_face_are_not_blank():
    dim = [(p * 0.1).astype(np.uint8) for p in scene(0, 60)]
    assert shots_of(dim).covered.all()
    assert not shots_of(dim, np.array([[120, 50, 80, 80]], np.float32)).covered.any()


@pytest.mark.parametrize("frames", [5, 12])
def test_through_black_another_scene_is_another_shot(frames):
    first = [(p * min(1, (49 - k) / frames)).astype(np.uint8) for k, p in enumerate(scene(0, 50))]
    second = [(p * min(1, k / frames)).astype(np.uint8) for k, p in enumerate(scene(1, 50))]
    (found,) = cuts(first + second)
    assert 50 <= found <= 50 + frames


@pytest.mark.parametrize("fps", [5, 8, 12.5])
@pytest.mark.parametrize("copied", [False, True], ids=["same object", "encoded again"])
def test_missing_frames_of_slow_sources_are_no_cuts(fps, copied):
    moving = scene(0, 100, lambda k: (160 + 30 * np.sin(k / 9), 90))
    shown = [moving[int(int(k * fps / 25) * 25 / fps)] for k in range(100)]
    assert cuts([picture.copy() for picture in shown] if copied else shown) == []


@pytest.mark.parametrize("frames", [6, 12, 25, 50])
def test_a_dissolve_is_one_cut_of_several_frames(frames):
    first, second = scene(0, 150), scene(1, 150)
    pictures = list(first[:50])
    for k in range(frames):
        pictures.append(
            cv2.addWeighted(first[50 + k], 1 - (k + 1) / (frames + 1), second[k], (k + 1) / (frames + 1), 0)
        )
    pictures += second[frames : frames + 50]
    found = shots_of(pictures)
    assert found.cuts == 1
    mixed = np.flatnonzero(found.mixed)
    assert mixed[0] == pytest.approx(50, abs=2 + frames // 8)
    assert mixed[-1] == pytest.approx(49 + frames, abs=2 + frames // 8)
    assert int(np.argmax(found.numbers)) == pytest.approx(50 + frames / 2, abs=1 + frames // 6)
    # Nothing continues from one frame of the dissolve to the next.
    separate = found.separate
    assert (np.diff(separate[mixed[0] - 1 : mixed[-1] + 2]) == 1).all()
    assert set(separate[: mixed[0]]) == {0}
    assert len(set(separate[mixed[-1] + 1 :])) == 1


def test_recordings_of_one_shot_have_no_cut(corpus, detector: FaceDetector):
    for name in ("plain/grid_bbaf2n.mpg", "plain/single_face.mp4", "hard/faceleaves_single_face.mp4"):
        shots = ShotDetector()
        for picture in grid_frames(corpus / name, 25.0):
            shots.add(picture, detector.detect(picture))
        assert shots.shots().cuts == 0, name


def test_a_recording_that_goes_from_titles_to_a_man_has_one_cut(corpus):
    detector = ShotDetector()
    for picture in grid_frames(corpus / "hard" / "noface_then_face_vfr.mov", 25.0):
        detector.add(picture, NOBODY)
    assert (np.flatnonzero(np.diff(detector.shots().numbers)) + 1).tolist() == [99]


def test_nothing_interrupts_a_shot_whose_camera_shakes():
    still = scene(0, 100)
    pictures = [zoomed(p, 1.3, x=30 * np.sin(k * 0.76)) for k, p in enumerate(still)]
    assert not shots_of(pictures).covered.any()

"""Edited videos with a known truth: who is seen when, where the cuts are, and what becomes of windows and tokens.

Drawn faces are discs with two eyes on textured scenes. They are found and recognised by their colour; everything else
is the real thing. Edits of real clips are checked with the real networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from extractors.errors import VideoError
from extractors.faces.crops import plan_static, plan_windows
from extractors.faces.detector import FaceDetector
from extractors.faces.recognizer import FEATURES, FaceRecognizer
from extractors.faces.settings import CropSettings, FaceSettings
from extractors.faces.track import FaceTrack, track_faces
from extractors.video.grid import grid_frames
from extractors.video.settings import VideoSettings

HEIGHT, WIDTH = 180, 320
ANYTHING = FaceSettings(min_coverage=0, min_confirmed_share=0)  # drawn faces convince no second detector
CROPS = CropSettings()


@dataclass
class Edit:
    """Pictures, the person seen in each, the first frame of each shot but the first, and the frames of dissolves."""

    pictures: list[np.ndarray] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    mixed: list[int] = field(default_factory=list)

    def add(self, person: str, pictures: Sequence[np.ndarray]) -> Edit:
        """Append a shot."""
        if self.pictures:
            self.cuts.append(len(self.pictures))
        self.pictures += pictures
        self.people += [person] * len(pictures)
        return self

    def dissolve(self, person: str, pictures: Sequence[np.ndarray], length: int) -> Edit:
        """Append a shot whose first pictures are mixed with the last ones."""
        start = len(self.pictures) - length
        for k in range(length):
            share = (k + 1) / (length + 1)
            self.pictures[start + k] = cv2.addWeighted(self.pictures[start + k], 1 - share, pictures[k], share, 0)
        self.mixed += range(start, start + length)
        self.cuts.append(start + length // 2)
        self.pictures += pictures[length:]
        self.people[self.cuts[-1] :] = [person] * (len(self.pictures) - self.cuts[-1])
        return self


def alternating(cameras: Sequence[Sequence[np.ndarray]], seconds: float, people: Sequence[str]) -> Edit:
    """Time goes on while the cameras take turns."""
    edit, count = Edit(), len(cameras[0])
    starts = [round(25 * seconds * number) for number in range(int(count / 25 / seconds) + 1)]
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], count], strict=True)):
        if stop > start:
            edit.add(people[number % len(people)], cameras[number % len(cameras)][start:stop])
    return edit


def check(edit: Edit, track: FaceTrack, *, slack: int = 0) -> None:
    """Compare a track with the truth of its edit; it may differ in `slack` frames for each dissolve or cut."""
    seen = Counter(edit.people)
    main, frames = seen.most_common(1)[0]
    quality = track.quality
    assert quality is not None
    allowed = slack * len(edit.cuts) / len(edit.people)
    assert quality.face_coverage == pytest.approx(frames / len(edit.people), abs=allowed + 1e-6)
    assert quality.people == len(seen)
    assert quality.others_share == pytest.approx(1 - frames / len(edit.people), abs=allowed + 1e-6)
    assert quality.cuts == len(edit.cuts)
    own = np.array([person == main for person in edit.people])
    clear = np.ones(len(own), bool)
    clear[edit.mixed] = False
    assert ((track.scores > 0) == own)[clear].all()
    windows = plan_windows(track, CROPS)
    for window in windows:
        inside = range(window.first_frame, window.last_frame + 1)
        assert not any(inside.start < cut < inside.stop for cut in edit.cuts)
        assert not set(inside) & set(edit.mixed)
        assert own[inside].all()
    # No shot of the main person that is long enough is left out; each loses fewer fields than a window needs.
    edges = [0, *edit.cuts, len(own)]
    longest = [stop - start - 1 for start, stop in pairwise(edges) if own[start]]
    lost = CROPS.min_fields + (len(edit.mixed) // max(1, len(edit.cuts)) + 4 if edit.mixed else 0)
    assert sum(window.fields for window in windows) >= sum(max(0, fields - lost) for fields in longest)
    static = [view.frame for view in plan_static(track, CROPS)]
    assert len(static) == CROPS.static_tokens
    assert own[static].all()
    assert not set(static) & set(edit.mixed)


# Drawn faces

COLOURS = {"red": (210, 40, 40), "blue": (40, 60, 220)}


class ColourDetector:
    """Finds the discs, as `FaceDetector` finds faces."""

    def detect(self, image: np.ndarray) -> np.ndarray:
        faces = []
        for name, colour in COLOURS.items():
            near = cv2.inRange(image, np.subtract(colour, 60).clip(0), np.add(colour, 60).clip(0, 255))
            count, _, boxes, _ = cv2.connectedComponentsWithStats(near)
            for x, y, width, height, area in boxes[1:count]:
                if area > 300:
                    eyes = (x + 0.3 * width, y + 0.4 * height, x + 0.7 * width, y + 0.4 * height)
                    faces.append((x, y, width, height, 0.95 if name == "red" else 0.9, *eyes))
        return np.array(faces, np.float32).reshape(-1, 9)

    def confirms(self, sample: np.ndarray) -> bool:
        return False


class ColourRecognizer:
    """Describes faces by the colour of their cheeks."""

    def describe(self, faces: list[np.ndarray]) -> np.ndarray:
        blue, _, red = np.mean([face[70:90, 40:70].mean(axis=(0, 1)) for face in faces], axis=0)
        return np.eye(FEATURES, dtype=np.float32)[int(red > blue)]


def drawn(colour: str, count: int, *, seed: int, side: float = 60, x: float = 160) -> list[np.ndarray]:
    """Pictures of a person who nods before a background."""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 5)
    background = np.repeat(np.clip(120 + 30 * blurred / blurred.std(), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    pictures = []
    for k in range(count):
        picture = background.copy()
        centre = np.array([x + 2 * np.sin(k / 5), 90 + np.cos(k / 7)])
        cv2.circle(picture, np.round(centre * 16).astype(int).tolist(), round(side * 8), COLOURS[colour], -1, 8, 4)
        for dx in (-0.2, 0.2):
            eye = np.round((centre + np.array([dx, -0.1]) * side) * 16).astype(int).tolist()
            cv2.circle(picture, eye, round(side), (10, 10, 10), -1, 8, 4)
        pictures.append(picture)
    return pictures


@pytest.fixture
def follow_drawn(drawing) -> Callable[[Edit], FaceTrack]:
    def run(edit: Edit, settings: FaceSettings = ANYTHING) -> FaceTrack:
        path = drawing.write("edit.mp4", edit.pictures, options={"crf": "12", "preset": "ultrafast"})
        return track_faces(path, ColourDetector(), VideoSettings(), settings, recognizer=ColourRecognizer())

    return run


@pytest.mark.parametrize("seconds", [1, 2, 2.8, 3.5, 5])
def test_drawn_cameras_at_both_sides_of_one_person_take_turns(follow_drawn, seconds):
    left, right = drawn("red", 250, seed=0, x=90), drawn("red", 250, seed=1, x=220, side=50)
    edit = alternating([left, right], seconds, ["red"])
    check(edit, follow_drawn(edit))


def test_a_drawn_person_is_punched_in_every_two_seconds(follow_drawn):
    far = drawn("red", 200, seed=0, side=50)
    near = [cv2.warpAffine(p, np.array([[1.9, 0, -144], [0, 1.9, -81]]), (WIDTH, HEIGHT)) for p in far]
    edit = alternating([far, near], 2, ["red"])
    check(edit, follow_drawn(edit))


@pytest.mark.parametrize("length", [10, 20])
@pytest.mark.parametrize("other", ["red", "blue"])
def test_a_drawn_dissolve_is_one_cut_and_belongs_to_no_window(follow_drawn, other, length):
    edit = Edit().add("red", drawn("red", 110, seed=0, x=90))
    edit.dissolve(other, drawn(other, 90, seed=1, x=220), length)
    check(edit, follow_drawn(edit), slack=length)


def test_a_drawn_cut_to_another_person_in_the_same_place(follow_drawn):
    edit = Edit().add("red", drawn("red", 100, seed=0)).add("blue", drawn("blue", 80, seed=1))
    check(edit, follow_drawn(edit))


def test_a_drawn_cut_away_and_back(follow_drawn):
    red, blue = drawn("red", 200, seed=0), drawn("blue", 60, seed=1)
    edit = Edit().add("red", red[:80]).add("blue", blue).add("red", red[140:])
    check(edit, follow_drawn(edit))


@pytest.mark.parametrize("frames", [3, 4, 6])
def test_a_drawn_glance_at_another_person_belongs_to_no_window(follow_drawn, frames):
    red, blue = drawn("red", 120, seed=0), drawn("blue", frames, seed=1)
    track = follow_drawn(Edit().add("red", red[:60]).add("blue", blue).add("red", red[60 + frames :]))
    away = set(range(60, 60 + frames))
    assert (track.scores > 0).mean() == pytest.approx(1 - frames / 120)
    assert track.quality is not None
    assert track.quality.others_share == pytest.approx(frames / 120)
    windows = plan_windows(track, CROPS)
    assert sum(window.fields for window in windows) >= 120 - frames - 2 - CROPS.min_fields
    assert not any(away & set(range(window.first_frame, window.last_frame + 1)) for window in windows)
    assert not away & {view.frame for view in plan_static(track, CROPS)}


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("frames", [2, 5, 20])
def test_drawn_blank_frames_belong_to_no_window(follow_drawn, frames, level):
    red = drawn("red", 120, seed=0)
    edit = Edit(red[:60] + [np.full_like(red[0], level)] * frames + red[60 + frames :])
    track = follow_drawn(edit)
    blank = set(range(60, 60 + frames))
    assert track.quality is not None
    assert track.quality.cuts == (frames > 6)
    assert track.quality.people == 1
    windows = plan_windows(track, CROPS)
    assert not any(blank & set(range(window.first_frame, window.last_frame + 1)) for window in windows)
    assert {60 - 1, 60 + frames} <= {at for window in windows for at in (window.first_frame, window.last_frame)}


def test_of_two_drawn_people_who_talk_in_turns_one_is_followed(follow_drawn):
    red, blue = drawn("red", 250, seed=0, x=100), drawn("blue", 250, seed=1, x=200)
    edit = Edit()
    for start, stop, person in [(0, 60, red), (60, 100, blue), (100, 160, red), (160, 200, blue), (200, 250, red)]:
        edit.add("red" if person is red else "blue", person[start:stop])
    check(edit, follow_drawn(edit))


@pytest.mark.parametrize("start", [60, 61, 62])
def test_blank_frames_glances_and_cuts_are_exact_if_faces_are_detected_in_every_third_frame(follow_drawn, start):
    red, blue = drawn("red", 200, seed=0), drawn("blue", 200, seed=1)
    edit = Edit(red[:start], ["red"] * start)
    for person, pictures in [
        ("nobody", [np.zeros_like(red[0])] * 2),
        ("red", red[62:91]),
        ("blue", blue[91:94]),
        ("red", red[94:130]),
        ("blue", blue[130:160]),
        ("red", red[160:]),
    ]:
        edit.add(person, pictures)
    track = follow_drawn(edit, ANYTHING.model_copy(update={"detect_every": 3}))
    own = np.array([person == "red" for person in edit.people])
    assert ((track.scores > 0) == own).all()
    assert track.quality.people == 2
    for window in plan_windows(track, CROPS):
        assert own[window.first_frame : window.last_frame + 1].all()


def test_without_a_recognizer_everybody_after_a_cut_is_somebody_else(drawing):
    edit = alternating([drawn("red", 150, seed=0, x=90), drawn("red", 150, seed=1, x=220)], 2, ["red"])
    path = drawing.write("edit.mp4", edit.pictures)
    quality = track_faces(path, ColourDetector(), VideoSettings(), ANYTHING).quality
    assert (quality.people, quality.cuts) == (3, 2)
    assert quality.face_coverage == pytest.approx(1 / 3, abs=0.01)


# Real clips


@pytest.fixture(scope="module")
def clips(corpus: Path) -> Callable[[str, int], list[np.ndarray]]:
    """The first frames of clips, as 640 x 360."""

    def read(name: str, count: int) -> list[np.ndarray]:
        pictures = islice(grid_frames(corpus / "fi_v2" / name, 25.0, thresholds=None), count)
        return [cv2.resize(picture, (640, 360), interpolation=cv2.INTER_AREA) for picture in pictures]

    return read


@pytest.fixture
def follow_real(
    detector: FaceDetector, face_recognizer: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Edit], FaceTrack]:
    def run(edit: Edit) -> FaceTrack:
        # Encoding and decoding the pictures again would take most of the time and show nothing.
        monkeypatch.setattr("extractors.faces.track.grid_frames", lambda *_, **__: iter(edit.pictures))
        recognizer = FaceRecognizer(face_recognizer)
        return track_faces("edit", detector, VideoSettings(), FaceSettings(), recognizer=recognizer)

    return run


def mirrored(picture: np.ndarray) -> np.ndarray:
    """As from a camera at the other side, further away."""
    place = np.array([[0.8, 0, 20], [0, 0.8, 60]])
    return cv2.warpAffine(np.ascontiguousarray(picture[:, ::-1]), place, (640, 360), borderMode=cv2.BORDER_REPLICATE)


def test_one_real_person_from_two_sides_and_punched_in(clips, follow_real):
    clip = clips("98fnGDVky00.005.mp4", 150)
    near = [cv2.warpAffine(p, np.array([[1.9, 0, -288], [0, 1.9, -97]]), (640, 360)) for p in clip]
    edit = alternating([clip, [mirrored(p) for p in clip], near], 2, ["one"])
    check(edit, follow_real(edit))


def test_two_real_people_one_after_the_other_and_back(clips, follow_real):
    first, second = clips("-AmMDnVl4s8.003.mp4", 150), clips("OWZ-qVZG14A.002.mp4", 50)
    edit = Edit().add("first", first[:80]).add("second", second[:50])
    edit.dissolve("first", first[80:150], 10)
    check(edit, follow_real(edit), slack=5)


def test_a_video_without_anybody_is_refused(drawing):
    path = drawing.write("nobody.mp4", [np.full((90, 160, 3), 90, np.uint8)] * 20)
    with pytest.raises(VideoError, match="no face in any frame") as caught:
        track_faces(path, ColourDetector(), VideoSettings(), FaceSettings())
    assert (caught.value.stage, caught.value.reason) == ("faces", "no_face")

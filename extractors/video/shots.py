"""The shots of a video: where one recording ends and the next begins, found while the frames go by.

A cut is a step from one frame to the next that is far larger than the steps around it. Fast turns of the head, pans and
shaking cameras have neighbouring steps of the same size, and so has a flash, which comes and goes. A step is measured
in the whole picture, for cuts to another scene, and around the face, for jump cuts within a scene, which often move
nothing but the head. Light counts little, because contrast is evened out first.

A dissolve has no such step. It is recognised by its middle, a mixture of the pictures at both ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

# Longer sides of the small pictures that are compared, in px.
PICTURE_PX, SCENE_PX = 160, 80
FACE_PX, FACE_SIDES = 32, 1.5
# Contrast is evened out over this many px of the scene; CALM, a share of its whole contrast, keeps even areas calm.
EVEN_PX, CALM = 9, 0.15
# Steps on each side that a cut is compared with, and the frames within which they must lie.
NEIGHBOURS, REACH = 6, 50
# A cut is so many times larger than the largest of these. Without cuts, the ratios of ten talking people in 3,700 steps
# reach 1.9 (scene) and 2.15 (face), but for one with dropped frames.
SCENE_RATIO, FACE_RATIO = 2.1, 2.2
# Steps below these are noise; below a quarter of both, a frame repeats the one before.
NOISE = np.array([0.03, 0.03, 0.08, 0.08])
UNKNOWN = np.full(4, np.nan)
# A camera that is pushed moves the whole picture by up to this share of its side; such a step is measured without it.
PUSH = 0.1
# Unlikeness of two pictures: rarely below 1.1 for unrelated ones, rarely above 0.65 for neighbours within a shot. A
# step to an unrelated picture is compared with the CLOSE steps around it only, so that cuts may follow each other
# quickly.
UNRELATED, CLOSE, CLOSE_REACH, CLOSE_RATIO = 0.75, 2, 12, 1.6
# Too few steps are known within so many frames of either end.
EDGE = 3
# A picture that comes back, as similar as this, within so many frames was only covered, by a flash or a broken frame.
# After more blank frames than that, a new shot begins even with a similar picture.
BACK, COVERED = 0.5, 6
# Grey levels of spread below which a picture shows nothing: black, white, faded out.
BLANK = 6.0
# Frames between the two pictures that a dissolve is looked for in. A mixture of both has an error of at most this share
# of their difference, and shows at least this much of each.
DISSOLVE, MIXTURE_ERROR, MIXTURE_SHARE = 30, 0.25, 0.1


@dataclass(frozen=True)
class Shots:
    """The shots of a video.

    Args:
        numbers: int32 [F], number of the shot of each frame, beginning with 0, non-decreasing. In a dissolve, the new
            shot begins with the middle frame.
        mixed: bool [F], True for the frames of dissolves, which show two shots.
        covered: bool [F], True for frames that show something else than their shot: blank ones, and those of an
            unrelated picture after which the shot soon continues.
    """

    numbers: np.ndarray
    mixed: np.ndarray
    covered: np.ndarray

    @property
    def separate(self) -> np.ndarray:
        """The numbers with one of its own for each mixed or covered frame, int32 [F]: nothing continues there."""
        alone = self.mixed | self.covered
        after_alone = np.concatenate([[False], alone[:-1]])
        starts = (np.diff(self.numbers, prepend=0) > 0) | alone | after_alone
        if len(starts):
            starts[0] = False
        return np.cumsum(starts).astype(np.int32)

    @property
    def parts(self) -> np.ndarray:
        """The numbers with another for each run of covered frames, int32 [F]: a shot goes on with its number after one.

        Numbers of covered runs are larger than those of shots.
        """
        runs = np.cumsum(np.diff(self.covered, prepend=False) & self.covered)
        return np.where(self.covered, self.cuts + runs, self.numbers).astype(np.int32)

    @property
    def cuts(self) -> int:
        """Number of changes from one shot to the next; a dissolve is one."""
        return int(self.numbers[-1]) if len(self.numbers) else 0


@dataclass(frozen=True)
class _Look:
    """What is kept of a picture, grey, float32.

    Args:
        picture: longer side PICTURE_PX.
        scene: longer side SCENE_PX.
        even: the scene with its contrast evened out.
        shown: mean absolute value of `even`.
        per_px: pixels of `picture` per pixel of the original.
        is_blank: whether the picture shows nothing.
    """

    picture: np.ndarray
    scene: np.ndarray
    even: np.ndarray
    shown: np.float32
    per_px: float
    is_blank: bool

    @classmethod
    def at(cls, picture: np.ndarray) -> _Look:
        """Look at a picture, uint8 RGB."""
        longest = max(picture.shape[:2])
        step = max(1, longest // (2 * PICTURE_PX))  # averaging over all pixels would take most of the time
        # Columns are dropped after the conversion, because NumPy copies single bytes much faster than triples.
        grey = cv2.cvtColor(picture[::step], cv2.COLOR_RGB2GRAY)[:, ::step].astype(np.float32)
        small = _shrunk(grey, PICTURE_PX)
        scene = _shrunk(small, SCENE_PX)
        mean = cv2.blur(scene, (EVEN_PX, EVEN_PX))
        spread = np.sqrt(np.maximum(cv2.blur(scene * scene, (EVEN_PX, EVEN_PX)) - mean * mean, 0))
        contrast = scene.std()
        even = (scene - mean) / (spread + max(1.0, CALM * contrast))
        is_blank = bool(contrast < BLANK)
        return cls(small, scene, even, np.abs(even).mean(), max(small.shape) / longest, is_blank)

    def around(self, face: np.ndarray) -> np.ndarray:
        """Cut out the surroundings of a box (x, y, width, height in px of the original): [FACE_PX, FACE_PX], mean 0."""
        x, y, width, height = (face[:4] * self.per_px).tolist()
        scale = FACE_PX / (FACE_SIDES * max(width, height, 1.0))
        middle = FACE_PX / 2 - 0.5
        place = np.array(
            [[scale, 0, middle - (x + width / 2) * scale], [0, scale, middle - (y + height / 2) * scale]], np.float32
        )
        cut = cv2.warpAffine(
            self.picture, place, (FACE_PX, FACE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray((cut - cut.mean()) / max(float(cut.std()), 4.0))


class ShotDetector:
    """Finds the shots of one video, whose frames are added one after the other; it keeps a few numbers of each."""

    def __init__(self) -> None:
        self._steps: list[np.ndarray] = []  # to each frame from the one before, as `_step` measures them
        self._unrelated: list[bool] = []
        self._mixed: list[tuple[int, int]] = []
        self._covered: list[bool] = []
        self._last: tuple[np.ndarray, _Look, np.ndarray | None] | None = None
        self._shown: _Look | None = None  # the last picture that showed something
        self._blank = 0  # frames since then
        self._recent: deque[_Look] = deque(maxlen=DISSOLVE + 1)

    def add(self, picture: np.ndarray, faces: np.ndarray) -> None:
        """Take the next frame.

        Args:
            picture: uint8 RGB [height, width, 3]; the same object as before if the frame is repeated.
            faces: float32 [n, 4 or more], boxes of the faces in it: x, y, width, height in px, ...
        """
        face = faces[int(faces[:, 2].argmax())] if len(faces) else None
        step, unrelated = UNKNOWN, False
        if self._last is not None and self._last[0] is picture:
            look = self._last[1]
        else:
            look = _Look.at(picture)
            if self._last is not None and not look.is_blank and self._shown is not None:
                _, before, face_before = self._last
                if not before.is_blank:
                    step = _step(before, look, face_before if face_before is not None else face)
                unrelated = self._blank > COVERED or _unlikeness(self._shown, look) > UNRELATED
        if look.is_blank:
            self._blank += 1
        else:
            self._shown, self._blank = look, 0
        self._last = (picture, look, face)
        self._steps.append(step)
        self._unrelated.append(unrelated)
        # A face in a dim or even scene is something to see.
        self._covered.append(look.is_blank and face is None)
        self._recent.append(look)
        self._forget_what_was_only_covered()
        self._look_for_dissolve()

    def shots(self) -> Shots:
        """Return the shots of the frames so far."""
        frames = len(self._steps)
        starts = np.zeros(frames, bool)
        sizes = np.array(self._steps).reshape(-1, len(NOISE))
        repeated = ~(sizes >= NOISE / 4).any(axis=1)
        steps = np.flatnonzero(~repeated)
        for place, frame in enumerate(steps.tolist()):
            around = steps[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
            around = around[(around != frame) & (np.abs(around - frame) <= REACH)]
            close = around[
                (np.abs(np.searchsorted(steps, around) - place) <= CLOSE) & (np.abs(around - frame) <= CLOSE_REACH)
            ]
            stands_out = sizes[frame] / _largest(sizes[around])
            starts[frame] = (
                EDGE <= frame < frames - EDGE
                and ((stands_out[:2] > SCENE_RATIO).all() or (stands_out[2:] > FACE_RATIO).all())
            ) or (self._unrelated[frame] and (sizes[frame] / _largest(sizes[close]))[0] > CLOSE_RATIO)
        starts |= np.isnan(sizes[:, 0]) & np.array(self._unrelated, bool)  # after blank pictures
        mixed = np.zeros(frames, bool)
        for first, last in self._mixed:
            mixed[first : last + 1] = True
        edges = np.flatnonzero(np.diff(mixed, prepend=False, append=False)).reshape(-1, 2)
        for first, end in edges.tolist():
            starts[first : end + 1] = False
            starts[(first + end) // 2] = True
        return Shots(np.cumsum(starts).astype(np.int32), mixed, np.array(self._covered, bool) & ~mixed)

    def _forget_what_was_only_covered(self) -> None:
        """Take back the steps to unrelated pictures that led away from what is seen again now."""
        now = len(self._unrelated) - 1
        for back in range(1, min(COVERED, len(self._recent) - 2) + 1):
            left = self._recent[-2 - back]
            if self._unrelated[now - back] and not left.is_blank and _unlikeness(left, self._recent[-1]) < BACK:
                self._unrelated[now - back : now + 1] = [False] * (back + 1)
                # Where every step is large, the camera shakes, and nothing covers the picture.
                earlier = np.array(self._steps[max(0, now - back - NEIGHBOURS) : now - back]).reshape(-1, len(NOISE))
                there_and_back = np.minimum(self._steps[now - back], self._steps[now]) / _largest(earlier)
                if len(earlier) > EDGE and (there_and_back[:2] > SCENE_RATIO).all():
                    self._covered[now - back : now] = [True] * back

    def _look_for_dissolve(self) -> None:
        if len(self._recent) <= DISSOLVE or _unlikeness(self._recent[0], self._recent[-1]) <= UNRELATED:
            return
        first, last = self._recent[0].scene.ravel(), self._recent[-1].scene.ravel()
        if min(first.std(), last.std()) < BLANK:
            return
        ends = np.stack([first, last, np.ones_like(first)])
        # Least squares for all frames between at once: picture = a * first + b * last + c.
        between = np.stack([look.scene.ravel() for look in list(self._recent)[1:-1]])
        weights = np.linalg.solve(ends @ ends.T + np.eye(3) * 1e-3, ends @ between.T)
        errors = np.sqrt(((between - weights.T @ ends) ** 2).mean(axis=1)) / (first - last).std()
        share = weights[1] / np.maximum(weights[:2].sum(axis=0), 1e-3)
        mixture = (np.abs(share - 0.5) < 0.5 - MIXTURE_SHARE) & (np.abs(weights[:2].sum(axis=0) - 1) < 0.25)
        if mixture.sum() < 2 or (errors[mixture] > MIXTURE_ERROR).any() or (np.diff(share[mixture]) < -0.05).any():
            return
        places = np.flatnonzero(mixture) + len(self._steps) - DISSOLVE
        # Where it begins and ends, one of the pictures is too faint to be measured.
        faint = 1 + round(MIXTURE_SHARE * len(places) / (1 - 2 * MIXTURE_SHARE))
        self._mixed.append((max(0, int(places[0]) - faint), int(places[-1]) + faint))


def _shrunk(grey: np.ndarray, side: int) -> np.ndarray:
    height, width = grey.shape
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _step(before: _Look, now: _Look, face: np.ndarray | None) -> np.ndarray:
    """Measure the step between two pictures: float64 [4].

    They are the difference of the scenes as they are, and after undoing a push of the camera; likewise that of the
    surroundings of the face, NaN without one.
    """
    shift = np.zeros(2)
    scene = pushed_scene = float(np.abs(now.even - before.even).mean())
    if scene > NOISE[0]:
        window = cv2.createHanningWindow(before.even.shape[::-1], cv2.CV_32F)
        moved, _ = cv2.phaseCorrelate(before.even * window, now.even * window)
        if max(map(abs, moved)) <= PUSH * SCENE_PX:
            place = np.array([[1, 0, moved[0]], [0, 1, moved[1]]], np.float32)
            pushed = cv2.warpAffine(before.even, place, before.even.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
            pushed_scene = float(np.abs(now.even - pushed).mean())
            shift = np.array(moved) * (PICTURE_PX / SCENE_PX / now.per_px)
    if face is None:
        return np.array([scene, pushed_scene, np.nan, np.nan])
    around = before.around(face)
    face_step = pushed_face_step = float(np.abs(now.around(face) - around).mean())
    if shift.any():
        pushed_face = face.copy()
        pushed_face[:2] += shift
        pushed_face_step = float(np.abs(now.around(pushed_face) - around).mean())
    return np.array([scene, min(scene, pushed_scene), face_step, min(face_step, pushed_face_step)])


def _unlikeness(first: _Look, second: _Look) -> float:
    """Return the difference of two pictures, relative to what they show: 0 if they are equal, 1.4 if unrelated."""
    shown = (first.shown + second.shown) / 2
    return float(np.abs(first.even - second.even).mean() / max(float(shown), 1e-3))


def _largest(sizes: np.ndarray) -> np.ndarray:
    """Return the largest of some steps, [n, 4], by each measure, at least NOISE."""
    return np.asarray(np.nan_to_num(np.concatenate([sizes, NOISE[None]])).max(axis=0))

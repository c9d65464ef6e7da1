"""The demo corpus: eight clips made from one public portrait, with labels that follow from the pictures.

With it, anyone can run the whole pipeline without data of their own. The labels say nothing about the person portrayed.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from extractors.video.encoding import write_mp4
from flows.demo.motion import HeadMotion, HeadWarp, head_poses
from flows.session.errors import UserError
from fusion.traits import TRAITS
from storage.files.commit import TEMPORARY_PREFIX, commit_file

FPS = 25
FRAMES = 100
LONG_FRAMES = 300  # five windows of motion, so that attention has something to choose from
WIDTH, HEIGHT = 640, 480
# Increased with every change of the pictures, so that older corpora are rendered again.
RECIPE_VERSION = 2

# Cut out of the 512 x 512 portrait and enlarged to the frame: head and shoulders, the face about 165 px wide.
ZOOM = 1.75
CUT_X, CUT_Y = 44.0, -15.0
# In the portrait's own pixels.
HEAD = (226.0, 103.0, 78.0, 92.0)
NOSE = (221.0, 127.0)
NECK = (228.0, 205.0)


class DemoCorpusError(UserError):
    """The demo corpus cannot be rendered here; the message names the cure."""


@dataclass(frozen=True)
class Look:
    """Light and colour of a clip; every dial is in [0, 1].

    Attributes:
        brightness: 0 is dim (0.6 of the portrait's light), 1 is bright (1.1).
        warmth: 0 is bluish, 0.5 neutral, 1 reddish.
        colour: 0 is nearly grey, 1 is vivid.
        side_light: how unevenly the light falls; at 1 the bright side gets 1.6 times the dark side's.
        light_from_deg: the bright side: 0 right, 90 below, 180 left, 270 above.
    """

    brightness: float
    warmth: float
    colour: float
    side_light: float = 0.0
    light_from_deg: float = 0.0


@dataclass(frozen=True)
class DemoClip:
    """Everything that determines a clip, except the random start of its motion."""

    name: str
    subject: str
    look: Look
    motion: HeadMotion = field(default_factory=HeadMotion)
    frames: int = FRAMES
    in_turn: bool = False  # see `flows.demo.motion.head_poses`

    @property
    def video_id(self) -> str:
        """Return the name of the clip's file."""
        return f"{self.name}.mp4"


@dataclass(frozen=True)
class DemoCorpus:
    """The paths of a rendered corpus."""

    videos: Path
    labels: Path


# Two clips per "person". Whoever is held out for validation, all five traits still vary among the other six clips.
CLIPS = (
    DemoClip("still", "person-0", Look(0.7, 0.5, 0.5)),
    DemoClip("nod", "person-1", Look(0.9, 0.8, 0.7, 0.5, 200), HeadMotion(nod=0.9)),
    DemoClip("shake", "person-2", Look(0.4, 0.2, 0.3, 0.7, 0), HeadMotion(shake=1.0)),
    DemoClip("tilt", "person-3", Look(1.0, 0.6, 0.9, 0.3, 270), HeadMotion(tilt=0.5)),
    DemoClip("approach", "person-0", Look(0.6, 0.9, 1.0, 0.6, 150), HeadMotion(approach=0.8)),
    DemoClip("sway", "person-2", Look(0.2, 0.4, 0.1, 0.8, 300), HeadMotion(sway=0.4)),
    DemoClip("jitter", "person-1", Look(0.3, 0.1, 0.2, 0.4, 180), HeadMotion(jitter=1.0)),
    DemoClip(
        "mixed",
        "person-3",
        Look(0.8, 0.7, 0.6, 0.9, 330),
        HeadMotion(nod=0.5, shake=0.4, tilt=0.2, approach=0.3, sway=0.2, jitter=0.5),
        LONG_FRAMES,
        in_turn=True,
    ),
)


def trait_values(clip: DemoClip) -> tuple[float, ...]:
    """Return the clip's labels: five numbers in [0, 1], trait order, by a rule made up for this corpus."""
    look, motion = clip.look, clip.motion
    values = {
        "openness": 0.1 + 0.8 * look.colour,
        "conscientiousness": 0.9 - 0.5 * motion.amplitude - 0.4 * motion.jitter,
        "extraversion": 0.1 + 0.5 * motion.amplitude + 0.3 * look.brightness,
        "agreeableness": 0.1 + 0.4 * motion.nod + 0.4 * look.warmth,
        "neuroticism": 0.1 + 0.6 * motion.jitter + 0.2 * (1 - look.brightness),
    }
    return tuple(values[trait] for trait in TRAITS)


def render_demo_corpus(folder: Path, *, seed: int = 0) -> DemoCorpus:
    """Render eight clips and their labels, unless the folder already has them.

    The clips are 640 x 480, 25 fps, without sound, H.264 (MPEG-4 Part 2 if PyAV has no x264), and last 4 s, except the
    last one, in which the motions follow one another: 12 s. They are made from the portrait of the astronaut Eileen
    Collins by NASA (public domain) that ships inside scikit-image: still, nod, shake, tilt, approach, sway, jitter and
    mixed. Four "persons", a name for two clips each, let a split by person hold out one pair and learn from three.
    Labels follow `trait_values`.

    Args:
        folder: created if missing; gets `videos/`, `labels.csv` and finally `recipe.json`, by which a complete corpus
            is recognised.
        seed: of the phase in which each motion starts, and of the jitter. The same seed gives the same pictures; the
            labels are the same for every seed.

    Raises:
        DemoCorpusError: scikit-image is missing, or the folder cannot be changed.
        UserError: PyAV has no suitable encoder.
        storage.errors.StoreError: a file cannot be written.
    """
    corpus = DemoCorpus(videos=folder / "videos", labels=folder / "labels.csv")
    files = [corpus.labels, *(corpus.videos / clip.video_id for clip in CLIPS)]
    recipe = {"version": RECIPE_VERSION, "seed": seed, "clips": [asdict(clip) for clip in CLIPS]}
    if _is_complete(folder, files, recipe):
        return corpus
    portrait = _portrait()
    _clear_traces(folder, corpus.videos)
    for clip in CLIPS:
        with commit_file(corpus.videos / clip.video_id) as path:
            write_mp4(path, clip_frames(clip, portrait, seed=seed), FPS)
    with commit_file(corpus.labels) as path:
        _write_labels(path)
    recipe["sha256"] = _digests(folder, files)
    with commit_file(folder / "recipe.json") as path:
        path.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    return corpus


def clip_frames(clip: DemoClip, portrait: np.ndarray, *, seed: int) -> Iterator[np.ndarray]:
    """Yield a clip's frames, uint8 RGB [480, 640, 3].

    The light stays in place while the head moves, so colour is applied before the motion and light after it.

    Args:
        portrait: uint8 RGB [512, 512, 3], `skimage.data.astronaut()`.
        seed: see `render_demo_corpus`; each clip has its own random stream.
    """
    picture = _coloured(_cut_out(portrait), clip.look)
    light = _light(clip.look)
    warp = HeadWarp(
        size=(WIDTH, HEIGHT),
        head=(*_in_frame(HEAD[:2]), ZOOM * HEAD[2], ZOOM * HEAD[3]),
        face=_in_frame(NOSE),
        neck=_in_frame(NECK),
    )
    # Seeded by name, so that a clip does not depend on its position in the list.
    rng = np.random.default_rng([seed, *clip.name.encode()])
    for pose in head_poses(clip.motion, frames=clip.frames, fps=FPS, rng=rng, in_turn=clip.in_turn):
        # This rounds, and clips to 0 and 255.
        yield cv2.multiply(warp(picture, pose), light, dtype=cv2.CV_8U)


def _in_frame(point: tuple[float, float]) -> tuple[float, float]:
    """Convert a point of the portrait to the frame's pixels."""
    return ZOOM * (point[0] - CUT_X), ZOOM * (point[1] - CUT_Y)


def _cut_out(portrait: np.ndarray) -> np.ndarray:
    """Cut out head and shoulders, enlarged to the frame: float32 RGB [480, 640, 3]."""
    to_frame = np.array([[ZOOM, 0, -ZOOM * CUT_X], [0, ZOOM, -ZOOM * CUT_Y]], np.float32)
    # The cut reaches slightly beyond the top of the portrait, into plain wall.
    return cv2.warpAffine(
        portrait.astype(np.float32), to_frame, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def _coloured(picture: np.ndarray, look: Look) -> np.ndarray:
    """Set saturation (0.25 to 1.35 of the portrait's) and tint (red and blue up to 12% apart from neutral)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    tint = 0.12 * (2 * look.warmth - 1)
    return ((grey + (0.25 + 1.1 * look.colour) * (picture - grey)) * [1 + tint, 1, 1 - tint]).astype(np.float32)


def _light(look: Look) -> np.ndarray:
    """Return the factor for each pixel, float32 [480, 640, 3]."""
    angle = np.radians(look.light_from_deg)
    x, y = np.meshgrid(np.linspace(-1, 1, WIDTH), np.linspace(-1, 1, HEIGHT))
    slope = 0.23 * look.side_light * (x * np.cos(angle) + y * np.sin(angle))
    light = (0.6 + 0.5 * look.brightness) * (1 + slope)
    return np.repeat(light[..., None], 3, axis=2).astype(np.float32)


def _write_labels(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video_id", "subject", *TRAITS])
        for clip in CLIPS:
            rows.writerow([clip.video_id, clip.subject, *(f"{value:.4f}" for value in trait_values(clip))])


def _portrait() -> np.ndarray:
    try:
        from skimage import data
    except ImportError as error:
        raise DemoCorpusError("the demo's portrait is in scikit-image: pip install 'traitline[demo]'") from error
    picture: np.ndarray = data.astronaut()  # type: ignore[no-untyped-call]  # scikit-image annotates little
    return picture


def _is_complete(folder: Path, files: list[Path], recipe: dict[str, Any]) -> bool:
    try:
        written = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        return bool(written == {**recipe, "sha256": _digests(folder, files)})
    except (OSError, ValueError):
        return False


def _clear_traces(folder: Path, videos: Path) -> None:
    """Remove the old recipe, which would accept a mixture of old and new clips, and leftovers of a killed run."""
    try:
        (folder / "recipe.json").unlink(missing_ok=True)
        for leftover in videos.glob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise DemoCorpusError(f"cannot render into {folder} ({error.strerror}): name another folder") from error


def _digests(folder: Path, files: list[Path]) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

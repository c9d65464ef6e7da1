"""What each preset of optical flow is good for: error on drawn motion, agreement and consistency on real clips, cost.

Run it as `python tests/benchmarks/bench_flow_presets.py [--corpus DIR]`. It prints the tables of
docs/explanation/optical-flow.md. Faces come from the recordings under `fi_v2` and `plain`, cut out as the pipeline
does.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np

from extractors.faces.boxes import cut_square
from extractors.faces.settings import CropSettings, FaceSettings
from extractors.networks import SIDE_PX
from extractors.networks.preprocessing import resized
from extractors.optical_flow.computer import OpticalFlowComputer
from extractors.optical_flow.parameters import OpticalFlowSettings, Preset
from extractors.preparation.preparer import Motion, PreparationSettings, Preparer, Request
from extractors.preparation.stopwatch import Stopwatch
from extractors.video.grid import grid_frames
from extractors.video.settings import VideoSettings
from flows.archive.families import face_models
from flows.config.load import load_config

DEFAULT_CORPUS = Path(os.environ.get("TRAITLINE_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))
LARGEST_PX = (1, 2, 5, 10, 15, 20)
HEAD_PX = (80.0, 100.0)  # half axes of a head within a crop
WIDE = 1.5  # a still shows this many sides of the crop, so that motion brings in what was outside
DETAIL = 2  # pixels of a still in one pixel of a crop
NOISE = 1.5  # standard deviation, grey levels
CENTRE_PX = (SIDE_PX - 1) / 2
Y, X = np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float32)


@dataclass(frozen=True)
class Face:
    """One clip: all its windows, uint8 [65, 224, 224], and one picture in twice the detail, float32 [672, 672]."""

    windows: list[np.ndarray]
    still: np.ndarray

    def seen_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The still at positions of the crop, in pixels of the crop."""
        margin = SIDE_PX * (WIDE - 1) / 2
        maps = ((at + margin) * DETAIL + (DETAIL - 1) / 2 for at in (x, y))
        return cv2.remap(self.still, *(np.float32(m) for m in maps), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def faces(corpus: Path) -> Iterator[Face]:
    """Every clip's face, cut out as the pipeline does."""
    settings = PreparationSettings(
        face_models(load_config()), VideoSettings(), FaceSettings(), CropSettings(), OpticalFlowSettings(engine="gpu")
    )
    with Preparer(settings, lambda: None) as preparer:
        for video in (*sorted(corpus.glob("fi_v2/*.mp4")), *sorted(corpus.glob("plain/*.m*"))):
            parts = preparer.prepare(Request(video, dynamic=True), Stopwatch())
            motions = [part for part in parts if isinstance(part, Motion)]
            first, (x, y, side) = motions[0].window.first_frame, motions[0].window.box
            more = round(side * (WIDE - 1) / 2)
            for number, picture in enumerate(grid_frames(video, 25.0, thresholds=None)):
                if number == first:
                    wide = cut_square(picture, (x - more, y - more, side + 2 * more))
                    side_px = round(SIDE_PX * WIDE * DETAIL)
                    still = resized(cv2.cvtColor(wide, cv2.COLOR_RGB2GRAY), (side_px, side_px))
                    break
            # Twice the detail is smoothed to what one pixel of the crop resolves.
            yield Face([motion.fields for motion in motions], cv2.GaussianBlur(np.float32(still), (0, 0), 0.4 * DETAIL))


@dataclass(frozen=True)
class Drawn:
    """A pair with a known displacement, float32 [224, 224, 2], on the pixels of the face that both frames show."""

    frames: np.ndarray
    truth: np.ndarray
    face: np.ndarray


def whole_picture(face: Face, truth: np.ndarray, rng: np.random.Generator) -> Drawn:
    """The first frame is the second one, seen at the displaced positions."""
    x, y = X + truth[..., 0], Y + truth[..., 1]
    inside = (x >= 0) & (x <= SIDE_PX - 1) & (y >= 0) & (y <= SIDE_PX - 1)
    return Drawn(noisy([face.seen_at(x, y), face.seen_at(X, Y)], rng), truth, inside)


def drawn_shift(face: Face, _: Face, px: float, angle: float, rng: np.random.Generator) -> Drawn:
    """The picture shifts."""
    truth = np.broadcast_to(np.float32([px * np.cos(angle), px * np.sin(angle)]), (SIDE_PX, SIDE_PX, 2))
    return whole_picture(face, truth, rng)


def drawn_zoom(face: Face, _: Face, px: float, angle: float, rng: np.random.Generator) -> Drawn:
    """The picture grows or shrinks."""
    rate = px / CENTRE_PX * np.sign(np.cos(angle))
    return whole_picture(face, np.stack([rate * (X - CENTRE_PX), rate * (Y - CENTRE_PX)], -1), rng)


def drawn_roll(face: Face, _: Face, px: float, angle: float, rng: np.random.Generator) -> Drawn:
    """The picture turns in its plane."""
    turn, x, y = px / CENTRE_PX * np.sign(np.cos(angle)), X - CENTRE_PX, Y - CENTRE_PX
    turned = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    return whole_picture(face, np.stack([turned[0] - x, turned[1] - y], -1), rng)


def drawn_head(face: Face, background: Face, px: float, angle: float, rng: np.random.Generator) -> Drawn:
    """The head shifts in front of a background that stands still."""
    half = px / 2 * np.float32([np.cos(angle), np.sin(angle)])
    frames = [over(background, face.seen_at(X - s * half[0], Y - s * half[1]), *(s * half)) for s in (-1, 1)]
    visible = head(*-half) > 0.99
    return Drawn(noisy(frames, rng), np.where(visible[..., None], 2 * half, 0), visible)


def drawn_yaw(face: Face, background: Face, px: float, angle: float, rng: np.random.Generator) -> Drawn:
    """The head, an ellipsoid, turns about its vertical axis; the second frame shows it from the front."""
    across, down = X - CENTRE_PX, Y - CENTRE_PX
    radius = HEAD_PX[0] * np.sqrt(np.clip(1 - (down / HEAD_PX[1]) ** 2, 0, None))
    within = np.abs(across) < 0.999 * radius
    ahead = np.arcsin(np.where(within, across / np.maximum(radius, 1e-6), 0)) + px / HEAD_PX[0] * np.sign(np.cos(angle))
    dx = np.where(within, radius * np.sin(np.clip(ahead, -np.pi / 2, np.pi / 2)) - across, 0)
    frames = [over(background, face.seen_at(X + dx, Y), 0, 0), over(background, face.seen_at(X, Y), 0, 0)]
    return Drawn(noisy(frames, rng), np.stack([dx, 0 * dx], -1), within & (np.abs(ahead) < np.pi / 2))


def head(x: float, y: float) -> np.ndarray:
    """1 on the head, 0 on the background, for a head that is off the centre by x and y pixels."""
    from_centre = ((X - CENTRE_PX - x) / HEAD_PX[0]) ** 2 + ((Y - CENTRE_PX - y) / HEAD_PX[1]) ** 2
    return cv2.GaussianBlur(np.float32(from_centre < 1), (0, 0), 1.0)


def over(background: Face, picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """The picture's head over another clip's picture."""
    mask = head(x, y)
    return mask * picture + (1 - mask) * background.seen_at(X, Y)


def noisy(frames: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The frames as a camera stores them: uint8 [2, 224, 224]."""
    return np.clip(np.rint(np.stack(frames) + rng.normal(0, NOISE, (2, SIDE_PX, SIDE_PX))), 0, 255).astype(np.uint8)


MOTIONS = {
    "shift": drawn_shift,
    "zoom": drawn_zoom,
    "turn in the plane": drawn_roll,
    "head shifts": drawn_head,
    "head turns away": drawn_yaw,
}


def moved(values: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Values at the positions to which a field leads."""
    return cv2.remap(values, X + field[..., 0], Y + field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def stays_inside(field: np.ndarray) -> np.ndarray:
    """Pixels that a field does not lead out of the picture."""
    x, y = X + field[..., 0], Y + field[..., 1]
    return (x >= 0) & (x <= SIDE_PX - 1) & (y >= 0) & (y <= SIDE_PX - 1)


def length(field: np.ndarray) -> np.ndarray:
    """Length of each displacement."""
    return np.linalg.norm(field, axis=-1)


def print_drawn(known: list[Face], computers: dict[str, OpticalFlowComputer], times: int) -> None:
    """Error on drawn motion."""
    errors: dict[tuple[str, str, int], list[float]] = {}
    for kind, draw in MOTIONS.items():
        rng = np.random.default_rng(0)
        for px in LARGEST_PX:
            for _ in range(times):
                face, background = (known[i] for i in rng.choice(len(known), 2, replace=False))
                pair = draw(face, background, px, rng.uniform(0, 2 * np.pi), rng)
                for name, computer in computers.items():
                    off = length(computer.compute(pair.frames)[0] - pair.truth)[pair.face].mean()
                    errors.setdefault((name, kind, px), []).append(float(off))
    print(f"\nMean end-point error on the face (px), {times} drawn pairs each, by the largest displacement:\n")
    print("| | preset | " + " | ".join(f"{px} px" for px in LARGEST_PX) + " |")
    print("| --- | --- |" + " ---: |" * len(LARGEST_PX))
    for kind in (*MOTIONS, "all"):
        for name in computers:
            cells = [[errors[name, k, px] for k in MOTIONS if kind in (k, "all")] for px in LARGEST_PX]
            print(f"| {kind} | `{name}` | " + " | ".join(f"{np.mean(cell):.2f}" for cell in cells) + " |")


def print_real(known: list[Face], computers: dict[str, OpticalFlowComputer]) -> None:
    """Agreement with `exact`, warping error and consistency on real clips, and cost."""
    print("\n| real clips | preset | from `exact` | warping error | inconsistent | from small steps | CPU ms a pair |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for label, step in (("every frame", 1), ("the quickest of every frame", 0), *((f"every {s}th", s) for s in (4, 8))):
        runs = [run for face in known for run in (quickest(face) if step == 0 else regular(face, step))]
        pairs = [run[[0, -1]] for run in runs]
        exact = [computers["exact"].compute(pair)[0] for pair in pairs]
        chained = [chain(computers["exact"].compute(run)) for run in runs] if step > 1 else None
        for name, computer in computers.items():
            start = time.process_time()
            fields = [computer.compute(pair)[0] for pair in pairs]
            cost_ms = 1000 * (time.process_time() - start) / len(pairs)
            backwards = [computer.compute(pair[::-1])[0] for pair in pairs]
            rows = []
            for pair, field, back, reference in zip(pairs, fields, backwards, exact, strict=True):
                inside = stays_inside(field)
                first, second = np.float32(pair)
                warping = np.abs(moved(second, field) - first)[inside].mean()
                inconsistent = (length(moved(back, field) + field)[inside] > 1).mean()
                rows.append((length(field - reference).mean(), warping, inconsistent))
            apart, warping, inconsistent = np.mean(rows, axis=0)
            steps = "" if chained is None else f"{np.mean([*map(distance, fields, chained)]):.2f} px"
            print(
                f"| {label}, {len(pairs)} pairs | `{name}` | {apart:.3f} px | {warping:.2f} | {inconsistent:.1%} "
                f"| {steps} | {cost_ms:.1f} |"
            )


def regular(face: Face, step: int) -> list[np.ndarray]:
    """Runs of step + 1 frames, spread over a clip."""
    frames = [window[at : at + step + 1] for window in face.windows for at in (5, 25, 45)]
    return [run for run in frames if len(run) == step + 1][: 6 if step == 1 else 3]


def quickest(face: Face) -> list[np.ndarray]:
    """The three pairs of a clip whose frames differ most."""
    pairs = [window[at : at + 2] for window in face.windows for at in range(len(window) - 1)]
    return sorted(pairs, key=lambda pair: -float(cv2.absdiff(pair[0], pair[1]).mean()))[:3]


def chain(fields: np.ndarray) -> np.ndarray:
    """Displacement over all fields together, NaN for what leaves the picture."""
    total = fields[0]
    for field in fields[1:]:
        total = np.where(stays_inside(total)[..., None], total + moved(field, total), np.nan).astype(np.float32)
    return total


def distance(field: np.ndarray, reference: np.ndarray) -> float:
    """Mean end-point difference where the reference is known."""
    return float(np.nanmean(length(field - reference)))


def print_middlebury(corpus: Path, computers: dict[str, OpticalFlowComputer]) -> None:
    """End-point error on Middlebury's pairs."""
    folders = sorted(path.parent for path in corpus.glob("flow/*/flow10.flo"))
    print("\n| preset | " + " | ".join(folder.name for folder in folders) + " |\n| --- |" + " ---: |" * len(folders))
    for name, computer in computers.items():
        errors = []
        for folder in folders:
            frames = [cv2.imread(str(folder / f"frame{n}.png"), cv2.IMREAD_GRAYSCALE) for n in (10, 11)]
            truth = cv2.readOpticalFlow(str(folder / "flow10.flo"))
            known = np.abs(truth).max(axis=-1) < 1e9
            errors.append(length(computer.compute(np.stack(frames))[0] - truth)[known].mean())
        print(f"| `{name}` | " + " | ".join(f"{error:.3f}" for error in errors) + " |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS, help="folder of recordings")
    parser.add_argument("--times", type=int, default=8, help="drawn pairs of each kind and displacement")
    arguments: Any = parser.parse_args()
    cv2.setNumThreads(1)
    computers = {preset: OpticalFlowComputer("cpu", preset, threads=1) for preset in get_args(Preset)}
    known = list(faces(arguments.corpus))
    for computer in computers.values():
        computer.compute(known[0].windows[0][:2])  # compiles, takes memory
    print(f"{len(known)} clips")
    print_drawn(known, computers, arguments.times)
    print_real(known, computers)
    print_middlebury(arguments.corpus, computers)


if __name__ == "__main__":
    main()

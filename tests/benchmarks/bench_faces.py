"""Faces that each detector misses and makes up on recordings of known content, and its processor time.

    python tests/benchmarks/bench_faces.py CORPUS
    python tests/benchmarks/bench_faces.py CORPUS --every 2 3 5

The truth was written down by a person who looked at the pictures: how many faces each shows.

With `--every`, it compares the tracks of the First Impressions clips instead: those with detections in every second,
third and fifth frame with those of every frame. Pictures that are moved by one pixel show how exact these are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from extractors.faces.detector import FaceDetector
from extractors.faces.settings import FaceSettings
from extractors.faces.track import FaceTrack
from extractors.preparation.preparer import PreparationSettings, Preparer, Request
from extractors.preparation.stopwatch import Stopwatch
from extractors.video.grid import grid_frames
from flows.archive.families import face_models
from flows.config.load import load_config

FPS = 4.0
NOBODY = (
    *("no_face_cartoon", "no_face_earth", "no_face_rotated180_vfr", "digit_in_ellipse_false_face", "corrupted"),
    *("crashes_decoder_qcif_rgb", "rotated90_two_frames"),
)
TWO = ("two_faces_720p", "twofaces_grid")
# Frames at FPS in which the face is whole; None: half a face, which counts neither way.
FACE_LEAVES, FACE_COMES = range(6), range(16, 1000)


@dataclass
class Counts:
    """Faces shown, missed and made up, over a number of pictures."""

    pictures: int = 0
    shown: int = 0
    missed: int = 0
    false: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, shown: int | None, found: int, seconds: float) -> None:
        """Count one picture; found and shown faces are matched by number, for no picture here has others."""
        self.pictures += 1
        self.seconds.append(seconds)
        if shown is not None:
            self.shown += shown
            self.missed += max(0, shown - found)
            self.false += max(0, found - shown)


def pictures_of(corpus: Path) -> Iterator[tuple[str, np.ndarray, int | None]]:
    """Yield folder, picture and the number of faces that it shows."""
    for path in sorted((corpus / "stills").rglob("*.jpg")):
        yield "stills", cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), 1
    for folder in ("plain", "hard"):
        for path in sorted((corpus / folder).iterdir()):
            try:
                for number, picture in enumerate(grid_frames(path, FPS, thresholds=None)):
                    yield folder, picture, _faces(path.stem, number)
            except Exception as error:
                print(f"{path.name}: {error}")


def _faces(name: str, number: int) -> int | None:
    if name in NOBODY:
        return 0
    if name == "faceleaves_single_face":
        return 1 if number in FACE_LEAVES else None
    if name == "noface_then_face_vfr":
        return int(number in FACE_COMES)
    return 2 if name in TWO else 1


class Moved:
    """Detects faces in pictures that are moved to the right by one pixel."""

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector

    def detect(self, image: np.ndarray) -> np.ndarray:
        moved = cv2.copyMakeBorder(image[:, :-1], 0, 0, 1, 0, cv2.BORDER_REPLICATE)
        return self._detector.detect(moved) - np.array([1, 0, 0, 0, 0, 1, 0, 1, 0], np.float32)

    def confirms(self, sample: np.ndarray) -> bool:
        return self._detector.confirms(sample)


def differences(track: FaceTrack, other: FaceTrack) -> np.ndarray:
    """How far boxes' centres, their sides, and the farther eye differ, float [frames, 3], in sides of the box."""
    both = track.tracked & other.tracked
    boxes, others = track.boxes[both], other.boxes[both]
    side = boxes[:, 2:].max(axis=1)
    centre = np.linalg.norm(boxes[:, :2] + boxes[:, 2:] / 2 - others[:, :2] - others[:, 2:] / 2, axis=1)
    eyes = np.linalg.norm((track.eyes - other.eyes)[both].reshape(-1, 2, 2), axis=2).max(axis=1)
    return np.stack([centre, np.abs(others[:, 2:].max(axis=1) - side), eyes], axis=1) / side[:, None]


def compare_tracks(corpus: Path, every: Sequence[int]) -> None:
    """Print how tracks with fewer detections differ, and the processor time of preparing a clip."""
    config = load_config(flags={"weights": "random"})
    optical_flow = config.optical_flow.model_copy(update={"engine": "gpu"})  # which leaves it to another process
    ways = ["every frame", *(f"every {k}." for k in every), "moved by 1 px"]
    found: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    first, *others = sorted((corpus / "fi_v2").glob("*.mp4"))
    with ExitStack() as resources:
        preparers = []
        for k in (1, *every, 1):
            faces = config.faces.model_copy(update={"detect_every": k})
            settings = PreparationSettings(face_models(config), config.video, faces, config.crops, optical_flow)
            preparers.append(resources.enter_context(Preparer(settings, lambda: None)))
        preparers[-1]._detector = Moved(preparers[-1]._detector)
        for number, clip in enumerate([first, first, *others]):
            tracks = []
            for way, preparer in zip(ways, preparers, strict=True):
                watch, start = Stopwatch(time.process_time), time.process_time()
                track, *_ = preparer.prepare(Request(clip, static=True, dynamic=True), watch)
                tracks.append(track)
                if number > 0:  # what is loaded at the first use does not count
                    seconds[way].append((watch.seconds["faces"], time.process_time() - start))
                    found[way].append(differences(tracks[0], track))
    print("| detection | faces (s) | preparing a clip (s) | centre | side | eyes |\n| --- | " + "---: | " * 5)
    for way in ways:
        off = 100 * np.concatenate(found[way])
        cells = [f"{mean:.2f}, {high:.2f}" for mean, high in zip(off.mean(0), np.percentile(off, 95, 0), strict=True)]
        print("|", " | ".join([way, *(f"{value:.2f}" for value in np.mean(seconds[way], axis=0)), *cells]), "|")
    print("centre, side, eyes: mean and 95th percentile of the difference from every frame, in % of the box's side")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument(
        "--every", type=int, nargs="+", default=[], help="compare tracks with detections as rare as that"
    )
    parsed = parser.parse_args(arguments)
    corpus = parsed.corpus
    cv2.setNumThreads(1)
    if parsed.every:
        compare_tracks(corpus, parsed.every)
        return
    models = face_models(load_config())
    pictures = [(folder, picture.copy(), shown) for folder, picture, shown in pictures_of(corpus)]
    (first, *_) = sorted((corpus / "fi_v2").glob("*.mp4"))
    usual = [picture.copy() for picture in grid_frames(first, 2.0, thresholds=None)]
    print("| network | folder | pictures | faces | missed | false | ms a picture |\n| --- | --- | " + "---: | " * 5)
    for model in get_args(FaceSettings.model_fields["model"].annotation):
        with FaceDetector(models, FaceSettings(model=model)) as detector:
            counts: dict[str, Counts] = {}
            for folder, picture, shown in [*pictures, *(("fi_v2", picture, 1) for picture in usual)]:
                start = time.process_time()
                found = len(detector.detect(picture))
                counts.setdefault(folder, Counts()).add(shown, found, time.process_time() - start)
        for folder, count in counts.items():
            cost = 1000 * float(np.median(count.seconds))
            cells = (model, folder, count.pictures, count.shown, count.missed, count.false, f"{cost:.1f}")
            print("|", " | ".join(map(str, cells)), "|")


if __name__ == "__main__":
    main()

"""Faces that each detector misses and makes up on recordings of known content, and its processor time.

    python tests/benchmarks/bench_faces.py CORPUS

The truth was written down by a person who looked at the pictures: how many faces each shows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from extractors.faces.detector import FaceDetector
from extractors.faces.settings import FaceSettings
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    corpus = parser.parse_args(arguments).corpus
    cv2.setNumThreads(1)
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

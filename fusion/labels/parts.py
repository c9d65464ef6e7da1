"""The parts of a split, training, validation and test, and their names in label files and folders."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal, get_args

Part = Literal["training", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

# Spellings that people and data sets use: "train-1", "Training", "val", "valid_2", "test80_01"; but not "valerie".
_WORDS: tuple[tuple[Part, str], ...] = (
    ("training", "train(ing)?"),
    ("validation", "val(id(ation)?)?"),
    ("test", "test(ing)?"),
)


def part_named(word: str) -> Part | None:
    """Return the part that a word names, ignoring case and a number after it; None if it names none."""
    return next((part for part, form in _WORDS if re.fullmatch(f"{form}([^a-z].*)?", word.strip().lower())), None)


def part_of_path(video_id: str) -> Part | None:
    """Return the part that a video's folders name, outermost first, as in `train/train-1/x.mp4`; None if none does."""
    named = (part_named(folder) for folder in PurePosixPath(video_id).parts[:-1])
    return next((part for part in named if part is not None), None)

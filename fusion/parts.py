"""The parts of a split into training, validation and test, as label files and folders name them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal, get_args

Part = Literal["training", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

# As people and data sets write them: "train-1", "Training", "val", "valid_2", "test80_01"; but not "valerie".
_WORDS = (("training", "train(ing)?"), ("validation", "val(id(ation)?)?"), ("test", "test(ing)?"))


def part_named(word: str) -> Part | None:
    """The part that a word stands for, whatever its case and what number follows; None where it stands for none."""
    return next((part for part, form in _WORDS if re.fullmatch(f"{form}([^a-z].*)?", word.strip().lower())), None)


def part_of_path(video_id: str) -> Part | None:
    """The part that a video's folders name, the outermost first, as in `train/train-1/x.mp4`; None where none does."""
    named = (part_named(folder) for folder in PurePosixPath(video_id).parts[:-1])
    return next((part for part in named if part is not None), None)

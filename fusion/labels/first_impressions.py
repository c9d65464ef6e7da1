"""The label files of ChaLearn First Impressions V2 as distributed: Python 2 pickles, read without executing them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fusion.errors import LabelError, some_of
from fusion.labels.parts import PARTS, Part
from fusion.labels.plain_pickle import read_plain_pickle
from fusion.traits import TRAITS

# Clips are named after the YouTube video they are cut from, whose id has 11 characters: "-AmMDnVl4s8.003.mp4".
YOUTUBE_ID_LENGTH = 11

_FILES: dict[Part, str] = {part: f"annotation_{part}.pkl" for part in PARTS}


def part_of_file(path: Path) -> Part | None:
    """Return the part of the official split that an annotation pickle belongs to, by its name; None for other names."""
    return next((part for part, name in _FILES.items() if path.name == name), None)


def annotation_files(folder: Path) -> list[Path]:
    """Return the annotation pickles in a folder or its subfolders, in the order of the parts.

    Raises:
        LabelError: there are none, or a name occurs twice.
    """
    found = []
    for name in _FILES.values():
        paths = sorted(folder.rglob(name))
        if len(paths) > 1:
            raise LabelError(f"{folder} holds {name} more than once ({paths[0]}, {paths[1]}): keep one")
        found += paths
    if not found:
        raise LabelError(
            f"{folder} holds none of {', '.join(_FILES.values())}: name one of these files, or their folder"
        )
    return found


def read_first_impressions(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Read clip names, values and subjects from an annotation pickle.

    The pickle is a dict trait -> clip name -> number in [0, 1], with a sixth entry "interview" that is ignored.

    Args:
        path: `annotation_training.pkl`, `annotation_validation.pkl` or `annotation_test.pkl`.

    Returns:
        N clip names, float64 [N, 5] in trait order as stored in the file, and N subjects (YouTube ids).

    Raises:
        LabelError: it is not such a file, or it would run code when unpickled.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    try:
        table = read_plain_pickle(content)
    except ValueError as error:
        raise LabelError(
            f"{path} is not a First Impressions label file ({error}): use annotation_*.pkl as distributed, "
            "or write the labels as CSV or Parquet"
        ) from error
    if not isinstance(table, Mapping) or not all(isinstance(table.get(trait), Mapping) for trait in TRAITS):
        raise LabelError(f"{path} does not hold a table per trait ({', '.join(TRAITS)}): use annotation_*.pkl")
    names = list(table[TRAITS[0]])
    lacking = sorted({name for trait in TRAITS for name in table[trait].keys() ^ table[TRAITS[0]].keys()})
    if lacking:
        raise LabelError(f"{path} lacks a trait of {some_of(lacking)}")
    try:
        values = np.array([[float(table[trait][name]) for trait in TRAITS] for name in names], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise LabelError(f"{path} holds a value that is not a number ({error})") from error
    return names, values.reshape(len(names), len(TRAITS)), [name[:YOUTUBE_ID_LENGTH] for name in names]

"""The clips that a predictor learns from and is evaluated on, and the leakage between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from fusion.errors import TrainingError
from fusion.labels.parts import PARTS, Part
from fusion.labels.split import folds_by_subject, sides_of


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Indices of the clips to learn from and of the clips to evaluate on, each ascending."""

    train: np.ndarray
    test: np.ndarray


def official_split(parts: Sequence[Part | None]) -> Fold | None:
    """Learn from the training part and evaluate on the test part, or on the validation part if there is no test part.

    None if there is no training part or no other part.
    """
    rows = {part: np.flatnonzero([part == own for own in parts]) for part in PARTS}
    held_out = rows["test"] if len(rows["test"]) else rows["validation"]
    return Fold(rows["training"], held_out) if len(rows["training"]) and len(held_out) else None


def subject_folds(subjects: Sequence[str], count: int, seed: int = 0) -> list[Fold]:
    """Split clips into folds so that no person is in two of them; every clip is evaluated once.

    Args:
        subjects: the person in each of N clips; TrainingError if there is only one.
        count: number of folds; at most the number of subjects is used.
    """
    if len(set(subjects)) < 2:
        raise TrainingError("folds need clips of at least 2 subjects, there is 1: add labelled videos of other people")
    return [Fold(*rows) for rows in sides_of(folds_by_subject(subjects, count, seed))]


def leakage(fold: Fold, subjects: Sequence[str]) -> dict[str, Any]:
    """Count the people on both sides: the predictor may recognise such a person instead of judging the clip.

    Returns:
        "subjects_in_both", "test_subjects"; "test_clips", "test_clips_of_known_subjects" and their share,
        "share_of_known_subjects".
    """
    names = np.asarray(subjects, str)
    known = np.isin(names[fold.test], names[fold.train])
    return {
        "test_subjects": len(np.unique(names[fold.test])),
        "subjects_in_both": len(np.unique(names[fold.test][known])),
        "test_clips": len(fold.test),
        "test_clips_of_known_subjects": int(known.sum()),
        "share_of_known_subjects": float(known.mean()),
    }


def shared_subjects(parts: Sequence[Part | None], subjects: Sequence[str]) -> dict[str, int]:
    """Return the number of subjects that each pair of official parts shares, by "training and test" and so on."""
    people = {
        part: {subject for own, subject in zip(parts, subjects, strict=True) if own == part}
        for part in PARTS
        if part in parts
    }
    return {f"{one} and {other}": len(people[one] & people[other]) for one, other in combinations(people, 2)}

"""Holding out people rather than clips: a model may recognise a person in both parts instead of judging the clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def split_by_subject(subjects: Sequence[str], validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split clips into training and validation so that no subject is in both.

    Subjects are drawn in random order until the validation part is closest to its share of the clips; each part keeps
    at least one subject.

    Args:
        subjects: the person in each of N clips.
        validation_fraction: share of the clips to hold out, in [0, 1); 0 holds out none.

    Returns:
        Indices of the training clips and of the validation clips, each ascending. The second is empty if the fraction
        is 0 or if there is only one subject.
    """
    names, subject_of_clip, clip_counts = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    if validation_fraction == 0 or len(names) < 2:
        return np.arange(len(subject_of_clip)), np.zeros(0, int)
    drawn = np.random.default_rng(seed).permutation(len(names))
    held_out = np.cumsum(clip_counts[drawn])[:-1]
    subject_count = 1 + int(np.argmin(np.abs(held_out - validation_fraction * len(subject_of_clip))))
    in_validation = np.isin(subject_of_clip, drawn[:subject_count])
    return np.flatnonzero(~in_validation), np.flatnonzero(in_validation)


def folds_by_subject(subjects: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Return the fold of each clip, int [N] from 0; no subject is in two folds, and none is empty.

    Args:
        subjects: the person in each of N clips, at least two people.
        count: number of folds; at most the number of people is used.
    """
    from sklearn.model_selection import GroupKFold  # takes a second to import

    groups = np.asarray(subjects, str)
    folds = np.zeros(len(groups), int)
    splits = GroupKFold(min(count, len(np.unique(groups))), shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splits.split(groups, groups=groups)):
        folds[held_out] = number
    return folds


def sides_of(folds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows outside each fold and those in it, ascending, from the fold of each row, int [N] from 0."""
    for fold in range(folds.max() + 1):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)

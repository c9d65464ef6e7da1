"""Grouping of detections into persons, and the choice of the main person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extractors.faces.boxes import overlaps

# Intersection over union of two boxes of one face in successive frames: a head that moves by half its width in 1/25 s
# still has a third.
SAME_PERSON_OVERLAP = 0.3
# A person who is lost (hand before the face, looking away) and found in the same place is the same person.
MEMORY_S = 3.0
# A change to a box elsewhere must show a face as large as the video's main one for at least this long.
JUMP_S = 1.0
# The time for the choice grows with the square of this: hours of cuts have some thousand real persons, hours of foliage
# have hundreds of thousands of false ones.
MAX_PERSONS = 4000


@dataclass(frozen=True)
class Person:
    """Detections of one person.

    Args:
        frames: int [n], grid frames in ascending order.
        faces: float32 [n, 9]: x, y, width, height in px, score, then x, y of the right and the left eye in px, NaN if
            unknown.
    """

    frames: np.ndarray
    faces: np.ndarray


def persons(detections: Sequence[np.ndarray], shots: np.ndarray, *, fps: float) -> list[Person]:
    """Assign each frame's faces to the persons of the last MEMORY_S in the same shot, best overlap first.

    Args:
        detections: for each grid frame float32 [n, 9], as in `Person`.
        shots: int [frames], number of each frame's shot, non-decreasing.
        fps: grid frames per second.
    """
    memory = MEMORY_S * fps
    members: list[list[tuple[int, np.ndarray]]] = []
    recent: list[int] = []
    shot_starts = np.diff(shots, prepend=-1) > 0
    for frame, faces in enumerate(detections):
        if shot_starts[frame]:
            recent = []
        recent = [person for person in recent if frame - members[person][-1][0] <= memory]
        owners: dict[int, int] = {}
        if recent and len(faces):
            last = np.stack([members[person][-1][1] for person in recent])
            shared = overlaps(last[:, None], faces[None])
            while shared.max() >= SAME_PERSON_OVERLAP:
                best = divmod(int(shared.argmax()), len(faces))
                owners[best[1]] = recent[best[0]]
                shared[best[0], :] = shared[:, best[1]] = -1.0
        for column, face in enumerate(faces):
            if column not in owners:
                owners[column] = len(members)
                recent.append(len(members))
                members.append([])
            members[owners[column]].append((frame, face))
    return [
        Person(np.array([frame for frame, _ in member]), np.stack([face for _, face in member])) for member in members
    ]


def main_sequence(everyone: Sequence[Person], *, fps: float) -> list[Person]:
    """Choose persons who follow each other without overlap in time, so that the most face is visible.

    A face counts score times side; each change to a person elsewhere costs JUMP_S of the main face. Two persons who are
    visible at the same time are different people, so at most one of them is chosen.

    Returns:
        The chosen persons in order of time; empty if there is nobody.
    """
    if not everyone:
        return []
    sides = [np.sqrt(person.faces[:, 2] * person.faces[:, 3]) for person in everyone]
    seen = np.array([float(np.sum(person.faces[:, 4] * side)) for person, side in zip(everyone, sides, strict=True)])
    worth = seen / float(np.median(sides[int(seen.argmax())]))
    most = np.argsort(-worth, kind="stable")[:MAX_PERSONS].tolist()
    order = sorted(most, key=lambda index: int(everyone[index].frames[-1]))
    everyone, worth = [everyone[index] for index in order], worth[order]
    first = np.array([person.frames[0] for person in everyone])
    last = np.array([person.frames[-1] for person in everyone])
    first_faces = np.stack([person.faces[0] for person in everyone])
    last_faces = np.stack([person.faces[-1] for person in everyone])

    # Longest path through persons ordered by their end: best[j] is the most that a sequence ending with j earns.
    best = worth.copy()
    before = np.full(len(everyone), -1)
    for j in range(len(everyone)):
        earlier = int(np.searchsorted(last[:j], first[j]))
        if earlier == 0:
            continue
        earned = best[:earlier] - JUMP_S * fps * (1.0 - overlaps(last_faces[:earlier], first_faces[j]))
        i = int(earned.argmax())
        if earned[i] > 0:
            best[j] += earned[i]
            before[j] = i
    chosen = []
    j = int(best.argmax())
    while j >= 0:
        chosen.append(everyone[j])
        j = int(before[j])
    return chosen[::-1]

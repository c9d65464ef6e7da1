"""Grouping of detections into tracklets, and of tracklets into people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from extractors.faces.boxes import overlaps

# Intersection over union of two boxes of one face in successive frames: a head that moves by half its width in 1/25 s
# still has a third.
SAME_PERSON_OVERLAP = 0.3
# A person who is lost (hand before the face, looking away) and found in the same place is the same person.
MEMORY_S = 3.0
# Cosine from which two faces count as one person's. OpenCV's .363 for SFace takes one man for another in photographs,
# which reach .46; pieces of one person's video have .68 or more (docs/explanation/quality.md).
SAME_PERSON_COSINE = 0.5
# Faces narrower than this, in px, show too little for that; two people's reach .36 there.
SMALL_PX, SAME_SMALL_COSINE = 48, 0.363
# Bounds on the time that grouping takes: hours of cuts have some thousand tracklets, hours of foliage many more.
MAX_TRACKLETS, MAX_PEOPLE = 4000, 100


@dataclass(frozen=True)
class Tracklet:
    """Detections of one person in one shot.

    Args:
        frames: int [n], grid frames in ascending order.
        faces: float32 [n, 9]: x, y, width, height in px, score, then x, y of the right and the left eye in px, NaN if
            unknown.
    """

    frames: np.ndarray
    faces: np.ndarray

    @property
    def seen(self) -> float:
        """How much of the person is seen: the sum of score times side of the face, in px."""
        return float(np.sum(self.faces[:, 4] * np.sqrt(self.faces[:, 2] * self.faces[:, 3])))

    def detections(self) -> Iterator[tuple[int, list[float]]]:
        """Yield frame and face of each detection."""
        yield from zip(self.frames.tolist(), self.faces.tolist(), strict=True)


def tracklets(detections: Sequence[np.ndarray], parts: np.ndarray, *, fps: float) -> list[Tracklet]:
    """Assign each frame's faces to the tracklets of the last MEMORY_S in the same part, best overlap first.

    Args:
        detections: for each grid frame float32 [n, 9], as in `Tracklet`.
        parts: int [frames], number of the part of the video that each frame belongs to: a shot, or a few frames that
            interrupt one.
    """
    memory = MEMORY_S * fps
    members: list[list[tuple[int, np.ndarray]]] = []
    recent: list[int] = []
    for frame, faces in enumerate(detections):
        recent = [number for number in recent if frame - members[number][-1][0] <= memory]
        near = [number for number in recent if parts[members[number][-1][0]] == parts[frame]]
        owners: dict[int, int] = {}
        if near and len(faces):
            last = np.stack([members[number][-1][1] for number in near])
            shared = overlaps(last[:, None], faces[None])
            while shared.max() >= SAME_PERSON_OVERLAP:
                best = divmod(int(shared.argmax()), len(faces))
                owners[best[1]] = near[best[0]]
                shared[best[0], :] = shared[:, best[1]] = -1.0
        for column, face in enumerate(faces):
            if column not in owners:
                owners[column] = len(members)
                recent.append(len(members))
                members.append([])
            members[owners[column]].append((frame, face))
    return [
        Tracklet(np.array([frame for frame, _ in member]), np.stack([face for _, face in member])) for member in members
    ]


def people(found: Sequence[Tracklet], vectors: np.ndarray) -> list[list[Tracklet]]:
    """Group tracklets by person. Those of one person are alike, and never two of them are in one frame.

    Tracklets that show the most come first, and join the person whom they are most like; then people who are alike are
    joined.

    Args:
        vectors: float32 [tracklets, d], of length 1, by `extractors.faces.recognizer`. NaN if there is none: then the
            tracklet counts as a person.

    Returns:
        The tracklets of each person, in the order of time; who is seen most comes first.
    """
    amounts = [tracklet.seen for tracklet in found]
    order = np.argsort(-np.array(amounts), kind="stable").tolist()
    groups: list[_Group] = []
    for number in order[:MAX_TRACKLETS]:
        width = float(np.median(found[number].faces[:, 2]))
        single = _Group([number], set(found[number].frames.tolist()), amounts[number] * vectors[number], width)
        best = max(groups, key=single.likeness, default=None) if single.is_known else None
        if best is not None and single.likeness(best) > 0:
            best.take(single)
        else:
            groups.append(single)
    known = [group for group in groups if group.is_known][:MAX_PEOPLE]
    while len(known) > 1:
        likeness, first, second = max(
            (one.likeness(other), place, after)
            for place, one in enumerate(known)
            for after, other in enumerate(known[place + 1 :], place + 1)
        )
        if likeness <= 0:
            break
        known[first].take(known[second])
        groups.remove(known.pop(second))
    groups.sort(key=lambda group: -sum(amounts[number] for number in group.members))
    return [sorted((found[number] for number in group.members), key=lambda one: int(one.frames[0])) for group in groups]


@dataclass(eq=False)
class _Group:
    """Tracklets of one person.

    Args:
        vector: the sum of their vectors by how much they show.
        width: of the face in the tracklet where it is largest, in px.
    """

    members: list[int]
    frames: set[int]
    vector: np.ndarray
    width: float

    @property
    def is_known(self) -> bool:
        return not bool(np.isnan(self.vector).any())

    def likeness(self, other: _Group) -> float:
        """Return the cosine between both; -1 if they are different people: seen together, or not alike enough."""
        if not self.frames.isdisjoint(other.frames) or not other.is_known:
            return -1.0
        cosine = float(self.vector @ other.vector / (np.linalg.norm(self.vector) * np.linalg.norm(other.vector)))
        small = min(self.width, other.width) < SMALL_PX
        return cosine if cosine >= (SAME_SMALL_COSINE if small else SAME_PERSON_COSINE) else -1.0

    def take(self, other: _Group) -> None:
        """Add the other's tracklets."""
        self.members += other.members
        self.frames |= other.frames
        self.vector = self.vector + other.vector
        self.width = max(self.width, other.width)

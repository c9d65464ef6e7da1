"""The faces in the pictures of a video, detected in each of them or only as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import numpy as np

from extractors.faces.boxes import overlaps
from extractors.faces.settings import FaceSettings

# Two detections agree if their boxes share this much of their union. Then the tracks of ten talking people differ from
# those with a detection in every frame about as much as after encoding the videos again (docs/explanation/speed.md).
AGREEMENT = 0.9
# Pictures are compared at up to 2 x COMPARED_PX places in each direction; NOISE is in grey levels.
COMPARED_PX, NOISE = 32, 8.0

Detect = Callable[[np.ndarray], np.ndarray]


def pictures_with_faces(
    pictures: Iterable[np.ndarray], detect: Detect, settings: FaceSettings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each picture with the faces in it.

    Faces are detected in every settings.detect_every-th picture. If two such detections agree, the boxes, scores and
    eyes in the pictures between them lie on straight lines. Otherwise, faces are detected in the picture halfway
    between, too, and so on. Detections agree if they are of the same faces, at least one, in nearly the same places,
    and sure of them, and if no picture between is unlike both.

    Args:
        pictures: a repeated one is the same object, and gets the same faces. Up to settings.detect_every + 1 are held.
        detect: finds the faces in a picture, float32 [n, 9], as `FaceDetector.detect` does.
    """
    run: list[list[np.ndarray]] = []  # pictures, with repetitions; faces are known in the first one
    for picture in pictures:
        if not run:
            run, faces = [[picture]], detect(picture)
        elif picture is not run[-1][0]:
            run.append([picture])
        elif len(run) > 1:
            run[-1].append(picture)
            continue
        if len(run) == 1:
            yield picture, faces
        elif len(run) > settings.detect_every:
            faces = yield from _finished(run, faces, detect, settings)
            run = run[-1:]
    if len(run) > 1:
        yield from _finished(run, faces, detect, settings)


def _finished(
    run: Sequence[list[np.ndarray]], first: np.ndarray, detect: Detect, settings: FaceSettings
) -> Generator[tuple[np.ndarray, np.ndarray], None, np.ndarray]:
    """Yield the pictures of a run after the first with their faces; return the faces in the last one."""
    last = detect(run[-1][0])
    between = _between([repeats[0] for repeats in run], first, last, detect, settings)
    for repeats, faces in zip(run[1:], [*between, last], strict=True):
        for picture in repeats:
            yield picture, faces
    return last


def _between(
    run: Sequence[np.ndarray], first: np.ndarray, last: np.ndarray, detect: Detect, settings: FaceSettings
) -> list[np.ndarray]:
    """Return the faces in the pictures between the first and the last one of a run."""
    if len(run) <= 2:
        return []
    same = _partners(first, last, settings.sure_score)
    if same is not None and _is_even(run):
        shares = np.arange(1, len(run) - 1) / (len(run) - 1)
        return [((1 - share) * first + share * last[same]).astype(np.float32) for share in shares]
    middle = len(run) // 2
    faces = detect(run[middle])
    before = _between(run[: middle + 1], first, faces, detect, settings)
    return [*before, faces, *_between(run[middle:], faces, last, detect, settings)]


def _partners(first: np.ndarray, last: np.ndarray, sure_score: float) -> np.ndarray | None:
    """Return the place in `last` of each face of `first`, int [n]; None unless both detections agree."""
    if len(first) == 0 or len(first) != len(last) or min(first[:, 4].min(), last[:, 4].min()) < sure_score:
        return None
    # Faces of one picture hardly overlap, so that no two of them have the same partner.
    shared = overlaps(first[:, None], last[None])
    return np.asarray(shared.argmax(axis=1)) if shared.max(axis=1).min() >= AGREEMENT else None


def _is_even(run: Sequence[np.ndarray]) -> bool:
    """Return whether each picture of a run lies between the first and the last, unlike a flash or a broken frame."""
    step = max(1, max(run[0].shape[:2]) // COMPARED_PX)
    first, *others, last = (picture[::step, ::step].astype(np.int16) for picture in run)
    allowed = 2 * (_difference(first, last) + NOISE)
    return all(_difference(first, other) + _difference(other, last) <= allowed for other in others)


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).mean())

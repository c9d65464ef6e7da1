"""The quality of a video: how much of it decodes, how well its main person is visible, and who else appears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from extractors.errors import VideoError
from extractors.faces.settings import FaceSettings

# Faces that are seen in a smaller share of the frames are passers-by or false detections.
PEOPLE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Quality:
    """Facts about one video, each a column of its features and of exports.

    Args:
        face_coverage: share of grid frames in which the main person's face was detected, 0 to 1.
        face_gaps: runs of grid frames without it, including those at both ends (count).
        longest_gap_s: duration of the longest such run, in seconds.
        people: people whose face was detected in at least 5% of the grid frames, at least 1 (count).
        others_share: share of grid frames with the face of somebody else, 0 to 1.
        cuts: changes from one shot to the next (count).
        confirmed_share: share of the sampled pictures of the main person that a second, independent detector confirms
            as a face, 0 to 1.
        decoded_share: decoded share of the frames that the file promises, or of its duration if it promises no frames,
            at most 1; NaN if it promises neither. Frames before the first key frame are not promised.
        repeated_share: share of grid frames that repeat the one before because the file has no newer frame yet, 0 to 1.
    """

    face_coverage: float
    face_gaps: float
    longest_gap_s: float
    people: float
    others_share: float
    cuts: float
    confirmed_share: float
    decoded_share: float
    repeated_share: float


QUALITY = tuple(field.name for field in fields(Quality))


def quality_of(
    scores: np.ndarray,
    faces: np.ndarray,
    confirmed: Sequence[bool],
    *,
    fps: float,
    frames_by_person: Sequence[int],
    cuts: int,
    decoded_share: float,
    repeated_share: float,
) -> Quality:
    """Compute the facts about one video.

    Args:
        scores: float32 [F], the main person's score in each grid frame, 0 without a detection.
        faces: int [F], number of all faces in each grid frame.
        confirmed: whether the second detector confirms each sampled picture of the main person.
        frames_by_person: number of frames in which each person's face was detected.
        cuts, decoded_share, repeated_share: see `Quality`.
    """
    seen = scores > 0
    # A gap lies between two neighbouring frames with the face, one of which may be imagined at each end.
    marks = [-1, *np.flatnonzero(seen).tolist(), len(seen)]
    gaps = [after - before - 1 for before, after in pairwise(marks) if after - before > 1]
    return Quality(
        face_coverage=float(seen.mean()),
        face_gaps=len(gaps),
        longest_gap_s=max(gaps, default=0) / fps,
        people=max(1, sum(count >= PEOPLE_SHARE * len(seen) for count in frames_by_person)),
        others_share=float((faces - seen > 0).mean()),
        cuts=cuts,
        confirmed_share=float(np.mean(confirmed)) if len(confirmed) else 0.0,
        decoded_share=decoded_share,
        repeated_share=repeated_share,
    )


def check_quality(quality: Quality, settings: FaceSettings) -> None:
    """Refuse a video whose quality misses a threshold.

    Raises:
        VideoError: stage "faces"; reason "low_coverage", "many_gaps", "long_gap", "false_face" or "several_people".
    """
    if quality.face_coverage < settings.min_coverage:
        needed = f"(at least {settings.min_coverage:.0%} needed)"
        message = f"the main person's face is visible in {quality.face_coverage:.1%} of the frames {needed}"
        raise VideoError("faces", "low_coverage", message)
    if settings.max_gaps is not None and quality.face_gaps > settings.max_gaps:
        message = f"the main person's face is lost {quality.face_gaps:.0f} times (at most {settings.max_gaps} allowed)"
        raise VideoError("faces", "many_gaps", message)
    if settings.max_absence_s is not None and quality.longest_gap_s > settings.max_absence_s:
        allowed = f"(at most {settings.max_absence_s:g} s allowed)"
        message = f"the main person's face is out of sight for {quality.longest_gap_s:.1f} s {allowed}"
        raise VideoError("faces", "long_gap", message)
    if quality.confirmed_share < settings.min_confirmed_share:
        confirmed = f"{quality.confirmed_share:.0%} of the pictures of the supposed face"
        message = f"a second detector confirms {confirmed} (at least {settings.min_confirmed_share:.0%} needed)"
        raise VideoError("faces", "false_face", message)
    if quality.others_share > settings.max_others_share:
        allowed = f"(at most {settings.max_others_share:.0%} allowed)"
        message = f"somebody else's face is visible as well in {quality.others_share:.1%} of the frames {allowed}"
        raise VideoError("faces", "several_people", message)

"""Drawn clips in which a trait is the motion at the moment at which the face has a given look.

Which of the face tokens has the look is drawn for each clip, and so is the motion at every moment. The face alone says
nothing about the trait, and of all the motion only one moment counts: nothing that pools faces and motion separately
can express it. The mean over the motion tokens has an R2 of one over their number, for it contains the one that counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fusion.clips.tokens import ClipTokens

MARKER_SD = 6.0
LABEL_MEAN, LABEL_SD = 0.5, 0.15


@dataclass(frozen=True, eq=False)
class PlantedClips:
    """N clips, their labels float32 [N, 5], one person each, and for each clip which tokens count."""

    clips: list[ClipTokens]
    labels: np.ndarray
    subjects: list[str]
    marked_static: np.ndarray
    marked_dynamic: np.ndarray


def planted_clips(
    count: int, *, seed: int, static_tokens: int = 16, dynamic_tokens: int = 8, dim: int = 16
) -> PlantedClips:
    """Draw clips: every number is standard normal, but that one face token has 6 more in its first number.

    All five traits follow the first number of the motion token nearest in time to that face: three rise with it, two
    fall.

    Args:
        count: N.
        seed: of all that is drawn.
        static_tokens: face tokens in a clip, one a second; a multiple of `dynamic_tokens`.
        dynamic_tokens: motion tokens, each in the middle of its share of the clip.
        dim: numbers in a token.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(count)
    static = rng.normal(size=(count, static_tokens, dim)).astype(np.float32)
    dynamic = rng.normal(size=(count, dynamic_tokens, dim)).astype(np.float32)
    faces_per_motion = static_tokens // dynamic_tokens
    static_time_s = (np.arange(static_tokens) + 0.5).astype(np.float32)
    dynamic_time_s = ((np.arange(dynamic_tokens) + 0.5) * faces_per_motion).astype(np.float32)
    marked_static = rng.integers(static_tokens, size=count)
    marked_dynamic = marked_static // faces_per_motion
    static[rows, marked_static, 0] += MARKER_SD
    motion = dynamic[rows, marked_dynamic, 0]
    labels = LABEL_MEAN + LABEL_SD * np.stack([motion, -motion, motion, -motion, motion], axis=1)
    clips = [ClipTokens(f"{row}.mp4", static[row], static_time_s, dynamic[row], dynamic_time_s) for row in rows]
    return PlantedClips(
        clips, labels.astype(np.float32), [f"person {row}" for row in rows], marked_static, marked_dynamic
    )


def with_motion_of_others(clips: list[ClipTokens], seed: int) -> list[ClipTokens]:
    """Give every clip the motion tokens of another one, drawn."""
    donors = np.roll(np.random.default_rng(seed).permutation(len(clips)), 1)
    receivers = np.roll(donors, 1)
    dynamic = {receiver: clips[donor].dynamic for receiver, donor in zip(receivers, donors, strict=True)}
    return [replace(clip, dynamic=dynamic[row]) for row, clip in enumerate(clips)]

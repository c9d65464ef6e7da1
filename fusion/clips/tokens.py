"""The tokens of one clip, and batches of clips of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class ClipTokens:
    """The model's input for one video: face tokens and motion tokens, each with its time.

    Attributes:
        static: float32 [Ts, Ds], one row per face crop, Ts >= 1.
        static_time_s: float32 [Ts], the time of each face, in seconds from the start of the video.
        dynamic: float32 [Td, Dd], one row per optical-flow window, Td >= 1.
        dynamic_time_s: float32 [Td], the middle of each window, in seconds.

    Raises:
        InputError: they are not arrays of numbers, a shape is wrong, there is no token, or a number is not finite.
    """

    video_id: str
    static: np.ndarray
    static_time_s: np.ndarray
    dynamic: np.ndarray
    dynamic_time_s: np.ndarray

    def __post_init__(self) -> None:
        for kind, vectors, time_s in (
            ("static", self.static, self.static_time_s),
            ("dynamic", self.dynamic, self.dynamic_time_s),
        ):
            for what, given in (("tokens", vectors), ("times", time_s)):
                if not isinstance(given, np.ndarray) or given.dtype.kind not in "fiu":
                    found = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
                    raise InputError(f"{self.video_id}: {kind} {what} must be a float32 array, got {found}")
            if vectors.ndim != 2 or 0 in vectors.shape:
                raise InputError(f"{self.video_id}: {kind} tokens must be [T >= 1, D >= 1], got {vectors.shape}")
            if time_s.shape != vectors.shape[:1]:
                raise InputError(f"{self.video_id}: {kind} times must be [{len(vectors)}], got {time_s.shape}")
            if not (np.isfinite(vectors).all() and np.isfinite(time_s).all()):
                raise InputError(f"{self.video_id}: {kind} tokens or times hold a number that is not finite")


def pad_batch(clips: Sequence[ClipTokens]) -> dict[str, np.ndarray]:
    """Stack clips of different lengths into one batch, padded with zeros to the length of the longest.

    Args:
        clips: one or more clips with the same token dimensions.

    Returns:
        "static" float32 [B, Ts, Ds], "dynamic" float32 [B, Td, Dd], "static_mask" bool [B, Ts] and "dynamic_mask"
        bool [B, Td] (True marks a real token), "static_time_s" float32 [B, Ts], "dynamic_time_s" float32 [B, Td].

    Raises:
        ValueError: there is no clip, or the dimensions of the clips differ.
    """
    if len(clips) == 0:
        raise ValueError("a batch needs at least one clip")
    batch: dict[str, np.ndarray] = {}
    for kind in ("static", "dynamic"):
        vectors = [getattr(clip, kind) for clip in clips]
        dim = vectors[0].shape[1]
        length = max(len(rows) for rows in vectors)
        padded = np.empty((len(clips), length, dim), np.float32)
        mask = np.zeros((len(clips), length), bool)
        time_s = np.zeros((len(clips), length), np.float32)
        for row, (clip, rows) in enumerate(zip(clips, vectors, strict=True)):
            if rows.shape[1] != dim:
                raise ValueError(f"{clip.video_id}: {kind} tokens have {rows.shape[1]} numbers, others have {dim}")
            padded[row, : len(rows)] = rows
            padded[row, len(rows) :] = 0
            mask[row, : len(rows)] = True
            time_s[row, : len(rows)] = getattr(clip, f"{kind}_time_s")
        batch |= {kind: padded, f"{kind}_mask": mask, f"{kind}_time_s": time_s}
    return batch

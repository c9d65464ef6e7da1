"""The features of one video, as arrays."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

COLUMNS = ("video_id", "video_sha256", "token", "start_s", "end_s", "vector")
"""Columns that every row of a feature shard has, in addition to its family's quality columns."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, eq=False)
class VideoFeatures:
    """All tokens of one video in one family, in order of time.

    Args:
        video_id: POSIX path of the file relative to the videos folder, with its extension.
        video_sha256: SHA-256 of the file's bytes, 64 hexadecimal characters.
        vectors: float32 [N, dim], N >= 1. NaN is kept.
        start_s: float64 [N], start of each token in seconds from the beginning of the video.
        end_s: float64 [N], end of each token in seconds, never before its start.
        quality: column name -> float32 [N].

    Raises:
        ValueError: a shape, dtype or value is wrong. A video without tokens is a failure and is not stored here.
    """

    video_id: str
    video_sha256: str
    vectors: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    quality: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        if not self.video_id or not _encodes(self.video_id):
            raise ValueError(f"video_id must be non-empty text that UTF-8 can encode: {self.video_id!r}")
        if not _SHA256.fullmatch(self.video_sha256):
            raise ValueError(f"{self.video_id}: video_sha256 must be 64 lower-case hex digits: {self.video_sha256!r}")
        if self.vectors.ndim != 2 or 0 in self.vectors.shape:
            raise ValueError(f"{self.video_id}: vectors must be [N, dim] with N >= 1, not {self.vectors.shape}")
        columns = {"start_s": self.start_s, "end_s": self.end_s, **self.quality}
        for name, column in columns.items():
            if column.shape != self.vectors.shape[:1]:
                raise ValueError(f"{self.video_id}: {name} must be {self.vectors.shape[:1]}, not {column.shape}")
        for name, array in {"vectors": self.vectors, **columns}.items():
            dtype = np.float64 if name in ("start_s", "end_s") else np.float32
            if array.dtype != dtype:
                raise ValueError(f"{self.video_id}: {name} must be {np.dtype(dtype)}, not {array.dtype}")
        if not (np.isfinite(self.start_s) & np.isfinite(self.end_s) & (self.start_s <= self.end_s)).all():
            raise ValueError(f"{self.video_id}: times must be finite, and no token may end before it starts")

    @property
    def tokens(self) -> int:
        """Number of tokens, N."""
        return len(self.vectors)

    @classmethod
    def unchecked(cls, **values: Any) -> VideoFeatures:
        """Build from values that were valid when they were written; a checksum must show that they are unchanged."""
        video = object.__new__(cls)
        for name, value in values.items():
            object.__setattr__(video, name, value)
        return video

    def checksum(self) -> int:
        """Compute the CRC-32 of all numbers, bit for bit; the quality columns follow in order of their names.

        The vectors enter as the sums of their rows and of their columns: integer sums modulo 2**64, at least one of
        which changes if any single number changes. A CRC of the vectors themselves takes three times as long (7 GB/s
        instead of 22 GB/s). The names and the shape are left to the checksum of the shard's header.
        """
        vectors = np.ascontiguousarray(self.vectors)
        words = vectors.view(np.uint32 if vectors.shape[1] % 2 else np.uint64)
        crc = zlib.crc32(np.add.reduce(words, axis=1, dtype=np.uint64))
        crc = zlib.crc32(np.add.reduce(words, axis=0, dtype=np.uint64), crc)
        for array in (self.start_s, self.end_s, *(self.quality[name] for name in sorted(self.quality))):
            crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
        return crc

    def rounded(self, dtype: Literal["float32", "float16"]) -> VideoFeatures:
        """Return the features with vectors rounded to `dtype`, still stored as float32.

        float16 keeps 11 significant bits: a number from 2**-14 to 65504 changes by at most 2**-11 (0.05%) of itself, a
        smaller one by at most 2**-25 (3e-8).

        Raises:
            ValueError: a finite number exceeds 65504, the largest float16.
        """
        if dtype == "float32":
            return self
        with np.errstate(over="ignore"):
            vectors = self.vectors.astype(dtype).astype(np.float32)
        if (np.isinf(vectors) & np.isfinite(self.vectors)).any():
            largest = np.abs(self.vectors[np.isfinite(self.vectors)]).max()
            raise ValueError(f"{self.video_id}: {largest} is too large for float16; keep these features as float32")
        return replace(self, vectors=vectors)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""The rows of an export: one for each video, scored or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from storage.tables.scores import Score


@dataclass(frozen=True, slots=True)
class Unscored:
    """A video without a score.

    Args:
        video_id: POSIX path of the file relative to the videos folder, with its extension.
        video_sha256: SHA-256 of the file's bytes, in hex; empty if they could not be read.
        reason: why there is no score, as a code in snake_case.
        features: keys of the features that a score would have come from.
    """

    video_id: str
    video_sha256: str
    reason: str
    features: str


Row = Score | Unscored


def in_order_once(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows again. Raises ValueError unless they ascend by video_id, with each video once."""
    previous = None
    for row in rows:
        if previous is not None and row.video_id <= previous:
            raise ValueError(f"rows must come in order of video_id, each once: {row.video_id!r} after {previous!r}")
        previous = row.video_id
        yield row

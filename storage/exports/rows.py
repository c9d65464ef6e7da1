"""What an export says of one video, scored or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from storage.tables.failures import Failure
from storage.tables.scores import Score


@dataclass(frozen=True, slots=True)
class TraitRow:
    """One video in an export.

    Args:
        video_id: POSIX path of the file below the videos folder, with its extension.
        video_sha256: SHA-256 of the file's bytes, in hex; empty where they could not be read.
        status: whether there is a score.
        reason: the failure's reason code, else empty.
        model: "<name>/<version>".
        features: keys of the features.
        score: what the model says; None where the video failed.
    """

    video_id: str
    video_sha256: str
    status: Literal["scored", "failed"]
    reason: str
    model: str
    features: str
    score: Score | None

    @classmethod
    def scored(cls, score: Score, model: str) -> TraitRow:
        """Make the row of a video that has a score; `model` is "<name>/<version>"."""
        features = f"static:{score.static_key} dynamic:{score.dynamic_key}"
        return cls(score.video_id, score.video_sha256, "scored", "", model, features, score)

    @classmethod
    def failed(cls, failure: Failure, model: str) -> TraitRow:
        """Make the row of a video that could not be used; `model` is the one that would have scored it."""
        return cls(failure.video_id, failure.video_sha256, "failed", failure.reason, model, failure.key, None)


def in_order_once(rows: Iterable[TraitRow]) -> Iterator[TraitRow]:
    """Pass rows on, which must come in ascending order of video_id, each video once; else a ValueError is raised."""
    previous = None
    for row in rows:
        if previous is not None and row.video_id <= previous:
            raise ValueError(f"rows must come in order of video_id, each once: {row.video_id!r} after {previous!r}")
        previous = row.video_id
        yield row

"""Cached tokens of videos, static and dynamic side by side, as the model takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from flows.config import RunConfig
from flows.families import Families
from fusion.tokens import ClipTokens
from storage.feature_store import FeatureStore

VIDEOS_AT_A_TIME = 1024


@dataclass(frozen=True, slots=True)
class CachedClip:
    """One video's tokens and what else a score states about it.

    Args:
        tokens: what the model takes.
        sha256: digest of the video's bytes, in hex.
        face_coverage: share of grid frames on which the main person's face was detected, 0 to 1.
    """

    tokens: ClipTokens
    sha256: str
    face_coverage: float


def ready_videos(config: RunConfig, families: Families, wanted: Mapping[str, str]) -> list[str]:
    """Find the videos that have both kinds of tokens, made from the bytes that are wanted (video_id -> SHA-256)."""
    store = FeatureStore(config.store.path)
    done = [store.done(family) for family in (families.static, families.dynamic)]
    return [video for video, sha256 in wanted.items() if all(known.get(video) == sha256 for known in done)]


def read_clips(config: RunConfig, families: Families, ready: Sequence[str]) -> Iterator[CachedClip]:
    """Read the tokens of videos, each once; at most 1,024 are in memory at a time.

    Args:
        config: where the store is.
        families: which features.
        ready: from `ready_videos`.
    """
    store = FeatureStore(config.store.path)
    waiting = iter(ready)
    while some := list(islice(waiting, VIDEOS_AT_A_TIME)):
        static = {row.video_id: row for row in store.read(families.static, some)}
        for dynamic in store.read(families.dynamic, some):
            row = static[dynamic.video_id]
            tokens = ClipTokens(
                row.video_id,
                row.vectors,
                row.start_s.astype("float32"),
                dynamic.vectors,
                ((dynamic.start_s + dynamic.end_s) / 2).astype("float32"),
            )
            yield CachedClip(tokens, row.video_sha256, float(row.quality["face_coverage"][0]))

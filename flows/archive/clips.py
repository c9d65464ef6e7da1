"""Cached tokens of videos, static and dynamic together, as the model's input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from extractors.faces.quality import QUALITY
from flows.archive.families import Families
from flows.archive.videos import Archive
from fusion.clips.tokens import ClipTokens
from storage.errors import StoreError
from storage.files.paths import StorePath
from storage.shards.features import VideoFeatures
from storage.shards.store import FeatureStore
from storage.tables.in_step import VIDEOS, InStep, have_digests

VIDEOS_AT_A_TIME = 1024
VIDEOS_PER_GROUP = 64  # of a large shard, read together when training shuffles


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What a video's score states, apart from the scores.

    Args:
        sha256: digest of the video's bytes, in hex.
        static_tokens, dynamic_tokens: their numbers.
        quality: the known facts of `extractors.faces.quality.Quality`; features older than them have the face coverage
            only.
    """

    video_id: str
    sha256: str
    static_tokens: int
    dynamic_tokens: int
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CachedClip:
    """One video's tokens and facts."""

    tokens: ClipTokens
    facts: ClipFacts


def clip_tokens(static: VideoFeatures, dynamic: VideoFeatures) -> ClipTokens:
    """Join the features of one video to a model's input.

    Args:
        static: its static features, from a store or from `extract_features`.
        dynamic: its dynamic features.
    """
    return ClipTokens(
        static.video_id,
        static.vectors,
        static.start_s.astype(np.float32),
        dynamic.vectors,
        ((dynamic.start_s + dynamic.end_s) / 2).astype(np.float32),
    )


def ready_videos(root: StorePath, families: Families, wanted: Mapping[str, str]) -> list[str]:
    """Return the videos that have both kinds of tokens of the wanted bytes (video_id -> SHA-256)."""
    store = FeatureStore(root)
    videos, digests = list(wanted), list(wanted.values())
    ready = store.has_each(families.static, videos, digests) & store.has_each(families.dynamic, videos, digests)
    return [videos[row] for row in np.flatnonzero(ready).tolist()]


def ready_rows(root: StorePath, families: Families, archive: Archive) -> Iterator[np.ndarray]:
    """Yield for each batch of an archive which videos have both kinds of tokens of their present bytes, bool [N]."""
    manifest = FeatureStore(root).manifest
    static, dynamic = (InStep(manifest.current(family.key), VIDEOS) for family in (families.static, families.dynamic))
    for videos in archive.columns:
        last = videos["video_id"][-1]
        yield have_digests(videos, static.up_to(last)) & have_digests(videos, dynamic.up_to(last))


def in_shard_order(store: FeatureStore, families: Families, videos: Sequence[str]) -> list[str]:
    """Return those videos that have static tokens, in the order of their shards, oldest first."""
    shards = store.shard_numbers(families.static, videos)
    return [videos[row] for row in np.argsort(shards, kind="stable").tolist() if shards[row] >= 0]


def read_clips(root: StorePath, families: Families, ready: Sequence[str]) -> Iterator[CachedClip]:
    """Read the tokens of videos, each once, in the order of their shards; at most 1,024 are in memory at a time.

    Args:
        ready: from `ready_videos`.
    """
    store = FeatureStore(root)
    known = in_shard_order(store, families, ready)
    for first in range(0, len(known), VIDEOS_AT_A_TIME):
        yield from joined_clips(store, families, known[first : first + VIDEOS_AT_A_TIME])


class StoredClips:
    """Tokens of videos for training, read from the store on demand.

    See `fusion.clips.sources.ClipSource`.

    Args:
        ready: N videos, from `ready_videos`; their positions are the clips' numbers.
    """

    def __init__(self, root: StorePath, families: Families, ready: Sequence[str]) -> None:
        self._store = FeatureStore(root)
        self._families = families
        self._ready = ready

    def __len__(self) -> int:
        return len(self._ready)

    def groups(self) -> list[np.ndarray]:
        """Return groups of videos whose static tokens are neighbours in a shard."""
        shards = self._store.shard_numbers(self._families.static, self._ready)
        order = np.argsort(shards, kind="stable")[np.count_nonzero(shards < 0) :]
        rows_of = np.split(order, np.flatnonzero(np.diff(shards[order])) + 1)
        return [part for rows in rows_of for part in np.array_split(rows, -(-len(rows) // VIDEOS_PER_GROUP))]

    def read(self, rows: np.ndarray) -> list[ClipTokens]:
        """Read the tokens of some videos.

        Raises:
            StoreError: they are no longer in the store.
        """
        videos = [self._ready[row] for row in rows]
        found = {clip.tokens.video_id: clip.tokens for clip in joined_clips(self._store, self._families, videos)}
        gone = [video for video in videos if video not in found]
        if gone:
            raise StoreError(f"features of {gone[0]} were removed while training read them: run the command again")
        return [found[video] for video in videos]


def joined_clips(store: FeatureStore, families: Families, videos: Sequence[str]) -> Iterator[CachedClip]:
    """Yield both kinds of tokens of videos, in the store's order of the static ones.

    The store looks up no places that it already knows, see `FeatureStore.read`. Both streams usually run in parallel.
    If they do not, motion tokens wait in memory for their video's turn.
    """
    waiting: dict[str, VideoFeatures] = {}
    dynamic_tokens = store.read(families.dynamic, videos, as_known=True)
    for static in store.read(families.static, videos, as_known=True):
        video_id = static.video_id
        while video_id not in waiting and (dynamic := next(dynamic_tokens, None)) is not None:
            waiting[dynamic.video_id] = dynamic
        dynamic = waiting.pop(video_id, None)
        if dynamic is None:  # removed in the meantime
            continue
        tokens = clip_tokens(static, dynamic)
        known = {name: float(static.quality[name][0]) for name in QUALITY if name in static.quality}
        quality = {name: value for name, value in known.items() if not math.isnan(value)}
        yield CachedClip(
            tokens, ClipFacts(video_id, static.video_sha256, len(tokens.static), len(tokens.dynamic), quality)
        )

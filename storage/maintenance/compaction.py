"""Merging small shards while other processes read and write.

The merged shard is committed and read back before its sources are removed, so that a reader finds every video at any
time, in one of two shards with the same rows. The order of the names decides which shard is valid for a video, so two
rules prevent a merged shard from hiding newer rows:

- It takes only rows that are valid now, and its name sorts directly after that of its newest source: after all its
  sources, and before every shard named later.
- A writer names its shard a moment before it commits it. Shards committed less than `settled_s` ago are left alone, so
  that no source can be newer than a shard that is still being written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from storage.files.commit import commit_file, remove_files
from storage.files.parts import part_after
from storage.files.paths import StorePath, in_order
from storage.shards.family import Family
from storage.shards.features import VideoFeatures
from storage.shards.formats import check_shard, format_of
from storage.shards.header import Dtype, ShardHeader, gone, read_header, read_videos
from storage.shards.store import FeatureStore

TARGET_BYTES = 2**26  # of vectors in a merged shard
MAX_VIDEOS = 2048  # in a merged shard: a reader of one video parses the list of all
SETTLED_S = 600.0


@dataclass(frozen=True, slots=True)
class Merge:
    """Shards to merge into one, oldest first, all with the same format and dtype."""

    family: Family
    dtype: Dtype
    sources: tuple[StorePath, ...]


@dataclass(slots=True)
class _Run:
    """Neighbouring small shards, the bytes of their vectors, and the number of their videos."""

    sources: list[StorePath] = field(default_factory=list)
    size: int = 0
    videos: int = 0


def plan_merges(
    store: FeatureStore, family: Family, *, target_bytes: int = TARGET_BYTES, settled_s: float = SETTLED_S
) -> list[Merge]:
    """Find runs of shards to merge, each shard with less than half of `target_bytes` of vectors.

    Args:
        store: the store.
        family: of the shards.
        target_bytes: largest size of a merged shard's vectors.
        settled_s: seconds after a shard's commit before it may be merged: more than any writer takes to write one.

    Returns:
        Merges of at least two shards each.
    """
    runs_of: dict[tuple[str, Dtype], list[_Run]] = {}  # by format and dtype
    now = time.time()
    shards = store.shards(family)
    for shard, found in zip(shards, in_order(_header_and_time, shards), strict=True):
        if found is None:
            continue
        header, committed = found
        size = header.rows * family.dim * (4 if header.dtype == "float32" else 2)
        if now - committed < settled_s or size >= target_bytes / 2:
            continue
        runs = runs_of.setdefault((shard.suffix, header.dtype), [_Run()])
        run = runs[-1]
        if run.size + size > target_bytes or run.videos + len(header.videos) > MAX_VIDEOS:
            runs.append(run := _Run())
        run.sources.append(shard)
        run.size += size
        run.videos += len(header.videos)
    merges = [Merge(family, dtype, tuple(run.sources)) for (_, dtype), runs in runs_of.items() for run in runs]
    return [merge for merge in merges if len(merge.sources) > 1]


def merge_shards(merge: Merge, shard_of: Mapping[str, StorePath]) -> StorePath | None:
    """Merge shards and remove them; at most `TARGET_BYTES` of vectors are in memory.

    Args:
        merge: from `plan_merges`.
        shard_of: from `FeatureStore.shard_of`. It may be as old as the plan: newer shards have names that sort later.

    Returns:
        The merged shard; None if none of the sources' rows is valid any more.

    Raises:
        StoreError: a source is damaged or gone, or the operating system refused. Nothing is lost then.
    """
    try:
        videos = list(_shown_videos(merge, shard_of))
    except FileNotFoundError as error:
        raise gone(error) from error
    merged = None
    if videos:
        header = ShardHeader.of(merge.family, videos, merge.dtype)
        merged = part_after(merge.sources[-1])
        with commit_file(merged) as temporary:
            format_of(merged).write(temporary, header, videos)
            check_shard(temporary)
    remove_files(merge.sources)
    return merged


def _header_and_time(shard: StorePath) -> tuple[ShardHeader, float] | None:
    """Return a shard's header and the time of its commit; None if it has just gone."""
    try:
        return read_header(shard, format_of(shard)), shard.stat().st_mtime
    except FileNotFoundError:
        return None


def _shown_videos(merge: Merge, shard_of: Mapping[str, StorePath]) -> Iterator[VideoFeatures]:
    for shard in merge.sources:
        format = format_of(shard)
        header = read_header(shard, format)
        shown = [number for number, entry in enumerate(header.videos) if shard_of.get(entry.video_id) == shard]
        yield from read_videos(shard, format, header, shown)

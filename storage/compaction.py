"""Merging small shards, while others read and write.

The merged shard is committed, and read back, before its sources are removed, so that a reader finds every video at any
instant. As both hold the same rows, it does not matter which of them a reader takes, and it takes one. Which shard is
right for a video is said by the order of names, so two rules keep what a merged shard says from hiding something newer:

- It takes only the rows that are shown at present, and its name sorts directly after that of its newest source: behind
  all of them, and before every shard that gets its name later.
- A writer names its shard a moment before it commits it. Shards that were committed less than `settled_s` ago are left
  alone, so that no source can be newer than a shard that is still being written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from storage.commit import commit_file, remove_files
from storage.families import Family
from storage.feature_store import FeatureStore
from storage.features import VideoFeatures
from storage.formats import check_shard, format_of
from storage.parts import part_after
from storage.paths import StorePath, in_order
from storage.shard import Dtype, ShardHeader, gone, read_header, read_videos

TARGET_BYTES = 2**26  # of vectors in a merged shard
MOST_VIDEOS = 2048  # in a merged shard: a reader of one video parses the list of all
SETTLED_S = 600.0


@dataclass(frozen=True, slots=True)
class Merge:
    """Shards to be merged into one, oldest first, all of one format and dtype."""

    family: Family
    dtype: Dtype
    sources: tuple[StorePath, ...]


def plan_merges(
    store: FeatureStore, family: Family, *, target_bytes: int = TARGET_BYTES, settled_s: float = SETTLED_S
) -> list[Merge]:
    """Find what to merge: runs of shards that have less than half of `target_bytes` of vectors each.

    Args:
        store: where.
        family: of the shards.
        target_bytes: a merged shard is closed when its vectors have this many bytes.
        settled_s: seconds since a shard's commit before it may be merged: longer than any writer takes to write one.

    Raises:
        StoreError: a shard is damaged.
    """
    groups: dict[tuple[str, Dtype], list[list[tuple[StorePath, int, int]]]] = {}
    now = time.time()
    shards = store.shards(family)
    for shard, found in zip(shards, in_order(_header_and_time, shards), strict=True):
        if found is None:
            continue
        header, committed = found
        size = header.rows * family.dim * (4 if header.dtype == "float32" else 2)
        if now - committed < settled_s or size >= target_bytes / 2:
            continue
        runs = groups.setdefault((shard.suffix, header.dtype), [[]])
        if runs[-1] and not _fits(runs[-1], size, len(header.videos), target_bytes):
            runs.append([])
        runs[-1].append((shard, size, len(header.videos)))
    merges = [
        Merge(family, dtype, tuple(shard for shard, *_ in run)) for (_, dtype), runs in groups.items() for run in runs
    ]
    return [merge for merge in merges if len(merge.sources) > 1]


def merge_shards(merge: Merge, shard_of: Mapping[str, StorePath]) -> StorePath | None:
    """Merge shards and remove them; at most `TARGET_BYTES` of vectors are in memory.

    Args:
        merge: from `plan_merges`.
        shard_of: from `FeatureStore.shard_of`. It may be as old as the plan: what came since has names that sort later.

    Returns:
        The merged shard; None where nothing that the sources hold is shown any more.

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
    """A shard's header and when it was committed; None where it has just gone."""
    try:
        return read_header(shard, format_of(shard)), shard.stat().st_mtime
    except FileNotFoundError:
        return None


def _fits(run: list[tuple[StorePath, int, int]], size: int, videos: int, target_bytes: int) -> bool:
    return (
        sum(run_size for _, run_size, _ in run) + size <= target_bytes
        and sum(run_videos for *_, run_videos in run) + videos <= MOST_VIDEOS
    )


def _shown_videos(merge: Merge, shard_of: Mapping[str, StorePath]) -> Iterator[VideoFeatures]:
    for shard in merge.sources:
        format = format_of(shard)
        header = read_header(shard, format)
        shown = [number for number, entry in enumerate(header.videos) if shard_of.get(entry.video_id) == shard]
        yield from read_videos(shard, format, header, shown)

"""Counting the contents of a store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from storage.errors import StoreError, UnreachableError
from storage.files.parts import stamp
from storage.files.paths import StorePath, in_order
from storage.shards.family import Family
from storage.shards.formats import format_of
from storage.shards.header import ShardHeader, read_header
from storage.shards.store import FeatureStore
from storage.tables.failures import Failure, FailureLog


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a store in one family.

    Args:
        family: the family.
        kinds: format and dtype of the shards, such as "parquet float32", sorted.
        shards: number of files.
        unreadable: number of files that are damaged or too new, as far as their headers show.
        videos: number of different videos.
        rows: number of tokens that a reader gets.
        bytes: total size of the shards.
    """

    family: Family
    kinds: tuple[str, ...]
    shards: int
    unreadable: int
    videos: int
    rows: int
    bytes: int


def survey(store: FeatureStore, family: Family) -> Contents:
    """Count the contents of a family from the headers alone; takes 16 bytes of memory per video of each shard."""
    kinds, names, tokens, size, unreadable = set(), [], [], 0, 0
    shards = store.shards(family)
    for shard, found in zip(shards, in_order(_header_and_size, shards), strict=True):
        if found is None:
            continue
        header, count = found
        size += count
        if header is None:
            unreadable += 1
            continue
        kinds.add(f"{shard.suffix.removeprefix('.')} {header.dtype}")
        names.append(np.array([hash(entry.video_id) for entry in header.videos], np.int64))
        tokens.append(np.array([entry.tokens for entry in header.videos], np.int64))
    # If two shards hold the same video, the later one counts: the first in the reversed order.
    videos, newest = np.unique(np.concatenate([np.empty(0, np.int64), *names])[::-1], return_index=True)
    rows = np.concatenate([np.empty(0, np.int64), *tokens])[::-1][newest].sum()
    return Contents(family, tuple(sorted(kinds)), len(shards), unreadable, len(videos), int(rows), size)


def _header_and_size(shard: StorePath) -> tuple[ShardHeader | None, int] | None:
    """Return a shard's header (None if damaged) and its size in bytes; None if the shard has just been replaced."""
    try:
        return read_header(shard, format_of(shard)), shard.stat().st_size
    except FileNotFoundError:
        return None
    except UnreachableError:
        raise
    except StoreError:
        return None, 0


def still_refused(
    log: FailureLog, store: FeatureStore, seen: Mapping[str, str] = MappingProxyType({})
) -> list[Failure]:
    """Return the last failure of each video that still needs attention, sorted by video.

    Attempts at other bytes than a video had when it was last seen do not count. A video is left out if its bytes have
    all features that the attempt was for, or if features of each of these kinds, with any settings, were committed
    after the attempt.

    Args:
        log: of the store.
        store: the features.
        seen: from `SeenVideos.current`.

    Raises:
        StoreError: the log or a shard is damaged or too new.
    """
    last = {
        failure.video_id: (when, failure)
        for when, failure in log.attempts_in_order()
        if seen.get(failure.video_id, failure.video_sha256) == failure.video_sha256
    }
    newest: dict[str, dict[str, str]] = defaultdict(dict)  # name of family -> video -> when
    done: dict[str, dict[str, str]] = {}
    for family in store.families() if last else ():
        done[family.key] = store.done(family)
        newest_of = newest[family.name]
        for video_id, shard in store.shard_of(family).items():
            sha256 = done[family.key].get(video_id)
            if video_id in last and seen.get(video_id, sha256) == sha256:
                newest_of[video_id] = max(stamp(shard), newest_of.get(video_id, ""))

    def refused(when: str, failure: Failure) -> bool:
        wanted = [part.rpartition(":") for part in failure.key.split()]
        same = (done.get(key, {}).get(failure.video_id) == failure.video_sha256 for _, _, key in wanted)
        later = (newest[name].get(failure.video_id, "") > when for name, _, _ in wanted)
        return not all(same) and not all(later)

    return [failure for _, (when, failure) in sorted(last.items()) if refused(when, failure)]

"""Counting the contents of a store."""

from __future__ import annotations

from dataclasses import dataclass

from storage.files.paths import StorePath, listing
from storage.shards.family import Family
from storage.shards.store import FeatureStore
from storage.tables.failures import Attempt, Failure, FailureLog
from storage.tables.seen import SeenVideos


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a store in one family.

    Args:
        formats: of the shards, sorted.
        shards: number of files that hold the newest features of any video.
        missing: number of these files that are gone.
        videos: number of different videos.
        rows: number of tokens that a reader gets.
        bytes: total size of the shards.
    """

    family: Family
    formats: tuple[str, ...]
    shards: int
    missing: int
    videos: int
    rows: int
    bytes: int


def survey(store: FeatureStore, family: Family) -> Contents:
    """Count the contents of a family from the manifest and a listing; takes 24 bytes of memory per video."""
    places = store.manifest.places(family.key)
    names = list(places.by_shard())
    files = listing(store.folder(family))
    formats = {name.rpartition(".")[2] for name in names}
    missing = sum(name not in files for name in names)
    size = sum(files[name].size for name in names if name in files)
    return Contents(
        family, tuple(sorted(formats)), len(names), missing, len(places), int(places.live_rows().sum()), size
    )


def still_refused(root: str | StorePath) -> list[Failure]:
    """Return the last failure of each video that still needs attention, sorted by video.

    Attempts at other bytes than a video had when it was last seen do not count. A video is left out if its bytes have
    all features that the attempt was for, or if features of each of these kinds, with any settings, were committed
    after the attempt.

    Raises:
        StoreError: the log of failures or the manifest is damaged or cannot be read.
    """
    store, attempts = FeatureStore(root), FailureLog(root).attempts_in_order()
    seen = SeenVideos(root).current({attempt.failure.video_id for attempt in attempts})
    last: dict[str, Attempt] = {}
    for attempt in attempts:
        failure = attempt.failure
        if seen.get(failure.video_id, failure.video_sha256) == failure.video_sha256:
            last[failure.video_id] = attempt
    if not last:
        return []
    newest: dict[tuple[str, str], int] = {}  # name of the family and video -> version of the manifest
    done: set[tuple[str, str, str]] = set()  # key, video and digest
    for family in store.families():
        for version, row in store.manifest.rows(family.key, video_id=last):
            done.add((family.key, row.video_id, row.video_sha256))
            if seen.get(row.video_id, row.video_sha256) == row.video_sha256:
                which = (family.name, row.video_id)
                newest[which] = max(version, newest.get(which, -1))

    def refused(attempt: Attempt) -> bool:
        failure = attempt.failure
        wanted = [part.rpartition(":") for part in failure.key.split()]
        same = ((key, failure.video_id, failure.video_sha256) in done for _, _, key in wanted)
        later = (newest.get((name, failure.video_id), -1) > attempt.manifest_version for name, _, _ in wanted)
        return not all(same) and not all(later)

    return [attempt.failure for _, attempt in sorted(last.items()) if refused(attempt)]

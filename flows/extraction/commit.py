"""Committing one shard's work, whatever other runs have committed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from storage.shards.family import Family
from storage.shards.features import VideoFeatures
from storage.shards.store import FeatureStore
from storage.tables.failures import Failure, FailureLog


def commit_shard(
    store: FeatureStore,
    log: FailureLog,
    rows: Mapping[Family, Sequence[VideoFeatures]],
    failures: Sequence[Failure],
    confirm: Callable[[Path], None] | None,
) -> None:
    """Commit a shard's features, family by family, then its failures; what is in the store by now is left out.

    A family comes after those that it is made from, so that whatever breaks this off, what is missing can be made from
    what is there.

    Args:
        store, log: where.
        rows: features by family.
        failures: all for the same features.
        confirm: as for `FeatureStore.write`; raises where the videos are no longer this run's.

    Raises:
        StoreError: the operating system refused. What was committed before stays.
    """
    for family, videos in rows.items():
        known = store.has(family, {video.video_id: video.video_sha256 for video in videos})
        new = [video for video in videos if video.video_id not in known]
        if new:
            store.write(family, new, confirm=confirm)
    if failures:
        digests = {failure.video_id: failure.video_sha256 for failure in failures}
        attempts = log.attempts(digests, failures[0].key)
        log.add([failure for failure in failures if attempts.get(failure.video_id, 0) < failure.attempts], confirm)

"""Commits the results of one shard, whatever other runs have committed in the meantime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storage.shards.family import Family
from storage.shards.features import VideoFeatures
from storage.shards.store import FeatureStore
from storage.tables.failures import Failure, FailureLog


def commit_shard(
    store: FeatureStore,
    log: FailureLog,
    rows: Mapping[Family, Sequence[VideoFeatures]],
    failures: Sequence[Failure],
) -> None:
    """Commit a shard's features, family by family, then its failures, except those that the store has by now.

    Each family comes after those that it is made from, so that after an interruption the missing ones can be made from
    those in the store.

    Args:
        store: of the features.
        log: of the failures.
        rows: features by family.
        failures: all for the same features.

    Raises:
        StoreError: the operating system refused. Earlier commits stay.
    """
    for family, videos in rows.items():
        known = store.has(family, {video.video_id: video.video_sha256 for video in videos})
        new = [video for video in videos if video.video_id not in known]
        if new:
            store.write(family, new)
    if failures:
        digests = {failure.video_id: failure.video_sha256 for failure in failures}
        attempts = log.attempts(digests, failures[0].key)
        log.add([failure for failure in failures if attempts.get(failure.video_id, 0) < failure.attempts])

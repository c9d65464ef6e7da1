"""What must be in a store that the workers of `worker_farm` have worked on."""

from __future__ import annotations

from collections import Counter

from worker_farm import FAMILIES, Order, drawn_features, drawn_videos, refusal

from storage import FailureLog, FeatureStore


def assert_store_is_right(order: Order) -> None:
    """Every video is in each family's shards once, bit for bit as drawn, and every refused one in the log, once."""
    videos = drawn_videos(order.videos)
    good = [video for video in videos if refusal(video) is None]
    store = FeatureStore(order.store)
    for family in (FAMILIES.faces, FAMILIES.static, FAMILIES.dynamic):
        rows = {}
        for shard in store.shards(family):
            assert shard.suffix == {"parquet": ".parquet", "hdf5": ".h5"}[order.format]
        for row in store.read(family):
            assert row.video_id not in rows, f"{row.video_id} of {family.name} comes twice"
            rows[row.video_id] = row
        assert set(rows) == {video.video_id for video in good}
        for video in good:
            found, truth = rows[video.video_id], drawn_features(video, family)
            assert found.video_sha256 == truth.video_sha256
            assert found.checksum() == truth.checksum()
            assert found.vectors.tobytes() == truth.vectors.tobytes()
    refused = [refusal(video) for video in videos if refusal(video) is not None]
    assert FailureLog(order.store).current() == refused
    attempts = [attempt.failure for attempt in FailureLog(order.store).attempts_in_order()]
    assert sorted(attempts, key=lambda failure: failure.video_id) == refused


def seen(order: Order) -> Counter[str]:
    """How often each video was begun with."""
    return Counter(order.log.read_text().split() if order.log.exists() else ())

"""Drawn features for the tests of the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from storage import Family, FeatureStore, VideoFeatures
from storage.files.paths import StorePath, store_path

STATIC = Family("static", 8, {"fps": 25.0, "weights": "random"}, ("face_coverage", "face_score"))


@pytest.fixture(scope="session", params=["parquet", "hdf5"])
def open_store(request) -> Callable[..., FeatureStore]:
    """Opens a store that writes one of the formats: tests that ask for this run once for each."""
    return partial(FeatureStore, format=request.param)


@pytest.fixture(params=["local", "s3"])
def root(request) -> StorePath:
    """Where a store may lie: tests that ask for this run once on this machine and once on object storage."""
    if request.param == "local":
        return request.getfixturevalue("tmp_path")
    return store_path(request.getfixturevalue("s3_folder"))


@pytest.fixture
def static() -> Family:
    return STATIC


@pytest.fixture(scope="session")
def draw() -> Callable[..., VideoFeatures]:
    """Draws the features of a video: other bytes of the video (`content`), other numbers."""

    def _draw(video_id: str, family: Family = STATIC, tokens: int = 3, content: str = "") -> VideoFeatures:
        digest = hashlib.sha256(f"{video_id}{content}".encode())
        rng = np.random.default_rng(list(digest.digest()))
        start_s = np.cumsum(rng.random(tokens))
        return VideoFeatures(
            video_id=video_id,
            video_sha256=digest.hexdigest(),
            vectors=rng.normal(size=(tokens, family.dim)).astype(np.float32),
            start_s=start_s,
            end_s=start_s + 0.64,
            quality={name: rng.random(tokens).astype(np.float32) for name in family.quality},
        )

    return _draw


@pytest.fixture
def assert_same() -> Callable[[VideoFeatures, VideoFeatures], None]:
    """Compares two videos' features bit for bit."""

    def _assert_same(found: VideoFeatures, expected: VideoFeatures) -> None:
        assert (found.video_id, found.video_sha256) == (expected.video_id, expected.video_sha256)
        assert set(found.quality) == set(expected.quality)
        pairs = [(getattr(found, name), getattr(expected, name)) for name in ("vectors", "start_s", "end_s")]
        pairs += [(found.quality[name], expected.quality[name]) for name in expected.quality]
        for array, truth in pairs:
            assert array.dtype == truth.dtype
            assert array.shape == truth.shape
            assert array.tobytes() == np.ascontiguousarray(truth).tobytes()

    return _assert_same

"""The commands that keep a store in order, over ten million rows: in bounded memory, whatever the store holds."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from storage import Family, FeatureStore, VideoFeatures

FACES = Family("faces", 5, {"drawn": True}, ("detected",))
ROWS_PER_VIDEO, VIDEOS_PER_SHARD, SHARDS = 360, 64, 435
LIMIT_MB = 600


@pytest.fixture
def store(tmp_path) -> Path:
    """Face tracks of 27,840 clips of 14.4 s, in shards old enough to be merged."""
    features, rng = FeatureStore(tmp_path), np.random.default_rng(0)
    start_s = np.arange(ROWS_PER_VIDEO) / 25
    quality = {"detected": np.ones(ROWS_PER_VIDEO, np.float32)}
    for shard in range(SHARDS):
        videos = []
        for number in range(VIDEOS_PER_SHARD):
            name = f"{shard:04d}/{number:02d}.mp4"
            vectors = rng.random((ROWS_PER_VIDEO, 5), np.float32)
            digest = hashlib.sha256(name.encode()).hexdigest()
            videos.append(VideoFeatures(name, digest, vectors, start_s, start_s + 0.04, quality))
        features.write(FACES, videos)
    hour_ago = time.time() - 3600
    for path in features.shards(FACES):
        os.utime(path, (hour_ago, hour_ago))
    return tmp_path


@pytest.mark.slow
def test_ten_million_rows_are_kept_in_order_in_bounded_memory(store):
    rows = ROWS_PER_VIDEO * VIDEOS_PER_SHARD * SHARDS
    print(f"\n{rows:,} rows")
    before = FeatureStore(store).done(FACES)
    traitline = str(Path(sys.executable).with_name("traitline"))
    for command in (["ls"], ["verify"], ["compact"], ["convert", "--to", "hdf5"], ["verify"]):
        start = time.monotonic()
        process = subprocess.Popen([traitline, "store", *command, "--store", str(store)], stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, command
        print(f"store {' '.join(command)}: {time.monotonic() - start:.1f} s, {usage.ru_maxrss / 1000:.0f} MB peak")
        assert usage.ru_maxrss / 1000 < LIMIT_MB, command
    after = FeatureStore(store)
    assert after.done(FACES) == before
    assert {path.suffix for path in after.shards(FACES)} == {".h5"}
    assert len(after.shards(FACES)) < SHARDS

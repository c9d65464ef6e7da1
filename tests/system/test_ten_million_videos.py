"""What is left to do among ten million videos: found in bounded time and memory, a shard of it in a few reads."""

from __future__ import annotations

import pytest
from drawn_manifest import LACKING, draw_manifest, plan

COUNT = 10_000_000
LIMIT_MB, LIMIT_S = 2000, 60


@pytest.mark.slow
def test_ten_million_videos_are_planned_in_bounded_time_and_memory(tmp_path):
    draw_manifest(tmp_path / "small", COUNT // 100)
    draw_manifest(tmp_path / "store", COUNT)
    small, found = plan(tmp_path / "small", COUNT // 100), plan(tmp_path / "store", COUNT)
    print(f"\n{found}")
    assert found["todo"] == COUNT // LACKING
    assert found["peak_mb"] < LIMIT_MB
    assert found["plan_s"] < LIMIT_S
    assert found["shard_files"] <= small["shard_files"] + 2  # rows of neighbours may lie in two files of each family

"""Ten million videos are listed and planned in bounded time and memory, and a shard of them in a few reads."""

from __future__ import annotations

import pytest
from drawn_manifest import LACKING, draw_list, draw_manifest, plan, read_list

COUNT = 10_000_000
LIMIT_MB, LIMIT_S = 2000, 60


@pytest.mark.slow
def test_ten_million_videos_are_planned_in_bounded_time_and_memory(tmp_path):
    draw_manifest(tmp_path / "small", COUNT // 100)
    draw_manifest(tmp_path / "store", COUNT)
    small = plan(tmp_path / "small", COUNT // 100)
    for _ in range(2):  # the second run reads the digests of the first
        found = plan(tmp_path / "store", COUNT)
        print(f"\n{found}")
        assert found["todo"] == COUNT // LACKING
        assert found["peak_mb"] < LIMIT_MB
        assert found["plan_s"] < LIMIT_S
        assert (
            found["shard_files"] <= small["shard_files"] + 2
        )  # rows of neighbours may lie in two files of each family


@pytest.mark.slow
def test_a_list_of_ten_million_videos_is_read_in_bounded_memory(tmp_path):
    draw_list(tmp_path / "list.txt", COUNT)
    found = read_list(tmp_path / "store", COUNT, tmp_path / "list.txt")
    print(f"\n{found}")
    assert found["list_mb"] < LIMIT_MB

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

MINUTES = 10
SHARDS = 40
LIMIT_GB = 2.5  # of all processes: the networks, two that prepare videos, Prefect's server


@pytest.fixture
def long_videos(corpus, tmp_path) -> Path:
    """A folder with one 720p video of ten minutes: a real clip over and over, its packets as they are."""
    folder = tmp_path / "videos"
    folder.mkdir()
    clip = corpus / "fi_v2" / "xHb5_bc1JOA.000.mp4"
    with av.open(str(clip)) as source, av.open(str(folder / "long.mp4"), "w") as goal:
        stream = source.streams.video[0]
        assert (stream.width, stream.height) == (1280, 720)
        copy = goal.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.dts is not None]
        times = [(packet.pts, packet.dts) for packet in packets]
        span = stream.duration
        for lap in range(int(MINUTES * 60 / (span * stream.time_base)) + 1):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.pts, packet.dts, packet.stream = pts + lap * span, dts + lap * span, copy
                goal.mux(packet)
                packet.time_base = stream.time_base
    return folder


def resident_gb(process: int) -> float:
    """Memory of a process and of its children, their own pages alone; what they share counts once."""
    listed = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True)
    total_kb = 0
    for child in (process, *map(int, listed.stdout.split())):
        with contextlib.suppress(OSError):  # it has just ended
            rollup = Path(f"/proc/{child}/smaps_rollup").read_text()
            total_kb += int(re.search(r"Pss:\s+(\d+) kB", rollup)[1])
    return total_kb * 1024 / 1e9


@pytest.mark.slow
def test_ten_minutes_of_720p_take_no_more_memory_than_a_short_clip(long_videos, tmp_path):
    command = [str(Path(sys.executable).with_name("traitline")), "extract", "--weights", "random"]
    command += ["--videos", str(long_videos), "--store", str(tmp_path / "store")]
    peak_gb = 0.0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak_gb = max(peak_gb, resident_gb(process.pid))
            time.sleep(1)
        shown = process.stderr.read()
    print(f"peak resident memory: {peak_gb:.2f} GB")
    assert process.returncode == 0, shown
    assert peak_gb < LIMIT_GB


@pytest.mark.slow
def test_memory_is_flat_from_the_tenth_shard_to_the_last(rendered, tmp_path):
    """Shards of one clip, by the real networks: what a shard leaves behind would show after the next ones."""
    videos, store = tmp_path / "videos", tmp_path / "store"
    videos.mkdir()
    for number in range(SHARDS):
        shutil.copyfile(rendered.videos / "still.mp4", videos / f"{number:03d}.mp4")
    command = [str(Path(sys.executable).with_name("traitline")), "extract", "--weights", "random"]
    command += ["--videos", str(videos), "--store", str(store), "--set", "extract.shard_size=1"]
    highest_gb = [0.0] * (SHARDS + 1)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            done = len(list(store.glob("features/dynamic/*/shard-*")))
            highest_gb[done] = max(highest_gb[done], resident_gb(process.pid))
            time.sleep(0.2)
        shown = process.stderr.read()
    assert process.returncode == 0, shown
    tenth, last = max(highest_gb[8:11]), max(highest_gb[SHARDS - 3 : SHARDS])
    print(f"\nresident memory around the 10th shard: {tenth:.3f} GB, around the last of {SHARDS}: {last:.3f} GB")
    assert last < 1.05 * tenth

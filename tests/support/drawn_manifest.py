"""A store of any number of drawn videos: rows of the manifest and failures without shards, and what a plan of it takes.

As a program, `drawn_manifest.py STORE COUNT` plans an archive of so many videos, and prints what it took as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from flows.archive.families import families_of
from flows.archive.videos import Archive, VideoFile
from flows.config.load import load_config
from flows.extraction.worklist import WorkList
from storage import Failure, FailureLog, FeatureStore
from storage.tables.manifest import SCHEMA

SHARD_VIDEOS = 64
ROWS_PER_COMMIT = 2**16
LACKING, REFUSED = 1000, 100  # each so manieth video has no features, or was refused


def video_of(number: int) -> VideoFile:
    """Return a video of the drawn archive."""
    video_id = f"person {number // 40:07d}/{number:08d}.mp4"
    return VideoFile(video_id, Path(video_id), hashlib.sha256(video_id.encode()).hexdigest())


def draw_manifest(root: Path, count: int) -> None:
    """Commit rows for both kinds of features of a drawn archive, except for the videos that were refused or lack them.

    The shards that the rows name do not exist. Commits are larger than those of extraction, so that this takes minutes.
    """
    families = families_of(load_config(flags={"store.path": root, "weights": "random"}))
    table, rng = FeatureStore(root).manifest.table, np.random.default_rng(0)
    refused: list[Failure] = []
    for first in range(0, count, ROWS_PER_COMMIT):
        numbers = [number for number in range(first, min(first + ROWS_PER_COMMIT, count)) if number % LACKING]
        for number in numbers:
            if number % REFUSED == 1:
                video = video_of(number)
                refused.append(
                    Failure(video.video_id, video.sha256, families.features, "faces", "no_face", "There is none.", 1)
                )
        videos = [video_of(number) for number in numbers if number % REFUSED != 1]
        shards = [f"shard-{number // SHARD_VIDEOS:012d}-{number // SHARD_VIDEOS:012x}.parquet" for number in numbers]
        for family, tokens in ((families.static, 16), (families.dynamic, 6)):
            columns = {
                "family": [family.key] * len(videos),
                "video_id": [video.video_id for video in videos],
                "video_sha256": [video.sha256 for video in videos],
                "shard": shards[: len(videos)],
                "first_row": np.arange(len(videos)) % SHARD_VIDEOS * tokens,
                "rows": np.full(len(videos), tokens, np.int32),
                "checksum": rng.integers(0, 2**32, len(videos)),
                "run": ["0123456789abcdef"] * len(videos),
            }
            table.append(pa.table(columns, schema=SCHEMA), as_seen=True)
    FailureLog(root).add(refused)
    table.compact()


def plan(root: Path, count: int) -> dict[str, float]:
    """Plan the archive in another process.

    Returns:
        "todo", the number of videos to do; "plan_s" and "shard_s", processor time to find them and to choose a shard;
        "plan_files" and "shard_files", data files of the store that were read for each; "list_s", processor time to
        draw the list of videos; and "peak_mb", the most memory in use, with the list.
    """
    command = [sys.executable, __file__, str(root), str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _main(root: str, count: int) -> None:
    opened: list[str] = []
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)

    def measured(work) -> tuple[object, float, int]:
        before, opened[:] = os.times(), []
        result = work()
        seconds = sum(os.times()[:2]) - sum(before[:2])
        return result, seconds, sum(name.startswith(root) and name.endswith(".parquet") for name in opened)

    config = load_config(flags={"store.path": root, "weights": "random"})
    families = families_of(config)
    archive, list_s, _ = measured(lambda: Archive(map(video_of, range(count))))
    work, plan_s, plan_files = measured(lambda: WorkList(archive, config, families))
    jobs, shard_s, shard_files = measured(lambda: work.choose(frozenset()))
    assert len(jobs) == min(config.extract.shard_size, work.count)
    status = Path("/proc/self/status").read_text()  # ru_maxrss begins with the parent's
    peak_mb = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000
    found = {"list_s": list_s, "plan_s": plan_s, "plan_files": plan_files, "shard_s": shard_s}
    json.dump({"todo": work.count, **found, "shard_files": shard_files, "peak_mb": peak_mb}, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))

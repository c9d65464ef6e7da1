"""A store of any number of drawn videos: rows of the manifest and failures without shards, and what a plan of it takes.

As a program, `drawn_manifest.py STORE COUNT` lists and plans an archive of so many videos, and prints what it took as
JSON. The folder of the videos is drawn, too: the functions of `os` answer for it, as nobody has ten million files.
`drawn_manifest.py STORE COUNT LIST` reads a list of these videos instead, and plans nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from flows.archive.families import families_of
from flows.archive.models import ModelReference
from flows.archive.videos import VideoFile, digests, known_videos, videos_of
from flows.config.load import load_config
from flows.extraction.worklist import WorkList
from flows.scoring.worklist import Unscored
from storage import Failure, FailureLog, FeatureStore
from storage.tables.manifest import SCHEMA

SHARD_VIDEOS = 64
FOLDER, FOLDER_VIDEOS = "/drawn videos", 40
ROWS_PER_COMMIT = 2**16
LACKING, REFUSED = 1000, 100  # each so manieth video has no features, or was refused


def video_of(number: int) -> VideoFile:
    """Return a video of the drawn archive."""
    video_id = f"person {number // FOLDER_VIDEOS:07d}/{number:08d}.mp4"
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


def draw_list(path: Path, count: int) -> None:
    """Write a text file that names all videos of a drawn archive, neighbours far from each other."""
    step = 7919  # a prime, so that each video is named once unless the count is a multiple of it
    assert count % step
    with path.open("w") as file:
        file.writelines(f"{video_of(number * step % count).video_id}\n" for number in range(count))


def read_list(root: Path, count: int, path: Path) -> dict[str, float]:
    """Read a list from `draw_list` in another process, as `plan` reads a folder; returns its "list_s" and "list_mb"."""
    return _measured(root, count, path)


def plan(root: Path, count: int) -> dict[str, float]:
    """Plan the archive in another process.

    Returns:
        "todo", the number of videos to do; "list_s", "plan_s", "shard_s" and "rescore_s", processor time to list the
        videos of the folder, to find those to do, to choose a shard, and to choose the videos to score with a new
        model; "plan_files" and "shard_files", data files of the store that were read for each; and "list_mb", "peak_mb"
        and "rescore_mb", the most memory in use when the list, the plan and the choice were complete.
    """
    return _measured(root, count)


def _measured(*given: object) -> dict[str, float]:
    command = [sys.executable, __file__, *map(str, given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


class DrawnEntry:
    """An entry of the drawn folder, as `os.scandir` yields it."""

    def __init__(self, folder: str, name: str) -> None:
        self.name, self.path = name, os.path.join(folder, name)

    def is_file(self) -> bool:
        return self.name.endswith(".mp4")

    def is_dir(self) -> bool:
        return not self.is_file()

    def is_symlink(self) -> bool:
        return False


def draw_folder(count: int) -> None:
    """Let the operating system seem to have the drawn videos."""
    scandir, listdir, stat, lstat = os.scandir, os.listdir, os.stat, os.lstat
    of_file = SimpleNamespace(st_mode=0o100644, st_size=2**20, st_mtime_ns=17 * 10**17, st_ctime_ns=17 * 10**17)
    of_folder = SimpleNamespace(st_mode=0o040755)

    def names(folder: str) -> Iterator[str]:
        place = os.path.relpath(folder, FOLDER)
        if place == ".":
            return (f"person {number:07d}" for number in range(-(-count // FOLDER_VIDEOS)))
        first = int(place.removeprefix("person ")) * FOLDER_VIDEOS
        return (f"{number:08d}.mp4" for number in range(first, min(first + FOLDER_VIDEOS, count)))

    def status(path: object) -> SimpleNamespace:
        place = str(path)[len(FOLDER) + 1 :]
        digits = re.fullmatch(r"person (\d{7})(?:/(\d{8})\.mp4)?", place)
        if not place or (digits and digits[2] is None and int(digits[1]) * FOLDER_VIDEOS < count):
            return of_folder
        if digits and digits[2] and int(digits[2]) // FOLDER_VIDEOS == int(digits[1]) and int(digits[2]) < count:
            return of_file
        raise FileNotFoundError(path)

    def drawn(ours, real):
        def answer(path=".", **more):
            return ours(path) if isinstance(path, str | Path) and str(path).startswith(FOLDER) else real(path, **more)

        return answer

    os.scandir = drawn(lambda path: contextlib.nullcontext(DrawnEntry(path, name) for name in names(path)), scandir)
    os.listdir = drawn(lambda path: list(names(path)), listdir)
    os.stat, os.lstat = drawn(status, stat), drawn(status, lstat)
    digests.sha256_of = lambda path: hashlib.sha256(os.path.relpath(path, FOLDER).encode()).hexdigest()


def _main(root: str, count: int, listed: str | None = None) -> None:
    opened: list[str] = []
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)

    def measured(work) -> tuple[object, float, int, int]:
        before, opened[:] = os.times(), []
        result = work()
        seconds = sum(os.times()[:2]) - sum(before[:2])
        status = Path("/proc/self/status").read_text()  # ru_maxrss begins with the parent's
        peak_mb = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000
        return result, seconds, sum(name.startswith(root) and name.endswith(".parquet") for name in opened), peak_mb

    draw_folder(count)
    flags = {"store.path": root, "weights": "random", "videos": listed or FOLDER}
    config = load_config(flags=flags | {"videos_root": FOLDER} if listed else flags)
    families = families_of(config)
    archive, list_s, _, list_mb = measured(lambda: videos_of(config))
    if listed:
        assert len(archive) == count
        json.dump({"list_s": list_s, "list_mb": list_mb}, sys.stdout)
        return
    work, plan_s, plan_files, _ = measured(lambda: WorkList(archive, config, families))
    jobs, shard_s, shard_files, peak_mb = measured(lambda: work.choose(frozenset()))
    assert len(archive) == count
    assert len(jobs) >= min(config.extract.shard_size, work.count)  # more on machines with many cores
    found = {"todo": work.count, "list_s": list_s, "plan_s": plan_s, "plan_files": plan_files, "shard_s": shard_s}
    found |= {"shard_files": shard_files, "list_mb": list_mb, "peak_mb": peak_mb}
    archive = work = None

    def rescored() -> Unscored:
        unscored = Unscored(Path(root), families, known_videos(Path(root), families), ModelReference("new", "1"))
        assert unscored.choose(1, frozenset())
        return unscored

    unscored, rescore_s, _, rescore_mb = measured(rescored)
    found |= {"to_score": unscored.left, "rescore_s": rescore_s, "rescore_mb": rescore_mb}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

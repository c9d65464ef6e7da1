"""How fast features are written and read, beside plain files of the same bytes.

Run it as `python tests/benchmarks/bench_store.py [--videos N] [--archive N]`. Every repeat does everything once, in
turn, and the ratios are of one repeat; medians are shown. All is in the page cache. Plain files are written by one
`tofile` with fsync per shard. They are read in two ways: all bytes by one `fromfile` into fresh memory ("of fromfile"),
and file by file into memory that is used again ("of reused"), which is faster than a program can use the numbers.
Nothing is asserted about time.

The second table is about a store of many videos: how long a new process takes to find what is done, from the shards'
headers. Its vectors are short, its headers and footers have their real sizes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from storage import Family, FeatureStore, VideoFeatures
from storage.shards.formats import FORMATS
from storage.shards.header import ShardHeader
from storage.shards.store import manifest_rows
from storage.tables.manifest import Row

QUALITY = ("face_coverage", "face_score")
TOKENS, DIM = 16, 2048
SHARD_VIDEOS = 64
REPEATS = 9
KINDS = (("parquet", "float32"), ("parquet", "float16"), ("hdf5", "float32"), ("hdf5", "float16"))


def drawn_videos(count: int) -> list[VideoFeatures]:
    """Static tokens with the distribution of averaged ReLU maps."""
    rng = np.random.default_rng(0)
    start_s = np.arange(TOKENS, dtype=np.float64)
    return [
        VideoFeatures(
            f"folder/{number:07d}.mp4",
            hashlib.sha256(str(number).encode()).hexdigest(),
            rng.gamma(0.6, 0.6, (TOKENS, DIM)).astype(np.float32),
            start_s,
            start_s + 0.04,
            {name: rng.random(TOKENS).astype(np.float32) for name in QUALITY},
        )
        for number in range(count)
    ]


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write_plain(folder: Path, shards: list[list[VideoFeatures]]) -> None:
    """One file per shard, on the disk when it is done."""
    for number, videos in enumerate(shards):
        with (folder / f"{number}.raw").open("wb") as file:
            np.concatenate([video.vectors for video in videos]).tofile(file)
            file.flush()
            os.fsync(file.fileno())


def write_store(folder: Path, shards: list[list[VideoFeatures]], kind: tuple[str, str], family: Family) -> None:
    """The same shards in a store."""
    store = FeatureStore(folder, *kind)
    for videos in shards:
        store.write(family, videos)


def compare_with_plain_files(videos: int, scratch: Path) -> Table:
    """Measure writing, reading all, and reading single videos."""
    family = Family("static", DIM, {"weights": "random"}, QUALITY)
    drawn = drawn_videos(videos)
    shards = [drawn[first : first + SHARD_VIDEOS] for first in range(0, videos, SHARD_VIDEOS)]
    megabytes = sum(video.vectors.nbytes for video in drawn) / 1e6
    whole = scratch / "all.raw"
    np.concatenate([video.vectors for video in drawn]).tofile(whole)
    names = [video.video_id for video in drawn]
    rng = np.random.default_rng(1)
    times: dict[tuple[str, ...], list[tuple[float, float, float]]] = {}
    reused: list[float] = []
    sizes: dict[tuple[str, ...], float] = {}
    for _ in range(REPEATS):
        for kind in ((), *KINDS):
            folder = scratch / "-".join(("store", *kind))
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            if not kind:
                write_s = seconds(lambda folder=folder: write_plain(folder, shards))
                read_s = seconds(lambda: np.fromfile(whole, np.float32))
                one_s = 0.0
                reused.append(seconds(lambda folder=folder: [_read_and_drop(path) for path in folder.iterdir()]))
            else:
                write_s = seconds(lambda folder=folder, kind=kind: write_store(folder, shards, kind, family))
                read_s = seconds(lambda folder=folder: [None for _ in FeatureStore(folder).read(family)])
                store = FeatureStore(folder)
                store.done(family)
                ones = [seconds(lambda name=name: list(store.read(family, [name]))) for name in rng.choice(names, 30)]  # noqa: B023
                one_s = median(ones)
            times.setdefault(kind, []).append((write_s, read_s, one_s))
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            sizes[kind] = size / megabytes / 1e6
    table = Table(title=f"{videos} videos of static tokens, {megabytes:.0f} MB, median of {REPEATS}")
    for heading in (
        "kept as",
        "bytes",
        "write MB/s",
        "of tofile",
        "read MB/s",
        "of fromfile",
        "of reused",
        "one video ms",
    ):
        table.add_column(heading, justify="left" if heading == "kept as" else "right")
    for kind, runs in times.items():
        write_s, read_s, one_s = (median(column) for column in zip(*runs, strict=True))
        pairs = list(zip(runs, times[()], strict=True))
        write_ratio = median(plain[0] / run[0] for run, plain in pairs)
        read_ratio = median(plain[1] / run[1] for run, plain in pairs)
        table.add_row(
            " ".join(kind) if kind else "plain files",
            f"{sizes[kind]:.2f}",
            f"{megabytes / write_s:.0f}",
            f"{write_ratio:.2f}",
            f"{megabytes / read_s:.0f}",
            f"{read_ratio:.2f}",
            f"{median(plain / run[1] for run, plain in zip(runs, reused, strict=True)):.2f}",
            f"{one_s * 1e3:.2f}" if kind else "",
        )
    return table


def _read_and_drop(path: Path) -> None:
    np.fromfile(path, np.float32)


def open_archive(videos: int, scratch: Path) -> Table:
    """Measure how long it takes to find what is left to do among many videos."""
    table = Table(title=f"What is left to do among {videos:,} videos, shards of {SHARD_VIDEOS}")
    for heading in ("kept as", "shards", "seconds", "seconds when asked again"):
        table.add_column(heading, justify="left" if heading == "kept as" else "right")
    wanted = {f"folder/{number:07d}.mp4": f"{number:064x}" for number in range(videos)}
    names = list(wanted)
    family = Family("static", 8, {"weights": "random", "crops": {"size_px": 224, "margin": 1.5}}, QUALITY)
    column, times = np.zeros(TOKENS, np.float32), np.zeros(TOKENS)
    vectors = np.zeros((TOKENS, 8), np.float32)
    for name, format in FORMATS.items():
        store = FeatureStore(scratch / f"archive-{name}", name)
        store.describe(family)
        rows: list[Row] = []
        for number, first in enumerate(range(0, videos, SHARD_VIDEOS)):
            part = [
                VideoFeatures(video, wanted[video], vectors, times, times, dict.fromkeys(QUALITY, column))
                for video in names[first : first + SHARD_VIDEOS]
            ]
            # Without the store's fsync, which would make this take an hour and changes nothing about reading.
            path = store.new_shard(family, number, format.suffix)
            header = ShardHeader.of(family, part)
            format.write(path, header, part)
            rows += manifest_rows(header, path.name, "")
        store.manifest.add(rows)
        fresh = FeatureStore(scratch / f"archive-{name}")

        def left(store: FeatureStore = fresh) -> int:
            return len(wanted) - int(store.has_each(family, names, list(wanted.values())).sum())

        table.add_row(name, f"{number + 1:,}", f"{seconds(left):.2f}", f"{seconds(left):.2f}")
        shutil.rmtree(scratch / f"archive-{name}")
    return table


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=512, help="videos to write and read")
    parser.add_argument("--archive", type=int, default=1_000_000, help="videos of the large store")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        Console(width=120).print(compare_with_plain_files(arguments.videos, Path(scratch)))
        Console(width=120).print(open_archive(arguments.archive, Path(scratch)))


if __name__ == "__main__":
    main()

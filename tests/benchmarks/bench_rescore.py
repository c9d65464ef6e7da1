"""How fast an archive is scored with a new model, beside reading the same shards and doing nothing with them.

Run it as `python tests/benchmarks/bench_rescore.py [--clips N] [--static-tokens N] [--dynamic-tokens N]
[--repeats N] [--workers N ...]`. Features are drawn, in float16 shards of 64 videos. In turn, several times:

- bytes: every shard's file is read from start to end.
- read: every clip's tokens through `FeatureStore.read`, both kinds, checksums included.
- rescore: the flow `rescore`, from finding what has no score to the drift against the version before.
- rescore, N workers: the same by Dask's workers on this machine, from when these have started; they share its cores.

The least times are shown: on the clock, and of the processor, of all threads of this process. Resident memory is its
own when the tenth part of scores was written, and the last. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from flows.archive.families import Families, families_of
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.config.settings import DaskSettings, RunConfig
from flows.engine.choice import one_engine, open_engine
from flows.pipeline.score import rescore, score
from flows.pipeline.train import train
from fusion.traits import TRAITS
from storage import Family, FeatureStore, VideoFeatures

LABELLED = 300
SHARD_VIDEOS = 64
POOL = 4096


def fill_store(config: RunConfig, families: Families, clips: int, tokens: dict[str, int]) -> Path:
    """Write drawn features of many clips, and labels of the first few; returns the labels' path."""
    rng = np.random.default_rng(0)
    store = FeatureStore(config.store.path, dtype="float16")
    drawn = {getattr(families, kind): count for kind, count in tokens.items()}
    # Each clip's tokens are rows of a pool: drawing every number would take longer than all that is measured.
    pools = {family: rng.gamma(0.6, 0.6, (POOL, family.dim)).astype(np.float32) for family in drawn}
    for first in track(range(0, clips, SHARD_VIDEOS), "draw", console=Console(stderr=True)):
        shard: dict[Family, list[VideoFeatures]] = {family: [] for family in drawn}
        for clip in range(first, min(first + SHARD_VIDEOS, clips)):
            digest = hashlib.sha256(str(clip).encode()).hexdigest()
            for family, count in drawn.items():
                start = np.linspace(0, 15, count)
                quality = {name: np.ones(count, np.float32) for name in family.quality}
                vectors = pools[family][rng.integers(0, POOL, count)]
                shard[family].append(VideoFeatures(f"{clip:07d}.mp4", digest, vectors, start, start + 1, quality))
        store.write_all(shard)
    labels = Path(config.store.path).parent / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = ((f"{clip:07d}.mp4", f"p{clip // 3}", *rng.random(5).round(3)) for clip in range(min(LABELLED, clips)))
        csv.writer(file).writerows([("video_id", "subject", *TRAITS), *rows])
    return labels


class Watch:
    """Resident memory of this process whenever another part of scores has been written, in bytes."""

    def __init__(self, folder: Path) -> None:
        self.resident: dict[int, int] = {}
        self._folder, self._over = folder, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        process = psutil.Process()
        while not self._over.wait(0.1):
            parts = len(list(self._folder.glob("*.parquet")))
            self.resident[parts] = process.memory_info().rss


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--static-tokens", type=int, default=2)
    parser.add_argument("--dynamic-tokens", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="numbers of Dask workers (count)")
    options = parser.parse_args()
    tokens = {"static": options.static_tokens, "dynamic": options.dynamic_tokens}
    with tempfile.TemporaryDirectory() as scratch:
        flags = {"weights": "random", "store.path": Path(scratch) / "store", "store.dtype": "float16"}
        config = load_config(flags=flags)
        families = families_of(config)
        labels = fill_store(config, families, options.clips, tokens)
        videos = known_videos(config.store.path, families)
        config = load_config(
            flags=flags | {"labels": labels}, assignments=["train.epochs=1", "train.keep_useless=true"]
        )
        first = train.fn(config, videos)
        score.fn(config, videos, first)
        second = train.fn(config.model_copy(update={"train": config.train.model_copy(update={"seed": 1})}), videos)
        files = [
            path
            for kind in ("static", "dynamic")
            for path in FeatureStore(config.store.path).shards(getattr(families, kind))
        ]
        size = sum(path.stat().st_size for path in files)
        scores = Path(config.store.path) / "scores" / second.name / second.version
        best: dict[str, tuple[float, float]] = {}
        for _ in range(options.repeats):
            shutil.rmtree(scores, ignore_errors=True)
            with Watch(scores) as watch:
                for what, work in {
                    "bytes": lambda: [path.read_bytes() and None for path in files],
                    "read": lambda: [
                        sum(1 for _ in FeatureStore(config.store.path).read(getattr(families, kind))) for kind in tokens
                    ],
                    "rescore": lambda: rescore.fn(config, second),
                }.items():
                    taken = _seconds(work)
                    best[what] = tuple(map(min, taken, best.get(what, taken)))
            for workers in options.workers:
                shutil.rmtree(scores)
                on_dask = config.model_copy(update={"runner": "dask", "dask": DaskSettings(workers=workers)})
                with one_engine():
                    with open_engine(on_dask):
                        pass
                    taken = _seconds(lambda on_dask=on_dask: rescore.fn(on_dask, second))
                what = f"rescore, {workers} worker{'s' if workers > 1 else ''}"
                best[what] = tuple(map(min, taken, best.get(what, taken)))
        table = Table(
            "what",
            title=f"{options.clips:,} clips of {tokens['static']} and {tokens['dynamic']} tokens, {size / 1e9:.1f} GB",
        )
        for heading in ("seconds", "clips/s", "speed of reading", "processor s", "of reading's"):
            table.add_column(heading, justify="right")
        read_s, read_busy_s = best["read"]
        for what, (taken, busy) in best.items():
            columns = f"{taken:.1f}", f"{options.clips / taken:,.0f}", f"{read_s / taken:.2f}"
            table.add_row(what, *columns, f"{busy:.1f}", f"{busy / read_busy_s:.2f}")
        parts = sorted(part for part in watch.resident if part)
        tenth = min(parts, key=lambda part: abs(part - 10))
        table.caption = (
            f"least of {options.repeats}; resident memory {watch.resident[tenth] / 2**20:,.0f} MiB at part {tenth}, "
            f"{watch.resident[parts[-1]] / 2**20:,.0f} MiB at part {parts[-1]}"
        )
        Console(width=120).print(table)


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """How long it takes on the clock, and of the processor."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


if __name__ == "__main__":
    main()

"""What a clip's extraction takes, and what it would take with OpenCV's TV-L1, both in one interleaved run.

Run it as `python tests/benchmarks/bench_extraction.py [--video FILE] [--clips N] [--repeats N] [--price-per-hour P]`.
Without a video it takes a 15 s clip of the corpus where that is present, else a demo clip of 4 s. Several clips are
extracted together, as a shard is; seconds are per clip. A first extraction, which builds graphs and caches, is not
counted. Stages run side by side in several processes, so that their seconds of work add up to more than the wall's.
Where there is a GPU, its utilisation is told. Nothing is asserted about time.

A second table tells what it costs that a video is prepared in a child process, which may crash or hang without harm,
and not in the process that runs the networks: the same clip in turns, each way first as often as the other.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil
from bench_optical_flow import DEFAULT_CORPUS
from rich.console import Console
from rich.table import Table

from extractors.devices import usable_cores, visible_gpus
from extractors.optical_flow.computer import OpticalFlowComputer
from extractors.preparation.pool import PreparerPool
from extractors.preparation.preparer import PreparationSettings, Preparer, Request
from extractors.preparation.stopwatch import STAGES, Stopwatch
from extractors.video.decoding import opened, promised_s
from extractors.video.digests import sha256_of
from flows.archive.families import face_models, families_of
from flows.archive.videos import VideoFile
from flows.config.load import load_config
from flows.demo.corpus import render_demo_corpus
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import Committed, Job

HERE, CHILD = "in this process", "in a child"
CORPUS_CLIP = DEFAULT_CORPUS / "fi_v2" / "98fnGDVky00.005.mp4"
WAYS: dict[str, dict[str, Any]] = {
    "OpenCV's TV-L1": {"optical_flow.engine": "opencv"},
    "Traitline": {},
    "Traitline, bfloat16": {"static.precision": "bfloat16", "dynamic.precision": "bfloat16"},
}


def default_clip(scratch: Path) -> Path:
    """A clip of the corpus where that is present, else one that is drawn into a folder."""
    return CORPUS_CLIP if CORPUS_CLIP.is_file() else render_demo_corpus(scratch).videos / "mixed.mp4"


class GpuWatch:
    """Utilisation of the GPUs, in percent, looked at every half second while it is open; empty without a GPU."""

    def __init__(self) -> None:
        self.percent: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> GpuWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while visible_gpus() and shutil.which(command[0]) and not self._over.wait(0.5):
            shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            self.percent += [float(line) for line in shown.split() if line.isdigit()]  # "[N/A]" of a part of a GPU


def jobs(video: Path, clips: int) -> Iterator[list[Job]]:
    """Shards of one video under names that the store does not know yet."""
    number, digest = 0, sha256_of(video)
    while True:
        names = [f"{number + clip}" for clip in range(clips)]
        yield [Job(VideoFile(name, video, digest), static=True, dynamic=True) for name in names]
        number += clips


def measure(
    video: Path, clips: int, repeats: int, scratch: Path
) -> tuple[dict[str, list[dict[str, float]]], dict[str, list[float]]]:
    """Of each way: seconds per clip by stage, and "all" of the wall, by repeat; and what its GPUs were seen to do."""
    used: dict[str, list[float]] = {name: [] for name in WAYS}
    shards = jobs(video, clips)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    with ExitStack() as resources:
        extractors = {}
        for name, flags in WAYS.items():
            config = load_config(flags={"weights": "random", "store.path": scratch / name, **flags})
            extractors[name] = resources.enter_context(Extractor(config, families_of(config)))
            list(extractors[name].extract(next(shards)[:1]))
        for _ in range(repeats):
            for name, extractor in extractors.items():
                start = time.perf_counter()
                with GpuWatch() as gpus:
                    seconds = sum(extractor.extract(next(shards)), Committed()).seconds
                used[name] += gpus.percent
                runs[name].append({stage: value / clips for stage, value in seconds.items()})
                runs[name][-1]["all"] = (time.perf_counter() - start) / clips
    return runs, used


def compare_child(video: Path, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor time of all processes) in seconds of preparing a video, by where that is done and repeat."""
    config = load_config(flags={"weights": "random"})
    engine = OpticalFlowComputer.from_settings(config.optical_flow).engine
    optical_flow = config.optical_flow.model_copy(update={"engine": engine})
    settings = PreparationSettings(face_models(config), config.video, config.faces, config.crops, optical_flow)
    request = Request(video, None, static=True, dynamic=True)
    with PreparerPool(settings, 1, stall_s=600) as pool, Preparer(settings, lambda: None) as preparer:
        ways: dict[str, Callable[[], Iterator[object]]] = {
            HERE: lambda: preparer.prepare(request, Stopwatch()),
            CHILD: lambda: pool.prepare([request]),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for repeat in range(-1, repeats):  # the first one loads and compiles
            for name in list(ways)[:: 1 if repeat % 2 else -1]:
                start, work = time.perf_counter(), processor_s()
                for _ in ways[name]():
                    pass
                if repeat >= 0:
                    found[name].append((time.perf_counter() - start, processor_s() - work))
    return found


def processor_s() -> float:
    """Processor time of this process and its children so far, in seconds."""
    own = psutil.Process()
    return sum(times.user + times.system for times in (process.cpu_times() for process in (own, *own.children())))


def _child_table(found: dict[str, list[tuple[float, float]]]) -> Table:
    table = Table(title="Preparing a clip on one core: median seconds, and of the paired differences")
    for name in ("", HERE, CHILD, "difference", "share"):
        table.add_column(name, justify="right" if name else "left")
    for row, name in enumerate(("wall", "processor time")):
        here, child = ([seconds[row] for seconds in found[way]] for way in (HERE, CHILD))
        more = median(b - a for a, b in zip(here, child, strict=True))
        table.add_row(
            name, f"{median(here):.2f}", f"{median(child):.2f}", f"{more:+.3f}", f"{more / median(here):+.1%}"
        )
    return table


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="clip to extract")
    parser.add_argument("--clips", type=int, default=2, help="clips at a time (count)")
    parser.add_argument("--repeats", type=int, default=1, help="shards of clips for each way (count)")
    parser.add_argument("--child-repeats", type=int, default=6, help="clips for each way of the second table (count)")
    parser.add_argument("--child-only", action="store_true", help="measure only what the child process costs")
    parser.add_argument("--price-per-hour", type=float, help="of this machine, in any currency: the cost is told")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        video = arguments.video if arguments.video is not None else default_clip(Path(scratch))
        with opened(video) as opening:
            duration_s = promised_s(*opening)
        measured = (
            measure(video, arguments.clips, arguments.repeats, Path(scratch)) if not arguments.child_only else None
        )
        children = compare_child(video, arguments.child_repeats)
    Console().print(_child_table(children))
    if measured is None:
        return
    runs, used = measured
    table = Table(title=f"{video.name}, {duration_s:.1f} s: seconds per clip, {usable_cores()} cores")
    table.add_column("stage")
    for name in WAYS:
        table.add_column(name, justify="right")
    typical = {
        name: {stage: median(run.get(stage, 0.0) for run in found) for stage in (*STAGES, "all")}
        for name, found in runs.items()
    }
    for stage in STAGES:
        table.add_row(stage, *(f"{typical[name][stage]:.2f}" for name in WAYS))
    table.add_section()
    table.add_row("wall", *(f"{typical[name]['all']:.2f}" for name in WAYS))
    reference = next(iter(typical.values()))["all"]
    table.add_row("times faster", *(f"{reference / typical[name]['all']:.1f}" for name in WAYS))
    table.add_section()
    table.add_row("clips per second", *(f"{1 / typical[name]['all']:.2f}" for name in WAYS))
    if arguments.price_per_hour is not None:
        costs = (10_000 * typical[name]["all"] / 3600 * arguments.price_per_hour for name in WAYS)
        table.add_row(f"10,000 clips at {arguments.price_per_hour:g} an hour", *(f"{cost:.2f}" for cost in costs))
    table.add_row("GPU utilisation", *(f"{mean(used[name]):.0f} %" if used[name] else "no GPU here" for name in WAYS))
    Console().print(table)


if __name__ == "__main__":
    main()

"""Processor time that it takes to prepare a clip for the networks, by stage, decoded once and decoded twice.

Run it as `python tests/benchmarks/bench_preparation.py [--video FILE ...] [--repeats N] [--optical-flow]`. Both ways
take turns in one process with as few threads as a child has. Nothing is asserted, except that both give the same bits.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
from bench_extraction import default_clip
from rich.console import Console
from rich.table import Table

from extractors.preparation import preparer as preparation
from extractors.preparation.child import _start_no_threads
from extractors.preparation.preparer import PreparationSettings, Preparer, Request
from extractors.preparation.stopwatch import Stopwatch
from flows.archive.families import face_models
from flows.config.load import load_config

STAGES = ("decode", "faces", "optical flow")
WAYS = {"decoded twice": 0.0, "decoded once": preparation.KEPT_SHARE}


def prepared(preparer: Preparer, video: Path, share: float) -> tuple[dict[str, float], str]:
    """Seconds of processor time by stage, and the digest of all parts; `share` of the memory may hold frames."""
    watch, digest, start = Stopwatch(time.process_time), hashlib.sha256(), time.process_time()
    with mock.patch.object(preparation, "KEPT_SHARE", share):
        for part in preparer.prepare(Request(video, static=True, dynamic=True), watch):
            before = time.process_time()
            for value in vars(part).values():
                digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
            start += time.process_time() - before
    return {**watch.seconds, "all": time.process_time() - start}, digest.hexdigest()


def main() -> None:
    """Measure and print a table for each clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, nargs="*", default=[], help="clips to prepare")
    parser.add_argument("--repeats", type=int, default=4, help="runs of each way (count)")
    parser.add_argument("--optical-flow", action="store_true", help="compute it too; else windows stay grey frames")
    arguments = parser.parse_args()
    _start_no_threads()
    config = load_config(flags={"weights": "random"})
    engine = "cpu" if arguments.optical_flow else "gpu"  # which leaves it to another process
    optical_flow = config.optical_flow.model_copy(update={"engine": engine})
    settings = PreparationSettings(face_models(config), config.video, config.faces, config.crops, optical_flow)
    with tempfile.TemporaryDirectory() as scratch, Preparer(settings, lambda: None) as preparer:
        for video in arguments.video or [default_clip(Path(scratch))]:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
            digests = set()
            for repeat in range(-1, arguments.repeats):  # the first run loads and compiles
                for name in list(WAYS)[:: 1 if repeat % 2 else -1]:
                    seconds, digest = prepared(preparer, video, WAYS[name])
                    digests.add(digest)
                    if repeat >= 0:
                        found[name].append(seconds)
            assert len(digests) == 1
            table = Table("seconds of processor time", title=f"Preparing {video.name}: medians")
            for name in WAYS:
                table.add_column(name, justify="right")
            table.add_column("ratio", justify="right")
            for stage in (*STAGES, "all"):
                twice, once = (median(run.get(stage, 0.0) for run in found[name]) for name in WAYS)
                table.add_row(stage, f"{twice:.2f}", f"{once:.2f}", f"{once / twice:.2f}" if twice else "")
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            table.caption = f"sha256 {digest[:16]}; the process has needed up to {peak_mib} MiB"
            Console().print(table)


if __name__ == "__main__":
    main()

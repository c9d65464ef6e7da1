"""Threads and memory of the child processes that prepare videos, by the number of cores that they see.

Run it as `python tests/benchmarks/bench_children.py [--video FILE] [--processes N] [--optical-flow] [--cores N ...]`.
Each child prepares a clip (a 15 s clip of the corpus if that is present, else a demo clip of 4 s) twice, and is looked
at after that, before it ends. Its processor time is that of the second time. Besides this machine's cores, it is made
to see others (see `many_cores`), and told to use them all by OPENBLAS_NUM_THREADS and the like, as on a large machine.
Then, the cost of the digest that is computed after each video. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import psutil
from bench_extraction import default_clip
from many_cores import pretend_cores
from rich.console import Console
from rich.table import Table

from extractors.devices import usable_cores
from extractors.preparation.pool import PreparerPool
from extractors.preparation.preparer import PreparationSettings, Request
from extractors.video.digests import sha256_of
from flows.archive.families import face_models
from flows.config.load import load_config

STATUS = ("Threads", "VmData", "VmRSS")


def children_after(settings: PreparationSettings, video: Path, processes: int) -> tuple[list[list[int]], float]:
    """Threads, VmData and VmRSS (MiB) of each child after a clip, and the seconds of processor time per clip."""
    with PreparerPool(settings, processes, stall_s=600) as pool:
        used_s = []
        for _ in range(2):
            for _ in pool.prepare([Request(video, None, static=True, dynamic=True)] * processes):
                pass
            times = [child.cpu_times() for child in psutil.Process().children()]
            used_s.append(sum(one.user + one.system for one in times))
        seconds = (used_s[1] - used_s[0]) / processes
        found = []
        for child in psutil.Process().children():
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines)
            threads, *kib = (int(status[name].split()[0]) for name in STATUS)
            found.append([threads, *(value // 1024 for value in kib)])
    return found, seconds


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="clip to prepare")
    parser.add_argument("--processes", type=int, default=2, help="child processes at a time (count)")
    parser.add_argument("--optical-flow", action="store_true", help="compute it too; else windows stay grey frames")
    parser.add_argument("--cores", type=int, nargs="*", default=[16, 64, 256], help="cores to pretend (counts)")
    arguments = parser.parse_args()
    config = load_config(flags={"weights": "random"})
    settings = PreparationSettings(
        face_models(config),
        config.video,
        config.faces,
        config.crops,
        config.optical_flow.model_copy(update={"engine": "cpu" if arguments.optical_flow else "gpu"}),
    )
    with tempfile.TemporaryDirectory() as scratch:
        video = arguments.video if arguments.video is not None else default_clip(Path(scratch))
        table = Table("cores", title=f"Children that prepare {video.name}")
        for name in ("child", "threads", "VmData (MiB)", "resident (MiB)", "processor time per clip (s)"):
            table.add_column(name, justify="right")
        before = dict(os.environ)
        for count in (None, *arguments.cores):
            if count is not None:
                os.environ.update(pretend_cores(count, Path(scratch)))
            found, seconds = children_after(settings, video, arguments.processes)
            cores = f"{usable_cores()} (this machine's)" if count is None else f"{count} (pretended)"
            for number, row in enumerate(found, start=1):
                used = f"{seconds:.2f}" if number == 1 else ""
                table.add_row(cores if number == 1 else "", str(number), *map(str, row), used)
            table.add_section()
        os.environ.clear()
        os.environ.update(before)
        start = time.perf_counter()
        sha256_of(video)
        digest_ms = 1000 * (time.perf_counter() - start)
        table.caption = f"the digest of {video.stat().st_size / 1e6:.1f} MB takes {digest_ms:.1f} ms"
    Console().print(table)


if __name__ == "__main__":
    main()

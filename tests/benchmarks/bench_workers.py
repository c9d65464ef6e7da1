"""What several workers are worth, and what it costs to hand shards out.

Run it as `python tests/benchmarks/bench_workers.py [--clips N] [--repeats N] [--shards N] [--video FILE]`.

- workers: real extraction with random weights, by one Dask worker that has all cores and by two with half of them each,
  on the same clips in shards of `--clips`. Their networks are built, and one clip is extracted, before.
- handing out: the loop of the flow `extract` with its claims, look-ups and progress, in shards of 64 clips, whose
  features are drawn in place of being extracted. What the loop takes beyond drawing and committing is what handing out
  costs; its share is of the time that 64 clips take by the measured rate of one worker.

Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
sys.path.insert(0, str(Path(__file__).parents[1] / "support" / "machines"))

from bench_extraction import default_clip, jobs
from rich.console import Console
from rich.table import Table
from worker_farm import FAMILIES, Order, drawn_videos, open_drawing

from extractors.devices import usable_cores
from flows.archive.families import families_of
from flows.config.load import load_config
from flows.config.settings import DaskSettings
from flows.engine.choice import open_engine
from flows.engine.dask import open_dask
from flows.extraction.jobs import Job
from flows.extraction.worker import leases_for, open_stretches
from flows.extraction.worklist import WorkList
from flows.pipeline.extract import extract_stretches
from flows.session import console
from flows.session.environment import settle_environment

SHARD = 64


def clips_per_second(video: Path, clips: int, repeats: int, scratch: Path, workers: int) -> list[float]:
    """The rate of each repeat, by so many workers."""
    config = load_config(flags={"weights": "random", "store.path": scratch / f"by {workers}"})
    shards, rates, out = jobs(video, clips), [], 0

    def items() -> Iterator[tuple[Job, ...] | None]:
        nonlocal out
        for repeat in range(-1, repeats):  # the first one builds the networks
            start = time.perf_counter()
            for _ in range(2):
                out += 1
                yield tuple(next(shards)[: clips if repeat >= 0 else 1])
            while out:
                yield None
            if repeat >= 0:
                rates.append(2 * clips / (time.perf_counter() - start))

    def on_result(*_: object) -> None:
        nonlocal out
        out -= 1

    with open_dask(DaskSettings(workers=workers)) as engine:
        engine.run(partial(open_stretches, config, families_of(config), clips), items(), on_result)
    return rates


def seconds_to_hand_out(shards: int, scratch: Path, runner: str, workers: int) -> float:
    """What one shard of 64 clips costs a worker beside its extraction, in seconds."""
    order = Order(str(scratch / f"drawn {runner}"), str(scratch), videos=shards * SHARD, shard_size=SHARD)
    config = order.config()
    config = config.model_copy(update={"runner": runner, "dask": DaskSettings(workers=workers)})
    todo = WorkList(drawn_videos(order.videos), config, FAMILIES)
    with (
        open_engine(config) as engine,
        leases_for(config.store.path, FAMILIES) as leases,
        console.stage("Extract", todo.count) as stage,
    ):
        start = time.perf_counter()
        report = extract_stretches(todo, leases, stage, engine, partial(open_drawing, order))
        wall = time.perf_counter() - start
    return ((workers if runner == "dask" else 1) * wall - report.seconds["drawn"]) / shards


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="clip to extract")
    parser.add_argument("--clips", type=int, default=4, help="clips in a shard that is really extracted (count)")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of two such shards by each number of workers")
    parser.add_argument("--shards", type=int, default=40, help="shards of drawn features (count)")
    arguments = parser.parse_args()
    settle_environment()
    os.environ["PYTHONPATH"] = sys.path[0]  # where workers find what draws
    console.console.quiet = True
    table = Table("what", title=f"Workers on {usable_cores()} cores")
    table.add_column("figure", justify="right")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        video = arguments.video if arguments.video is not None else default_clip(scratch)
        one, two = (
            median(clips_per_second(video, arguments.clips, arguments.repeats, scratch, count)) for count in (1, 2)
        )
        table.add_row(f"1 worker process, clips/s ({video.name})", f"{one:.3f}")
        table.add_row("2 worker processes, clips/s", f"{two:.3f}")
        table.add_row("ratio", f"{two / one:.2f}")
        table.add_section()
        for runner in ("local", "dask"):
            seconds = seconds_to_hand_out(arguments.shards, scratch, runner, 2)
            table.add_row(f"handing out a shard of {SHARD}, runner {runner}, ms", f"{1000 * seconds:.0f}")
            table.add_row("  share of that worker's time", f"{seconds / (seconds + SHARD / one):.3%}")
            table.add_row("  is 1% at clips/s", f"{SHARD * 0.01 / seconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()

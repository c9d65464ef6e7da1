"""What several worker processes are worth, and what it costs to hand shards out.

Run it as `python tests/benchmarks/bench_workers.py [--clips N] [--repeats N] [--shards N] [--video FILE]`.

- workers: real extraction with random weights, by one worker process that has all cores and by two with half of them
  each, in turn, on the same clips in shards of `--clips`. Their networks are built, and one clip is extracted, before.
- handing out: the flow `extract` with its claims, Prefect tasks, look-ups and progress, in shards of 64 clips, whose
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
sys.path.insert(0, str(Path(__file__).parents[1] / "support" / "machines"))

from bench_extraction import default_clip, jobs
from rich.console import Console
from rich.table import Table
from worker_farm import FAMILIES, DrawingExtractor, Order, draw_worker, drawn_videos

from extractors.devices import usable_cores
from flows.archive.families import families_of
from flows.config.load import load_config
from flows.extraction.jobs import Job
from flows.extraction.pool import Tally, WorkerPool
from flows.extraction.worker import worker_maker
from flows.session import console
from flows.session.environment import settle_environment
from flows.session.server import prefect_api

SHARD = 64


def clips_per_second(video: Path, clips: int, repeats: int, scratch: Path) -> dict[int, list[float]]:
    """For one and two worker processes, the rate of each repeat."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    pools: dict[int, WorkerPool] = {}
    with ExitStack() as resources:
        threads = resources.enter_context(ThreadPoolExecutor(2))
        shards: dict[int, Iterator[list[Job]]] = {}
        for count in rates:
            config = load_config(flags={"weights": "random", "store.path": scratch / f"by {count}"})
            pools[count] = resources.enter_context(WorkerPool(worker_maker(config, families_of(config)), count))
            shards[count] = jobs(video, clips)
            extract_all(threads, pools[count], [next(shards[count])[:1] for _ in range(count)])
        for _ in range(repeats):
            for count, pool in pools.items():
                start = time.perf_counter()
                extract_all(threads, pool, [next(shards[count]) for _ in range(2)])
                rates[count].append(2 * clips / (time.perf_counter() - start))
    return rates


def extract_all(threads: ThreadPoolExecutor, pool: WorkerPool, shards: list[list[Job]]) -> None:
    """Have shards extracted, as many at a time as the pool has workers."""
    for done in [threads.submit(pool.extract, shard, Tally()) for shard in shards]:
        done.result()


def seconds_to_hand_out(shards: int, scratch: Path, **settings: object) -> float:
    """What one shard of 64 clips costs a worker beside its extraction, in seconds."""
    from flows.pipeline import extract as extract_flow

    runner = settings["runner"]
    order = Order(str(scratch / f"drawn {runner}"), str(scratch), videos=shards * SHARD, shard_size=SHARD)
    config = order.config()
    config = config.model_copy(update={"extract": config.extract.model_copy(update=settings)})
    walls: list[float] = []

    def timed(loop: Callable) -> Callable:
        def run(*arguments: object, **named: object) -> object:
            start = time.perf_counter()
            try:
                return loop(*arguments, **named)
            finally:
                walls.append(time.perf_counter() - start)

        return run

    names = {
        "families_of": lambda _: FAMILIES,
        "Extractor": lambda _config, _families, confirm: DrawingExtractor(order, confirm),
        "worker_maker": lambda *_: partial(draw_worker, order),
        "extract_locally": timed(extract_flow.extract_locally),
        "extract_in_workers": timed(extract_flow.extract_in_workers),
    }
    before = {name: getattr(extract_flow, name) for name in names}
    for name, value in names.items():
        setattr(extract_flow, name, value)
    try:
        report = extract_flow.extract(config, drawn_videos(order.videos))
    finally:
        for name, value in before.items():
            setattr(extract_flow, name, value)
    workers = 1 if runner == "local" else settings["workers"]
    return (workers * walls[0] - report.seconds["drawn"]) / shards


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
        rates = clips_per_second(video, arguments.clips, arguments.repeats, scratch)
        one, two = (median(rates[count]) for count in (1, 2))
        table.add_row(f"1 worker process, clips/s ({video.name})", f"{one:.3f}")
        table.add_row("2 worker processes, clips/s", f"{two:.3f}")
        table.add_row("ratio", f"{two / one:.2f}")
        table.add_section()
        with prefect_api():
            for runner in ("local", "processes", "dask"):
                seconds = seconds_to_hand_out(arguments.shards, scratch, runner=runner, workers=2)
                table.add_row(f"handing out a shard of {SHARD}, runner {runner}, ms", f"{1000 * seconds:.0f}")
                table.add_row("  share of that worker's time", f"{seconds / (seconds + SHARD / one):.3%}")
                table.add_row("  is 1 % at clips/s", f"{SHARD * 0.01 / seconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()

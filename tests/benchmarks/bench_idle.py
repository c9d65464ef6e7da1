"""How long processes idle while the last videos of a stretch are prepared: a simulation, in which nothing is decoded.

Run it as `python tests/benchmarks/bench_idle.py`. It compares stretches of one shard, in the order of the names, with
those that a worker claims, large files first. Videos take a time that is their size, within 15%: either about the same,
or log-normal times with standard deviations of 0.5 and 1 (of the logarithm).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from flows.config.settings import ExtractSettings
from flows.extraction.worklist import VIDEOS_PER_PROCESS

SHARD = ExtractSettings().shard_size
SPREADS = {"clips of one length": 0.0, "log-normal, 0.5": 0.5, "log-normal, 1": 1.0}
REPEATS = 400


def idle_share(processes: int, videos: int, spread: float, order: Callable[[np.ndarray], np.ndarray]) -> float:
    """Share of the processes' time from the start of a stretch to its end in which they have nothing to do."""
    rng = np.random.default_rng(0)
    work = capacity = 0.0
    for _ in range(REPEATS):
        sizes = rng.lognormal(0.0, spread, videos)
        seconds = sizes * rng.normal(1.0, 0.15, videos).clip(0.5)
        ends = [0.0] * processes
        for took in seconds[order(sizes)]:
            heapq.heapreplace(ends, ends[0] + took)
        work, capacity = work + seconds.sum(), capacity + processes * max(ends)
    return 1 - work / capacity


def main() -> None:
    """Simulate and print one table."""
    table = Table(title=f"Share of time that processes idle: one shard of {SHARD} by name, and what is claimed")
    for name in ("processes", "videos claimed", *SPREADS):
        table.add_column(name, justify="right")
    for processes in (2, 8, 16, 32, 64):
        claimed = max(1, VIDEOS_PER_PROCESS * processes // SHARD) * SHARD
        shares = [
            f"{idle_share(processes, SHARD, spread, lambda sizes: np.arange(len(sizes))):.1%} -> "
            f"{idle_share(processes, claimed, spread, lambda sizes: np.argsort(-sizes)):.1%}"
            for spread in SPREADS.values()
        ]
        table.add_row(str(processes), str(claimed), *shares)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

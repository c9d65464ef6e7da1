"""Time by stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

STAGES = ("decode", "faces", "optical flow", "static network", "dynamic network", "write")


class Stopwatch:
    """Adds up time by stage. Time in a nested stage counts towards the nested stage only.

    Attributes:
        seconds: stage -> seconds so far.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count the time of the block towards `stage`."""
        self._book()
        self._running.append(stage)
        try:
            yield
        finally:
            self._book()
            self._running.pop()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add another stopwatch's seconds."""
        for stage, more in seconds.items():
            self.seconds[stage] += more

    def take(self) -> dict[str, float]:
        """Return the seconds so far by stage, and begin again at 0."""
        seconds = dict(self.seconds)
        self.seconds.clear()
        return seconds

    def iterate(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items; count the time spent waiting for each towards `stage`."""
        waiting = iter(items)
        while True:
            with self.measure(stage):
                try:
                    item = next(waiting)
                except StopIteration:
                    return
            yield item

    def _book(self) -> None:
        now = self._clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

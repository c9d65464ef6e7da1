"""Batches of padded clips, streamed from a source in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from fusion.clips.sources import ClipSource
from fusion.clips.tokens import ClipTokens, pad_batch

BATCHES_AHEAD = 3

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class EpochPlan:
    """The order of the groups to read and the rows of each batch; known before anything is read."""

    groups: list[np.ndarray]
    batches: list[np.ndarray]


def plan_epoch(
    groups: Sequence[np.ndarray], batch_size: int, *, buffer_clips: int, rng: np.random.Generator
) -> EpochPlan:
    """Plan an epoch in random order.

    Groups enter a shuffle buffer in random order; clips beyond its size leave it at random. If the buffer holds
    everything, every order of the clips is equally likely. Batches are dealt evenly: 65 clips in batches of at most 32
    become 22 + 22 + 21, not 32 + 32 + 1, because a batch of one clip would teach BatchNorm a variance of zero.
    """
    groups = [groups[index] for index in rng.permutation(len(groups))]
    order: list[np.ndarray] = []
    waiting = np.zeros(0, int)
    for group in groups:
        waiting = np.concatenate([waiting, group])
        excess = len(waiting) - buffer_clips
        if excess > 0:
            waiting = rng.permutation(waiting)
            order.append(waiting[:excess])
            waiting = waiting[excess:]
    rows = np.concatenate([*order, rng.permutation(waiting)])
    return EpochPlan(groups, np.array_split(rows, -(-len(rows) // batch_size)))


def read_batches(source: ClipSource, plan: EpochPlan) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Read the batches of a plan: the numbers of B clips in the source, int [B], and the model's inputs (`pad_batch`).

    Memory holds the clips in the shuffle buffer, one group, and one batch.
    """
    groups = iter(plan.groups)
    held: dict[int, ClipTokens] = {}
    for rows in plan.batches:
        while not all(row in held for row in rows.tolist()):
            group = next(groups)
            held.update(zip(group.tolist(), source.read(group), strict=True))
        yield rows, pad_batch([held.pop(row) for row in rows.tolist()])


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Produce items in a thread, up to `BATCHES_AHEAD` in advance; exceptions in the thread are raised here."""
    reader = ThreadPoolExecutor(1, "make batches")
    end = object()
    waiting = deque(reader.submit(next, items, end) for _ in range(BATCHES_AHEAD))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(reader.submit(next, items, end))
            yield cast("Item", item)
    finally:
        reader.shutdown(cancel_futures=True)

"""What Dask keeps of the items of a run in the command's process does not grow with their number."""

from __future__ import annotations

import gc
import secrets
import tracemalloc
from pathlib import Path

import engine_work

from flows.config.settings import DaskSettings
from flows.engine.dask import open_dask

ITEM_BYTES = 50_000
ITEMS, SETTLED_AFTER = 360, 180


def test_memory_does_not_grow_with_the_number_of_items(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(engine_work.__file__).parent))
    traced: list[int] = []

    def on_result(*_: object) -> None:
        traced.append(0)
        if len(traced) in (SETTLED_AFTER, ITEMS):
            gc.collect()
            traced[-1] = tracemalloc.get_traced_memory()[0]

    with open_dask(DaskSettings(workers=1)) as engine:
        tracemalloc.start()
        try:
            engine.run(engine_work.forgetting, (secrets.token_bytes(ITEM_BYTES) for _ in range(ITEMS)), on_result)
        finally:
            tracemalloc.stop()
    grown = traced[ITEMS - 1] - traced[SETTLED_AFTER - 1]
    sent = (ITEMS - SETTLED_AFTER) * ITEM_BYTES
    print(f"\nmemory grew by {grown / 1e6:.2f} MB while items of {sent / 1e6:.1f} MB were sent")
    assert grown < sent / 10

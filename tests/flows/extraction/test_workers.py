"""Shards extracted by Dask's workers, some of which are killed. Features are drawn; all else is real."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from store_truth import assert_store_is_right, seen
from worker_farm import FAMILIES, Order, drawn_videos, open_drawing

from flows.config.settings import RunConfig
from flows.engine import dask
from flows.engine.engine import LocalEngine
from flows.extraction.worklist import WorkList
from flows.pipeline import extract as extract_flow
from storage import FeatureStore
from storage.leases.leases import Leases

SUPPORT = Path(__file__).parents[2] / "support" / "machines"


@pytest.fixture
def order(tmp_path, monkeypatch) -> Order:
    """Workers that draw: 40 videos in shards of 4, each of which takes 0.4 s."""
    order = Order(str(tmp_path / "store"), str(tmp_path), videos=40, shard_size=4, video_s=0.1)
    monkeypatch.setattr(extract_flow, "families_of", lambda _: FAMILIES)
    monkeypatch.setattr(extract_flow, "open_stretches", partial(open_drawing, order))
    # Where other processes find what draws.
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    return order


def configured(order: Order, **settings: object) -> RunConfig:
    config = order.config()
    return config.model_copy(update={"runner": "dask", "dask": config.dask.model_copy(update=settings)})


def at_work(order: Order) -> set[int]:
    """Numbers of the processes that hold a claim."""
    pids = set()
    for path in Path(order.store, "leases").glob("*/[0-9]*.json"):
        with contextlib.suppress(FileNotFoundError):
            if not path.with_suffix(".end").exists():
                pids.add(json.loads(path.read_text())["process"]["pid"])
    return pids


@contextlib.contextmanager
def killer(order: Order, shards: int) -> Iterator[list[int]]:
    """Kill a process that holds a claim, once so many shards are there and two processes work."""
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if (
                len(list(Path(order.store).glob("features/static/*/shard-*"))) >= shards
                and len(pids := at_work(order)) == 2
            ):
                killed.append(pids.pop())
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    thread.join()


def assert_killed_run_ends_complete(order: Order, config: RunConfig) -> None:
    with killer(order, shards=2) as killed:
        report = extract_flow.extract(config, drawn_videos(order.videos))
    assert len(killed) == 1
    assert not Path(f"/proc/{killed[0]}/exe").exists()
    assert_store_is_right(order)
    assert report.extracted + report.failed + report.by_others == order.videos
    again = [video for video, times in seen(order).items() if times > 1]
    print(f"killed one of two; begun with again: {len(again)} videos; {report}")
    assert len(again) <= order.shard_size


@pytest.mark.parametrize("whose", [pytest.param("the run's own", marks=pytest.mark.slow), "another one"])
def test_one_of_two_workers_killed_in_the_middle_and_the_run_ends_complete(order, request, whose):
    if whose == "another one":
        config = configured(order, address=request.getfixturevalue("dask_address"), resources={"GPU": 1})
    else:
        config = configured(order, workers=2)
    assert_killed_run_ends_complete(order, config)
    assert at_work(order) == set()


def extracted(order: Order, *shards: tuple) -> list[tuple[int, int]]:
    """Have shards extracted here: how many videos of each were extracted and refused."""
    reports = []
    LocalEngine().run(partial(open_drawing, order), shards, lambda _, report: reports.append(report))
    return [(report.extracted, report.failed) for report in reports]


def test_shard_that_is_given_twice_is_done_once(order):
    shard = tuple(WorkList(drawn_videos(order.videos), order.config(), FAMILIES).choose(frozenset()).values())
    first, again = extracted(order, shard, shard)
    shards = [sorted(FeatureStore(order.store).shards(family)) for family in (FAMILIES.static, FAMILIES.dynamic)]
    elsewhere = extracted(order, shard)
    assert sum(first) == len(shard)
    assert [again, *elsewhere] == [(0, 0), (0, 0)]
    assert max(seen(order).values()) == 1
    assert shards == [
        sorted(FeatureStore(order.store).shards(family)) for family in (FAMILIES.static, FAMILIES.dynamic)
    ]


def test_shard_that_another_run_works_on_is_left_to_it(order):
    jobs = WorkList(drawn_videos(order.videos), order.config(), FAMILIES).choose(frozenset())
    theirs = dict(list(jobs.items())[:3])
    with Leases(order.store, FAMILIES.faces.key) as other:
        other.claim(lambda _: theirs)
        extracted(order, tuple(jobs.values()))
    assert set(seen(order)) == set(jobs) - set(theirs)


@pytest.mark.parametrize("whose", ["the run's own", "another one"])
def test_stopped_run_drops_its_shards_gives_them_back_and_leaves_no_process(order, request, monkeypatch, whose):
    """The shards at hand would take half an hour. A cluster that somebody else started is left, but does no more."""
    order = Order(**{**vars(order), "videos": 2000, "shard_size": 1000, "video_s": 2.0})
    monkeypatch.setattr(extract_flow, "open_stretches", partial(open_drawing, order))
    address = request.getfixturevalue("dask_address") if whose == "another one" else None
    config = configured(order, workers=2, address=address)
    workers: set[int] = set()

    def stop() -> None:
        if len(workers | at_work(order)) == 2:
            workers.update(at_work(order))
            raise KeyboardInterrupt

    monkeypatch.setattr(dask.stopping, "check", stop)
    monkeypatch.setattr(dask, "POLL_S", 0.1)
    with pytest.raises(KeyboardInterrupt):
        extract_flow.extract(config, drawn_videos(order.videos))
    stopped_at = time.monotonic()
    while at_work(order):
        assert time.monotonic() < stopped_at + 120
        time.sleep(0.05)
    assert FeatureStore(order.store).done(FAMILIES.static) == {}
    if whose == "the run's own":
        assert not any(Path(f"/proc/{pid}/exe").exists() for pid in workers)

"""Shards extracted in other processes, some of which are killed. Features are drawn; all else is real."""

from __future__ import annotations

import contextlib
import importlib.util
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
from worker_farm import FAMILIES, Order, draw_worker, drawn_videos

from flows.config.load import load_config
from flows.config.settings import ExtractSettings, RunConfig
from flows.extraction import runners
from flows.extraction.worklist import WorkList
from flows.pipeline import extract as extract_flow
from flows.pipeline import prepare
from flows.session.errors import UserError
from storage import FeatureStore
from storage.leases.leases import Leases

pytestmark = pytest.mark.usefixtures("prefect_api")
SUPPORT = Path(__file__).parents[2] / "support" / "machines"


@pytest.fixture
def order(tmp_path, monkeypatch) -> Order:
    """Workers that draw: 40 videos in shards of 4, each of which takes 0.4 s."""
    order = Order(str(tmp_path / "store"), str(tmp_path), videos=40, shard_size=4, video_s=0.1)
    monkeypatch.setattr(extract_flow, "families_of", lambda _: FAMILIES)
    monkeypatch.setattr(extract_flow, "worker_maker", lambda *_: partial(draw_worker, order))
    # Where other processes find what draws.
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    for name in ("extract_in_pool", "extract_on_dask"):
        monkeypatch.setattr(runners, name, getattr(runners, name).with_options(retry_delay_seconds=0))
    return order


@pytest.fixture(scope="module")
def dask_address() -> Iterator[str]:
    """A Dask cluster of two worker processes with a GPU each, as far as Dask is told."""
    from distributed import LocalCluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT))
        options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "resources": {"GPU": 1}}
        with LocalCluster(n_workers=2, **options) as cluster:
            yield cluster.scheduler_address


def configured(order: Order, **settings: object) -> RunConfig:
    config = order.config()
    return config.model_copy(update={"extract": config.extract.model_copy(update=settings)})


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
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if len(list(Path(order.store).glob("features/static/*/shard-*"))) >= shards and len(at_work(order)) == 2:
                killed.append(at_work(order).pop())
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


def test_processes_one_killed_in_the_middle_is_replaced_and_the_run_ends_complete(order):
    assert_killed_run_ends_complete(order, configured(order, runner="processes", workers=2))
    assert at_work(order) == set()


def test_dask_one_of_two_workers_killed_in_the_middle_and_the_run_ends_complete(order, dask_address):
    config = configured(order, runner="dask", address=dask_address, resources={"GPU": 1})
    assert_killed_run_ends_complete(order, config)
    assert at_work(order) == set()


def test_shard_that_is_given_twice_is_done_once(order):
    config = order.config()
    jobs = list(WorkList(drawn_videos(order.videos), config, FAMILIES).choose(frozenset()).values())
    with draw_worker(order) as one, draw_worker(order) as two:
        first = one.extract(jobs, lambda *_: None)
        shards = [sorted(FeatureStore(order.store).shards(family)) for family in (FAMILIES.static, FAMILIES.dynamic)]
        again, elsewhere = one.extract(jobs, lambda *_: None), two.extract(jobs, lambda *_: None)
    assert first.extracted + first.failed == len(jobs)
    assert [(report.extracted, report.failed) for report in (again, elsewhere)] == [(0, 0), (0, 0)]
    assert max(seen(order).values()) == 1
    assert shards == [
        sorted(FeatureStore(order.store).shards(family)) for family in (FAMILIES.static, FAMILIES.dynamic)
    ]


def test_shard_that_another_run_works_on_is_left_to_it(order):
    jobs = WorkList(drawn_videos(order.videos), order.config(), FAMILIES).choose(frozenset())
    theirs = dict(list(jobs.items())[:3])
    with Leases(order.store, FAMILIES.faces.key) as other, draw_worker(order) as worker:
        other.claim(lambda _: theirs)
        worker.extract(list(jobs.values()), lambda *_: None)
    assert set(seen(order)) == set(jobs) - set(theirs)


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_stopped_run_drops_its_shards_gives_them_back_and_leaves_no_process(order, request, monkeypatch, runner):
    """The shards at hand would take another 40 s. A cluster that somebody else started is left, but does no more."""
    order = Order(**{**vars(order), "shard_size": 20, "video_s": 2.0})
    monkeypatch.setattr(extract_flow, "worker_maker", lambda *_: partial(draw_worker, order))
    address = request.getfixturevalue("dask_address") if runner == "dask" else None
    config = configured(order, runner=runner, workers=2, address=address)
    workers: set[int] = set()

    def stop() -> None:
        if len(workers | at_work(order)) == 2:
            workers.update(at_work(order))
            raise KeyboardInterrupt

    monkeypatch.setattr(extract_flow.stopping, "check", stop)
    monkeypatch.setattr(extract_flow.stopping, "asked", lambda: bool(workers))
    with pytest.raises(KeyboardInterrupt):
        extract_flow.extract(config, drawn_videos(order.videos))
    stopped_at = time.monotonic()
    while at_work(order):
        assert time.monotonic() < stopped_at + 10
        time.sleep(0.05)
    assert FeatureStore(order.store).done(FAMILIES.static) == {}
    if runner == "processes":
        assert not any(Path(f"/proc/{pid}/exe").exists() for pid in workers)


def test_dask_scheduler_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr(runners, "CONNECT_S", 1)
    settings = ExtractSettings(runner="dask", address="tcp://127.0.0.1:9")
    expected = r"no Dask scheduler answers at tcp://127.0.0.1:9 \(extract.address\)"
    with pytest.raises(UserError, match=expected) as error, runners.open_runner(settings, None):
        pass
    assert "\n" not in str(error.value)


def test_dask_cluster_without_the_resources_is_one_line_that_says_how_to_start_it(dask_address):
    settings = ExtractSettings(runner="dask", address=dask_address, resources={"GPU": 2, "FPGA": 1})
    expected = 'dask worker --resources "GPU=2 FPGA=1"'
    with pytest.raises(UserError, match=expected), runners.open_runner(settings, None):
        pass


def test_dask_workers_elsewhere_need_a_prefect_server_that_they_reach():
    runners._check_prefect({"127.0.0.1"})
    with pytest.raises(UserError, match="PREFECT_API_URL"):
        runners._check_prefect({"127.0.0.1", "192.0.2.7"})  # an address that no machine has


def test_missing_dask_is_one_line_before_anything_else_begins(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "prefect_dask" else real(name))
    flags = {"videos": tmp_path, "store.path": tmp_path / "store", "weights": "random", "extract.runner": "dask"}
    with pytest.raises(UserError, match=r"pip install 'traitline\[dask\]'"):
        prepare.check_settings(load_config(flags=flags), with_files=True)

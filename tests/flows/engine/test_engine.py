"""Engines keep one contract, in this process and on Dask's workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import engine_work
import pytest
from distributed import KilledWorker
from drawn_store import draw_store
from prefect_machine import wait_for

from flows.config.load import load_config
from flows.config.settings import DaskSettings
from flows.engine import choice, dask, engine
from flows.session.errors import UserError, mistake_in_words

SUPPORT = Path(engine_work.__file__).parent
ENDLESS = 1_000_000  # items, of which a worker does many before another one comes to its first


@pytest.fixture(params=["local", "dask"])
def opened(request, monkeypatch) -> Iterator[engine.Engine]:
    """Each engine. Retries come at once where the work is done here, and on Dask after the usual time."""
    monkeypatch.setattr(engine, "RETRY_S", 0)
    if request.param == "local":
        yield engine.LocalEngine(poll_s=0.01)
    else:
        with dask.open_dask(DaskSettings(address=request.getfixturevalue("dask_address"))) as found:
            yield found


def test_each_item_is_worked_on_once_by_work_that_each_process_opens_once(opened, tmp_path):
    """And there are never more items out than two for each of two workers, however many there are."""
    results: dict[int, int] = {}
    out = most = 0

    def items() -> Iterator[int]:
        nonlocal out, most
        for number in range(100, 160):
            out += 1
            most = max(most, out)
            yield number

    def on_result(number: int, square: int) -> None:
        nonlocal out
        out -= 1
        assert number not in results
        results[number] = square

    opened.run(partial(engine_work.squaring, tmp_path), items(), on_result)
    assert results == {number: number**2 for number in range(100, 160)}
    assert most <= (4 if isinstance(opened, dask.DaskEngine) else 1)
    processes = {path.name.split()[1] for path in tmp_path.glob("opened *")}
    assert 1 <= len(processes) <= 2
    assert {path.name.split()[1] for path in tmp_path.glob("closed *")} == processes
    assert (str(os.getpid()) in processes) == isinstance(opened, engine.LocalEngine)


def test_an_item_that_fails_holds_up_no_other_and_is_raised_at_the_end(opened, tmp_path):
    results, failed = [], []
    with pytest.raises(ValueError, match="cannot square 13"):
        opened.run(
            partial(engine_work.squaring, tmp_path),
            [11, 13, 14, 15],
            lambda number, _: results.append(number),
            on_failure=failed.append,
        )
    assert (sorted(results), failed) == ([11, 14, 15], [13])


def test_without_anybody_to_tell_the_first_failure_ends_the_run(opened, tmp_path):
    results = []
    with pytest.raises(ValueError, match="cannot square 13"):
        opened.run(
            partial(engine_work.squaring, tmp_path), chain([13], range(100, ENDLESS)), lambda *_: results.append(1)
        )
    assert len(results) < ENDLESS // 10


def test_a_mistake_of_the_user_ends_the_run(opened, tmp_path):
    results, failed = [], []
    with pytest.raises(UserError, match="99 is a mistake"):
        opened.run(
            partial(engine_work.squaring, tmp_path),
            chain([99], range(100, ENDLESS)),
            lambda *_: results.append(1),
            on_failure=failed.append,
            retries=2,
        )
    assert (len(results) < ENDLESS // 10, failed) == (True, [])


def test_work_at_which_workers_die_is_one_line_with_the_cure(tmp_path):
    failed = []
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        dask.open_dask(DaskSettings(workers=1)) as found,
        pytest.raises(KilledWorker) as raised,
    ):
        found.run(partial(engine_work.squaring, tmp_path), [0], lambda *_: None, on_failure=failed.append)
    assert failed == [0]
    words = mistake_in_words(raised.value)
    assert "dask.workers" in words
    assert "\n" not in words


def test_what_may_have_passed_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "RETRY_S", 0)
    results = []
    engine.LocalEngine().run(
        partial(engine_work.squaring, tmp_path), [7], lambda *pair: results.append(pair), retries=1
    )
    assert results == [(7, 49)]


def test_progress_is_told_and_items_may_come_later(opened, tmp_path):
    told, results = [], []

    def items() -> Iterator[int | None]:
        yield 20
        while not results:
            yield None
        yield 21

    opened.run(
        partial(engine_work.squaring, tmp_path),
        items(),
        lambda number, _: results.append(number),
        on_progress=lambda *all_of_it: told.append(all_of_it),
    )
    assert results == [20, 21]
    assert told == [(20, 1, 0), (21, 1, 1)]


def test_the_cluster_of_a_run_gives_each_worker_its_cores_and_gpu_before_libraries_count_them(monkeypatch):
    """The steps of a run share one cluster."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core cannot be shared out")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    config = load_config(flags={"runner": "dask"})  # one worker per GPU
    seen: list[tuple[list[int], str, list[str]]] = []
    engines = set()
    with choice.one_engine():
        for _ in range(2):  # the second step takes no second share
            with choice.open_engine(config) as found:
                engines.add(found)
                found.run(engine_work.looking_around, range(6), lambda _, seen_there: seen.append(seen_there))
    assert len(engines) == 1
    shares = {(tuple(cores), gpu) for cores, gpu, _ in seen}
    assert len(shares) == 2
    assert {gpu for _, gpu in shares} == {"3", "5"}
    assert sorted(core for cores, _ in shares for core in cores) == sorted(os.sched_getaffinity(0))
    assert all(counted == [] for *_, counted in seen)


def test_the_cluster_of_a_run_does_not_depend_on_the_configuration_of_dask_for_others(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    preload = {"distributed.worker.preload": ["nowhere"], "distributed.scheduler.preload": ["nowhere"]}
    results = []
    odd = dask.config.set({**preload, "distributed.worker.multiprocessing-method": "fork"})
    with odd, dask.open_dask(DaskSettings(workers=1)) as opened:
        opened.run(engine_work.looking_around, [0], lambda *pair: results.append(pair))
    assert len(results) == 1


def test_workers_show_what_matters_and_no_greetings_of_libraries_while_the_run_lasts(monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    greetings = [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795723675.978170    1403 port.cc:153] oneDNN custom operations are on.",
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    ]
    crash = "Fatal Python error: Segmentation fault"
    shown: list[str] = []

    def crash_is_shown() -> bool:
        shown.append(capfd.readouterr().err)
        return crash in "".join(shown)

    def on_result(line: str, _: object) -> None:
        if line == crash:
            wait_for("what the worker printed last", crash_is_shown, limit_s=120)

    with dask.open_dask(DaskSettings(workers=1)) as opened:
        opened.run(engine_work.printing, [*greetings, crash], on_result)
    assert not [line for line in greetings if line in "".join(shown)]


def test_a_heartbeat_that_the_scheduler_no_longer_answers_is_not_shown(monkeypatch, capfd):
    """At the end of a run, Dask logs it with a traceback now and then."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))

    async def beat_in_vain(dask_worker) -> None:
        async def unanswered(**_: object) -> None:
            raise OSError("the scheduler has ended")

        dask_worker.scheduler.heartbeat_worker = unanswered
        await dask_worker.heartbeat()
        logging.getLogger("distributed.worker").error(ValueError("of another kind"))  # as Dask logs some exceptions

    with dask.open_dask(DaskSettings(workers=1)) as opened:
        opened.run(engine_work.printing, ["begins"], lambda *_: opened._client.run(beat_in_vain))
    shown = capfd.readouterr().err
    assert "begins" in shown
    assert "of another kind" in shown
    assert "heartbeat" not in shown


def test_a_cluster_that_does_not_start_is_one_line():
    with (
        dask.config.set({"temporary-directory": "/proc/nowhere"}),
        pytest.raises(UserError, match=r"^cannot start a Dask cluster here: .*'/proc/nowhere'$"),
        dask.open_dask(DaskSettings(workers=1)),
    ):
        pass


def test_a_configuration_that_dask_cannot_read_is_one_line(traitline, tmp_path):
    (tmp_path / "odd.yaml").write_text("distributed: [\n")
    draw_store(tmp_path, people=1, clips_each=1)
    options = ("--store", tmp_path / "store", "--set", "runner=dask")
    done = traitline("store", "verify", *options, afresh=True, DASK_CONFIG=str(tmp_path / "odd.yaml"))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert done.stderr.startswith("traitline: Dask cannot read its configuration: ")


def test_a_class_of_cluster_is_started_by_its_name(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    options = {"n_workers": 0, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    settings = DaskSettings(cluster="distributed.LocalCluster", cluster_options=options, workers=1)
    results = []
    with dask.open_dask(settings) as opened:
        opened.run(engine_work.looking_around, [0], lambda *pair: results.append(pair))
    assert len(results) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cluster": "nowhere.Cluster"}, r"cannot start nowhere.Cluster \(dask.cluster\): No module named 'nowhere'"),
        ({"cluster": "distributed.Nothing"}, "cannot start distributed.Nothing"),
        ({"cluster": "builtins.open", "cluster_options": {"n_workers": 1}}, "cannot start builtins.open"),
        ({"address": "tcp://127.0.0.1:9"}, r"no Dask scheduler answers at tcp://127.0.0.1:9 \(dask.address\)"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_line(settings, words, monkeypatch):
    monkeypatch.setattr(dask, "CONNECT_S", 1)
    with pytest.raises(UserError, match=words) as error, dask.open_dask(DaskSettings(**settings)):
        pass
    assert "\n" not in str(error.value)


def test_a_cluster_without_the_resources_is_one_line_that_says_how_to_start_it(dask_address):
    settings = DaskSettings(address=dask_address, resources={"GPU": 2, "FPGA": 1})
    with pytest.raises(UserError, match='dask worker --resources "GPU=2 FPGA=1"'), dask.open_dask(settings):
        pass

"""`traitline serve` ends with all its runs, those that do not listen too, and tells the server of it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest
import yaml
from prefect_machine import BIN, below, wait_for

from flows.session import stopping

RUN = """
import os, signal
from prefect import flow
from flows.pipeline.steps import step

@step("part")
def part():
    os.kill(os.getpid(), signal.SIGSTOP)

@flow
def whole():
    part()
"""


@pytest.mark.parametrize(
    ("times", "status", "words"),
    [
        (1, 0, "traitline: killing 1 run that did not end within 14 s"),
        pytest.param(2, 130, "traitline: stopped by force; ", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_does_not_end_is_killed_and_its_states_and_schedules_end(
    prefect_server, tmp_path, times, status, words
):
    (tmp_path / "deaf.py").write_text(RUN)
    schedules = [{"cron": "0 2 * * *", "timezone": "UTC"}, {"interval": 86400, "active": False}]
    entry = {"name": "deaf", "entrypoint": "deaf.whole", "schedules": schedules, "work_pool": {"name": "deaf"}}
    file = tmp_path / "deployments.yaml"
    file.write_text(yaml.safe_dump({"deployments": [entry]}))
    environment = {**prefect_server.environment, "PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONPATH": str(tmp_path)}
    with (tmp_path / "serve.log").open("w") as log:
        command = [BIN / "traitline", "serve", "--file", file]
        serve = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    processes: list[psutil.Process] = []
    try:
        wait_for("its message", lambda: "Serving" in (tmp_path / "serve.log").read_text(), limit_s=120)
        assert active(prefect_server) == [False, True]
        run = prefect_server.start_run("deaf")
        wait_for("a run that is suspended", lambda: suspended(serve), limit_s=120)
        step = of_run(prefect_server, run)
        assert [prefect_server.state(one)["type"] for one in (run, step)] == ["RUNNING", "RUNNING"]
        processes = below(serve.pid)
        press_ctrl_c(serve, times, lambda: (tmp_path / "serve.log").read_text())
        assert serve.wait(300) == status
        assert [prefect_server.state(one)["type"] for one in (run, step)] == ["CRASHED", "CRASHED"]
        assert active(prefect_server) == [False, False]
        assert {found["state_type"] for found in prefect_server.runs("deaf")} == {"CRASHED"}  # none is planned any more
        _, alive = psutil.wait_procs(processes, timeout=60)
        assert not alive
    finally:
        for process in [*processes, serve]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    said = [line for line in (tmp_path / "serve.log").read_text().splitlines() if line.startswith("traitline: ")]
    assert said[0] == "traitline: stopping; whole shards are kept"
    assert said[1].startswith(words)
    assert len(said) == 2


def active(prefect_server) -> list[bool]:
    return sorted(schedule["active"] for schedule in prefect_server.deployments()["deaf"]["schedules"])


def suspended(serve: subprocess.Popen[bytes]) -> bool:
    return any(process.status() == psutil.STATUS_STOPPED for process in below(serve.pid))


def of_run(prefect_server, run: str) -> str:
    """The step of a run, which is a run below it."""
    (step,) = prefect_server.ask("/flow_runs/filter", flow_runs={"parent_flow_run_id": {"any_": [run]}})
    return step["id"]


def press_ctrl_c(serve: subprocess.Popen[bytes], times: int, said: Callable[[], str]) -> None:
    serve.send_signal(signal.SIGINT)
    wait_for("its answer", lambda: "stopping" in said(), limit_s=60)
    if times > 1:
        time.sleep(2 * stopping.REPEATED_S)
        serve.send_signal(signal.SIGINT)

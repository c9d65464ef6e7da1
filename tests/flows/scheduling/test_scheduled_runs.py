"""Deployments on a Prefect server with PostgreSQL, and workers, all as processes of their own: a schedule that fires by
itself, to the CSV, and `traitline serve`, which ends with all its runs. Skipped where PostgreSQL is not installed."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from drawn_store import draw_store
from prefect_machine import BIN, ROOT, below, scheduled_every, wait_for

from flows.archive.families import families_of
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.pipeline.train import train
from flows.scheduling.deployments import CRASH_AUTOMATION
from flows.scheduling.gpu_slots import GPU_LIMIT
from flows.session import stopping
from fusion.traits import TRAITS

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


@dataclass(frozen=True)
class Archive:
    """Folder with drawn features, and their "videos", whose bytes are their names."""

    folder: Path
    names: list[str]
    labels: Path

    @property
    def settings(self) -> Path:
        return self.folder / "run.yaml"


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Archive:
    folder = tmp_path_factory.mktemp("archive")
    labels, _ = draw_store(folder, people=10, clips_each=2)
    flags = {"store.path": folder / "store", "weights": "random"}
    config = load_config(flags=flags)
    names = [video.video_id for video in known_videos(config.store.path, families_of(config))]
    for name in names:
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    words = {"videos": str(folder / "videos"), "store": {"path": str(folder / "store")}, "weights": "random"}
    archive = Archive(folder, names, labels)
    archive.settings.write_text(yaml.safe_dump({**words, "train": {"epochs": 1}}))
    return archive


def said_of(prefect_server) -> dict:
    """What makes a deployment what it is, without its history; no steps to pull code are two ways to say the same."""
    left_out = ("id", "created", "updated", "flow_id", "version_id", "version_info", "status", "last_polled", "branch")
    found = {}
    for name, deployment in prefect_server.deployments().items():
        kept = {key: value for key, value in deployment.items() if key not in left_out}
        kept["pull_steps"] = kept["pull_steps"] or []
        kept["schedules"] = [(row["schedule"], row["active"]) for row in kept["schedules"]]
        kept["global_concurrency_limit"] = kept["global_concurrency_limit"]["limit"]
        found[name] = kept
    return found


@pytest.mark.slow  # three deployments; the next test has one
def test_deploy_can_be_done_again_and_says_what_prefect_itself_reads_in_the_file(prefect_server):
    """Prefect's own reading of prefect.yaml is the truth that the command's is compared with."""
    prefect_server.traitline("deploy", "--gpu-slots", "2")
    first = said_of(prefect_server)
    prefect_server.traitline("deploy", "--gpu-slots", "3")
    assert said_of(prefect_server) == first
    assert prefect_server.ask(f"/v2/concurrency_limits/{GPU_LIMIT}")["limit"] == 3
    assert [found["name"] for found in prefect_server.ask("/automations/filter", offset=0)].count(CRASH_AUTOMATION) == 1
    assert prefect_server.ask("/work_pools/traitline")["type"] == "process"
    command = [BIN / "prefect", "--no-prompt", "deploy", "--all"]
    subprocess.run(command, cwd=ROOT, env=prefect_server.environment, check=True, capture_output=True)
    assert said_of(prefect_server) == first


@pytest.fixture(scope="module")
def scheduled(prefect_server, archive, tmp_path_factory) -> Iterator[Path]:
    """A deployment whose schedule fires soon, and its worker; the CSV that the run writes."""
    folder = tmp_path_factory.mktemp("scheduled")
    out = folder / "traits.csv"
    config = load_config(archive.settings, flags={"labels": archive.labels})
    train.fn(config, known_videos(config.store.path, families_of(config)))
    settings = yaml.safe_load(archive.settings.read_text())
    served_at = {"base_url": "https://reports.example/nightly/"}
    archive.settings.write_text(yaml.safe_dump({**settings, "out": str(out), "report": served_at}))
    # Late enough to be deployed, or the test waits for the second, and seldom enough that no run starts beside another.
    deployments = scheduled_every(60, folder / "prefect.yaml", first_after_s=20)
    prefect_server.traitline("deploy", "--config", archive.settings, "--file", deployments)
    with prefect_server.worker(folder / "worker"):
        yield out


@pytest.mark.parametrize(
    ("times", "status", "words"),
    [
        (1, 0, "traitline: killing 1 run that did not end within 14 s"),
        pytest.param(2, 130, "traitline: stopped by force; ", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_does_not_end_is_killed_and_its_states_and_schedules_end(
    prefect_server, scheduled, tmp_path, times, status, words
):
    """The schedule of the next test fires while this one waits."""
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


def test_a_schedule_fires_by_itself_and_ends_in_a_csv(prefect_server, archive, scheduled):
    # Nobody asks for a run: the schedule does.
    run = wait_for("a run that is over", lambda: prefect_server.runs_over("nightly"), limit_s=180)[0]
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["auto_scheduled"]
    # The server has planned those of the other schedule, too.
    planned = [found["expected_start_time"] for found in prefect_server.runs("nightly")]
    assert any(time.endswith(":00:00Z") for time in planned if time > run["expected_start_time"])
    with scheduled.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video_id"] for row in rows] == archive.names
    assert {(row["status"], row["weights"]) for row in rows} == {("scored", "random")}

    artifacts = prefect_server.ask("/artifacts/filter", offset=0)
    of_run = {found["key"]: found["data"] for found in artifacts if found["flow_run_id"] == run["id"]}
    assert f"| with a score | `{len(archive.names)}` |" in of_run["summary"]
    pages = [page.name for page in (archive.folder / "store" / "reports").iterdir()]  # a slow machine has run it again
    assert of_run["report"] in [f"[{page}](https://reports.example/nightly/{page})" for page in pages]
    assert {row["trait"] for row in json.loads(of_run["quality"])} == {"mean", *TRAITS}
    assert re.fullmatch(r"nightly 20\d\d-\d\d-\d\d \d\d:\d\d", run["name"])
    names = {found["name"] for found in prefect_server.ask("/flow_runs/filter", offset=0)}
    assert any(re.fullmatch(r"score 20\d\d-\d\d-\d\d \d\d:\d\d", name) for name in names)
    assert any(found["key"] == "score-progress" and found["data"] == 100 for found in artifacts)


def assert_logs_of_a_mistake(prefect_server, run: str) -> None:
    """No traceback of the engine in the Logs of a run and its step, and the mistake there once, without options."""
    step = {"parent_task_run_id": {"is_null_": False}, "name": {"like_": "train "}}
    runs = [run, *(found["id"] for found in prefect_server.ask("/flow_runs/filter", flow_runs=step))]
    assert len(runs) == 2

    def logged() -> list[dict]:
        return prefect_server.ask("/logs/filter", logs={"flow_run_id": {"any_": runs}})

    def ends() -> Counter:
        return Counter(line["flow_run_id"] for line in logged() if "Failed(" in line["message"])

    wait_for("the ends of both in the logs", lambda: len(ends()) == 2, limit_s=30)
    assert set(ends().values()) == {1}
    for line in logged():
        assert "Traceback" not in line["message"]
        assert "--" not in line["message"]


@pytest.mark.slow  # it starts runs as the worker of the test before does
def test_serve_runs_deployments_in_one_command_until_it_is_told_to_stop(prefect_server, archive, tmp_path):
    command = [BIN / "traitline", "serve", "--config", archive.settings]
    environment = {**prefect_server.environment, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with (tmp_path / "serve.log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for("its message", lambda: "Serving" in (tmp_path / "serve.log").read_text(), limit_s=60)
            # A person's mistake that is noticed in the midst of a step, which is a run below the run.
            labels = tmp_path / "labels.csv"
            labels.write_text(f"video_id,{','.join(TRAITS)}\nnobody.mp4,1,1,1,1,1\n")
            run = prefect_server.start_run("train", settings=str(archive.settings), labels=str(labels))
            state = prefect_server.ended(run)
            assert state["type"] == "FAILED"
            assert "\n" not in state["message"]
            assert_logs_of_a_mistake(prefect_server, run)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    said = (tmp_path / "serve.log").read_text()
    assert "Traceback" not in said
    assert "traitline: stopping; whole shards are kept" in said.splitlines()

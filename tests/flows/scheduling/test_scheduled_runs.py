"""Deployments on a Prefect server with PostgreSQL, and workers, all as processes of their own: a schedule that fires by
itself, to the CSV. Skipped where PostgreSQL is not installed."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from drawn_store import draw_store
from prefect_machine import BIN, ROOT, scheduled_every, wait_for

from flows.archive.families import families_of
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.pipeline.train import train
from flows.scheduling.deployments import CRASH_AUTOMATION
from flows.scheduling.gpu_slots import GPU_LIMIT
from fusion.traits import TRAITS


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


def test_a_schedule_fires_by_itself_and_ends_in_a_csv(prefect_server, archive, tmp_path):
    out = tmp_path / "traits.csv"
    config = load_config(archive.settings, flags={"labels": archive.labels})
    train.fn(config, known_videos(config.store.path, families_of(config)))
    settings = yaml.safe_load(archive.settings.read_text())
    served_at = {"base_url": "https://reports.example/nightly/"}
    archive.settings.write_text(yaml.safe_dump({**settings, "out": str(out), "report": served_at}))
    # Late enough to be deployed, or the test waits for the second, and seldom enough that no run starts beside another.
    deployments = scheduled_every(60, tmp_path / "prefect.yaml", first_after_s=20)
    prefect_server.traitline("deploy", "--config", archive.settings, "--file", deployments)
    with prefect_server.worker(tmp_path / "worker"):
        # Nobody asks for a run: the schedule does.
        run = wait_for("a run that is over", lambda: prefect_server.runs_over("nightly"), limit_s=180)[0]
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["auto_scheduled"]
    # The server has planned those of the other schedule, too.
    planned = [found["expected_start_time"] for found in prefect_server.runs("nightly")]
    assert any(time.endswith(":00:00Z") for time in planned if time > run["expected_start_time"])
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video_id"] for row in rows] == archive.names
    assert {(row["status"], row["weights"]) for row in rows} == {("scored", "random")}

    artifacts = prefect_server.ask("/artifacts/filter", offset=0)
    of_run = {found["key"]: found["data"] for found in artifacts if found["flow_run_id"] == run["id"]}
    assert f"| with a score | `{len(archive.names)}` |" in of_run["summary"]
    (page,) = (archive.folder / "store" / "reports").iterdir()
    assert of_run["report"] == f"[{page.name}](https://reports.example/nightly/{page.name})"
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

"""Deployments on a Prefect server with PostgreSQL, and workers, all as processes of their own: a schedule that fires by
itself, to the CSV. Skipped where PostgreSQL is not installed."""

from __future__ import annotations

import csv
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from drawn_store import draw_store
from prefect_machine import BIN, PrefectServer, postgresql, wait_for

from flows.config import load_config
from flows.deployments import WATCH
from flows.families import families_of
from flows.gpu_slots import GPU_LIMIT
from flows.manifest import known_videos

ROOT = Path(__file__).parents[2]


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
    names = [video.video_id for video in known_videos(config, families_of(config))]
    for name in names:
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    words = {"videos": str(folder / "videos"), "store": {"path": str(folder / "store")}, "weights": "random"}
    archive = Archive(folder, names, labels)
    archive.settings.write_text(yaml.safe_dump({**words, "train": {"epochs": 1}}))
    return archive


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[PrefectServer]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("no PostgreSQL server (Debian: apt install postgresql)")
    with postgresql(programs[-1]) as database:
        server = PrefectServer(tmp_path_factory.mktemp("server"), database)
        server.start()
        yield server
        server.stop()


def nightly_every(seconds: int, folder: Path) -> Path:
    """A copy of the deployments in which `nightly` runs every so many seconds."""
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    nightly = next(entry for entry in tree["deployments"] if entry["name"] == "nightly")
    nightly["schedules"] = [{"interval": seconds, "timezone": "Europe/Berlin"}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(tree))
    return folder / "prefect.yaml"


def said_of(server: PrefectServer) -> dict:
    """What makes a deployment what it is, without its history; no steps to pull code are two ways to say the same."""
    left_out = ("id", "created", "updated", "flow_id", "version_id", "version_info", "status", "last_polled", "branch")
    found = {}
    for name, deployment in server.deployments().items():
        kept = {key: value for key, value in deployment.items() if key not in left_out}
        kept["pull_steps"] = kept["pull_steps"] or []
        kept["schedules"] = [(row["schedule"], row["active"]) for row in kept["schedules"]]
        kept["global_concurrency_limit"] = kept["global_concurrency_limit"]["limit"]
        found[name] = kept
    return found


def test_deploy_can_be_done_again_and_says_what_prefect_itself_reads_in_the_file(server):
    """Prefect's own reading of prefect.yaml is the truth that the command's is compared with."""
    server.traitline("deploy", "--gpu-slots", "2")
    first = said_of(server)
    server.traitline("deploy", "--gpu-slots", "3")
    assert said_of(server) == first
    assert server.ask(f"/v2/concurrency_limits/{GPU_LIMIT}")["limit"] == 3
    assert [found["name"] for found in server.ask("/automations/filter", offset=0)].count(WATCH) == 1
    assert server.ask("/work_pools/traitline")["type"] == "process"
    command = [BIN / "prefect", "--no-prompt", "deploy", "--all"]
    subprocess.run(command, cwd=ROOT, env=server.environment, check=True, capture_output=True)
    assert said_of(server) == first


def test_a_schedule_fires_by_itself_and_ends_in_a_csv(server, archive, tmp_path):
    out = tmp_path / "traits.csv"
    server.traitline("train", "--config", archive.settings, "--labels", archive.labels)
    server.traitline("deploy", "--config", archive.settings, "--file", nightly_every(5, tmp_path))
    with server.worker(tmp_path / "worker"):
        # Nobody asks for a run: the schedule does.
        done = wait_for(
            "a run that is over",
            lambda: [run for run in server.runs("nightly") if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED")],
            limit_s=120,
        )
        server.traitline("deploy", "--config", archive.settings)  # ends the schedule of 5 s
        assert done[0]["state_type"] == "COMPLETED", done[0]["state"]["message"]
        assert done[0]["auto_scheduled"]
        run = server.start_run("export", out=str(out), settings=str(archive.settings))
        assert server.ended(run)["type"] == "COMPLETED"
    with (archive.folder / "store" / "exports" / "traits-1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video_id"] for row in rows] == archive.names
    assert {(row["status"], row["weights"]) for row in rows} == {("scored", "random")}
    assert out.read_text().count("\n") == len(archive.names) + 1

    artifacts = server.ask("/artifacts/filter", offset=0)
    of_run = {found["key"]: found for found in artifacts if found["flow_run_id"] == done[0]["id"]}
    assert {"summary", "report"} <= set(of_run)
    assert "| with a score | `20` |" in of_run["summary"]["data"]
    (report,) = (archive.folder / "store" / "reports").glob("traits-1-*.html")
    assert report.as_uri() in of_run["report"]["data"]
    assert any(found["key"] == "score-progress" and found["data"] == 100 for found in artifacts)


def test_a_run_that_cannot_work_fails_with_one_line_as_its_state(server, archive, tmp_path):
    server.traitline("deploy", "--config", archive.settings)
    with server.worker(tmp_path / "worker", CUDA_VISIBLE_DEVICES="-1"):
        state = server.ended(server.start_run("rescore", model="better/7"))
    assert state["type"] == "FAILED"
    assert state["message"].startswith("there is no model better/7")
    assert "Traceback" not in (tmp_path / "worker" / "worker.log").read_text()


def test_serve_runs_deployments_without_a_pool_until_it_is_told_to_stop(server, archive, tmp_path):
    command = [BIN / "traitline", "serve", "--config", archive.settings]
    environment = {**server.environment, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with (tmp_path / "serve.log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for("its message", lambda: "Serving" in (tmp_path / "serve.log").read_text(), limit_s=60)
            state = server.ended(server.start_run("export", settings=str(archive.settings)))
            assert state["type"] == "COMPLETED", state["message"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    said = (tmp_path / "serve.log").read_text()
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "traitline: stopped; whole shards are kept"

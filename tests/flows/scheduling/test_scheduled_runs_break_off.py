"""Scheduled runs on real clips whose process, worker or server ends in the midst: nothing is lost or doubled, and the
next run, which comes by itself, does the rest."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prefect_machine import below, scheduled_every, wait_for

from flows.archive.families import families_of
from flows.config.load import load_config
from flows.scheduling.gpu_slots import GPU_LIMIT
from storage import FeatureStore
from storage.shards.formats import format_of
from storage.shards.header import read_header

pytestmark = pytest.mark.slow

EVERY_S = 15


@dataclass(frozen=True)
class Nightly:
    """An archive of eight clips, of which three are in the store, with a model, and a schedule that fires soon."""

    server: object
    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def shards(self) -> int:
        return len(list((self.store / "features").glob("dynamic/*/shard-*")))

    def videos_in_shards(self) -> list[Counter[str]]:
        """For each family, in how many shards each video is."""
        store, families = FeatureStore(self.store), families_of(load_config(self.folder / "run.yaml"))
        return [
            Counter(
                video.video_id
                for shard in store.shards(family)
                for video in read_header(shard, format_of(shard)).videos
            )
            for family in (families.faces, families.static, families.dynamic)
        ]

    def running(self) -> str:
        """The run that is at work, once it has committed something."""
        before = self.shards()
        wait_for("a shard", lambda: self.shards() > before, limit_s=180, poll_s=0.05)
        (run,) = [run for run in self.server.runs("nightly") if run["state_type"] == "RUNNING"]
        assert run["auto_scheduled"]
        return run["id"]

    def completed_after(self, run: str) -> None:
        """Wait for a run that begins later, completes, and leaves each clip in the store once, and in the CSV."""

        def done() -> list[dict]:
            runs = self.server.runs("nightly")
            start = next(found["start_time"] for found in runs if found["id"] == run)
            return [found for found in runs if found["state_type"] == "COMPLETED" and found["start_time"] > start]

        wait_for("the run that does the rest", done, limit_s=300)
        for family in self.videos_in_shards():
            assert len(family) == 8
            assert set(family.values()) == {1}
        lines = (self.store / "exports" / "traits-1.csv").read_text().splitlines()
        assert len(lines) == 9
        assert all(",scored," in line for line in lines[1:])


@pytest.fixture(scope="module")
def begun(prefect_server, rendered, tmp_path_factory) -> Path:
    """A store with three of the clips and a model that was trained on them."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "clips").mkdir()
    for name in ("still.mp4", "nod.mp4", "sway.mp4"):
        shutil.copy(rendered.videos / name, folder / "clips")
    settings = ["--weights", "random", "--set", "train.epochs=1", "--labels", rendered.labels]
    prefect_server.traitline("run", "--videos", folder / "clips", "--store", folder / "store", *settings)
    return folder / "store"


@pytest.fixture
def nightly(prefect_server, begun, rendered, tmp_path) -> Nightly:
    shutil.copytree(begun, tmp_path / "store")
    words = {"videos": str(rendered.videos), "store": {"path": str(tmp_path / "store")}, "weights": "random"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**words, "extract": {"shard_size": 1}}))
    deployments = scheduled_every(EVERY_S, tmp_path / "prefect.yaml")
    prefect_server.traitline("deploy", "--config", tmp_path / "run.yaml", "--file", deployments)
    return Nightly(prefect_server, tmp_path)


def engines(worker) -> list:
    """The processes of a worker's flow runs."""
    return [process for process in below(worker.pid) if "prefect.engine" in process.cmdline()]


def test_a_run_whose_process_is_killed_is_over_at_once_and_the_next_does_the_rest(nightly, tmp_path):
    with nightly.server.worker(tmp_path / "worker") as worker:
        run = nightly.running()
        for process in engines(worker):
            process.kill()
        killed_at = time.monotonic()
        assert nightly.server.ended(run)["type"] == "CRASHED"
        assert time.monotonic() - killed_at < 20
        nightly.completed_after(run)


def test_a_run_whose_worker_is_killed_too_does_not_stay_running_and_gives_its_slots_back(nightly, tmp_path):
    """Its deployment runs once at a time and there is one slot for a GPU, so that the next run needs both."""
    pinned = {"CUDA_VISIBLE_DEVICES": "0"}  # no GPU need be there
    with nightly.server.worker(tmp_path / "first", **pinned) as worker:
        run = nightly.running()
        limit = nightly.server.ask(f"/v2/concurrency_limits/{GPU_LIMIT}")
        assert (limit["limit"], limit["active_slots"]) == (1, 1)
        for process in [*below(worker.pid), worker]:
            process.kill()
    killed_at = time.monotonic()
    with nightly.server.worker(tmp_path / "second", **pinned):
        assert nightly.server.state(run)["type"] == "RUNNING"
        state = nightly.server.ended(run)
        assert state["type"] == "CRASHED"
        assert state["message"].startswith("No heartbeat")
        print(f"a run whose worker was killed is crashed after {time.monotonic() - killed_at:.0f} s")
        assert time.monotonic() - killed_at < 150
        nightly.completed_after(run)


def test_a_server_that_is_gone_for_a_while_costs_nothing(nightly, tmp_path):
    with nightly.server.worker(tmp_path / "worker"):
        run = nightly.running()
        nightly.server.stop()
        before = nightly.shards()
        wait_for("a shard that is committed without a server", lambda: nightly.shards() > before, limit_s=60)
        nightly.server.start()
        state = nightly.server.ended(run)
        print(f"the run that lost its server for a while ended as {state['type']}")
        nightly.completed_after(run)


def test_a_worker_that_is_told_to_stop_does_so_within_half_a_minute_and_leaves_no_shard_half_done(nightly, tmp_path):
    with nightly.server.worker(tmp_path / "first") as worker:
        run = nightly.running()
        processes = below(worker.pid)
        worker.send_signal(signal.SIGTERM)
        told_at = time.monotonic()
        assert worker.wait(30) == 0
        print(f"a worker with a run at hand stopped {time.monotonic() - told_at:.1f} s after SIGTERM")
        assert not any(process.is_running() for process in processes)
    assert nightly.server.ended(run, limit_s=30)["type"] == "CRASHED"
    faces, static, dynamic = nightly.videos_in_shards()
    assert faces == static == dynamic
    assert set(faces.values()) == {1}
    assert not [
        path for path in (nightly.store / "features").rglob("*") if path.name.startswith(".") or ".tmp" in path.name
    ]
    with nightly.server.worker(tmp_path / "second"):
        nightly.completed_after(run)

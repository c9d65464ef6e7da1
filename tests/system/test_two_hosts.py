"""Two hosts with addresses of their own work on one store on object storage, and the line to one of them is cut."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import write_certificates
from hosts import Host, open_hosts
from prefect_machine import PrefectServer, wait_for
from s3_server import open_s3_server

from flows.archive.families import Families, families_of
from flows.config.load import load_config
from flows.extraction.worker import leases_for
from storage import FeatureStore
from storage.files.paths import store_path

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
COPIES = 5
STORE = "s3://traitline/shared/store"


@dataclass(frozen=True)
class Laboratory:
    """Two hosts, and on this one object storage and Prefect's server."""

    folder: Path
    hosts: list[Host]
    prefect: PrefectServer
    environment: dict[str, str]
    address: str

    def start(self, host: Host, *command: object) -> subprocess.Popen[bytes]:
        """Start a command on a host."""
        home = {"PREFECT_HOME": str(self.folder / host.name)}
        return host.start(command, self.log(host), {**self.environment, **home})

    def log(self, host: Host) -> Path:
        """What the commands of a host have said."""
        return self.folder / f"{host.name}.log"


@pytest.fixture
def laboratory(tmp_path, prepared_prefect_home, monkeypatch) -> Iterator[Laboratory]:
    with ExitStack() as opened:
        try:
            address, hosts = opened.enter_context(open_hosts(2))
        except PermissionError as error:
            pytest.skip(f"hosts cannot be made here: {error}")
        storage = opened.enter_context(open_s3_server(address))
        for name, value in storage.items():
            monkeypatch.setenv(name, value)
        shutil.copytree(prepared_prefect_home, tmp_path / "home")
        prefect = PrefectServer(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'home' / 'prefect.db'}", address)
        prefect.start()
        opened.callback(prefect.stop)
        yield Laboratory(tmp_path, hosts, prefect, {**prefect.environment, **storage}, address)


@pytest.fixture(scope="module")
def clips(short_clips, tmp_path_factory) -> Path:
    """Copies of the demo clips, under other names."""
    folder = tmp_path_factory.mktemp("clips")
    for clip in short_clips.videos.iterdir():
        for copy in range(COPIES):
            shutil.copy(clip, folder / f"{copy} {clip.name}")
    return folder


@pytest.fixture
def settings(clips, small_networks) -> list[object]:
    given = [*small_networks, "weights=random", "extract.shard_size=2"]
    return ["--videos", clips, "--store", STORE, *(part for setting in given for part in ("--set", setting))]


@pytest.fixture
def families(small_networks) -> Families:
    return families_of(load_config(flags={"weights": "random"}, assignments=small_networks))


def rows(families: Families) -> dict[str, Counter[str]]:
    """How often the manifest names each video, in each family."""
    table = FeatureStore(STORE).manifest.table
    return {
        family.name: Counter(
            name for part in table.scan({"family": [family.key]}, ["video_id"]) for name in part["video_id"].to_pylist()
        )
        for family in (families.faces, families.static, families.dynamic)
    }


def assert_each_video_is_there_once(families: Families, clips: Path) -> None:
    """And copies of one clip have the same features, whichever host extracted them."""
    names = [clip.name for clip in clips.iterdir()]
    for family, counts in rows(families).items():
        assert counts == Counter(names), family
    for family in (families.static, families.dynamic):
        sums: dict[str, set[int]] = {}
        for video in FeatureStore(STORE).read(family):
            sums.setdefault(video.video_id.partition(" ")[2], set()).add(video.checksum())
        assert len(sums) == len(names) // COPIES
        assert {len(found) for found in sums.values()} == {1}


def at_work(families: Families) -> set[str]:
    """Names of the hosts that have claimed videos."""
    return {claim.process.host for claim in leases_for(store_path(STORE), families).others()}


def wait_until_both_work(laboratory: Laboratory, families: Families, *processes: subprocess.Popen[bytes]) -> int:
    """Wait until the store has some features, both hosts have worked, and the far one does; returns how many videos."""
    near, far = (host.name for host in laboratory.hosts)
    have_worked: set[str] = set()

    def there() -> int:
        assert [process.poll() for process in processes] == [None] * len(processes)
        done, now = rows(families)["dynamic"].total(), at_work(families)
        have_worked.update(now)
        return done if done >= 4 and have_worked == {near, far} and far in now else 0

    return wait_for("both hosts at work", there, limit_s=300)


def test_one_of_two_runs_loses_its_line_and_all_videos_are_extracted_once(laboratory, clips, settings, families):
    near, far = laboratory.hosts
    command = [BIN / "traitline", "extract", *settings]
    first, second = (laboratory.start(host, *command) for host in laboratory.hosts)
    done = wait_until_both_work(laboratory, families, first, second)
    far.cut()
    assert first.wait(900) == 0, laboratory.log(near).read_text()
    assert_each_video_is_there_once(families, clips)
    report = laboratory.log(near).read_text()
    print(f"\ncut when {done} of {len(list(clips.iterdir()))} videos were there; then {report.splitlines()[-1]}")
    assert second.wait(1200) == 1, laboratory.log(far).read_text()
    assert laboratory.log(far).read_text().splitlines()[-1].startswith("traitline: ")
    far.mend()
    assert laboratory.start(far, *command).wait(300) == 0, laboratory.log(far).read_text()
    assert "nothing to decode" in laboratory.log(far).read_text()
    assert_each_video_is_there_once(families, clips)


def test_one_of_two_hosts_of_a_dask_cluster_loses_its_line_and_all_videos_are_extracted_once(
    laboratory, clips, settings, families
):
    near, far = laboratory.hosts
    write_certificates(laboratory.folder, "dask")
    files = {"ca_file": "dask.pem", "cert": "dask.pem", "key": "dask.key"}
    files = {name: laboratory.folder / file for name, file in files.items()}
    tls = [part for name, file in files.items() for part in (f"--tls-{name.replace('_', '-')}", file)]
    scheduler = f"tls://{near.address}:8786"
    running = [laboratory.start(near, BIN / "dask", "scheduler", "--host", near.address, *tls)]
    for host in laboratory.hosts:
        scratch = ["--local-directory", laboratory.folder / f"{host.name}-dask"]
        worker = ["worker", scheduler, "--host", host.address, "--nthreads", 1, "--name", host.name, *scratch, *tls]
        running.append(laboratory.start(host, BIN / "dask", *worker))
    try:
        log = laboratory.log(near)
        wait_for("two workers", lambda: log.read_text().count("Register worker") == 2, limit_s=300)
        dask = {
            "runner": "dask",
            "dask.address": scheduler,
            **{f"dask.tls_{name}": file for name, file in files.items()},
        }
        given = [part for name, value in dask.items() for part in ("--set", f"{name}={value}")]
        run = laboratory.start(near, BIN / "traitline", "extract", *settings, *given)
        running.append(run)
        done = wait_until_both_work(laboratory, families, *running)
        far.cut()
        assert run.wait(1500) == 0, log.read_text()
        assert_each_video_is_there_once(families, clips)
        print(f"\ncut when {done} of {len(list(clips.iterdir()))} videos were there")
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()

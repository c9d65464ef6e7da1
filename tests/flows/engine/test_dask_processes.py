"""Schedulers and workers that are started elsewhere: other programs are named in one line, and lost ones, too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import engine_work
import pytest
from distributed import Client, Scheduler
from prefect_machine import wait_for

import flows
from flows.config.settings import DaskSettings
from flows.engine import dask
from flows.engine.worker import running_program
from flows.session.console import PACKAGES
from flows.session.errors import UserError

Start = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]
ABSENT = "runs another version of Traitline, or none, but this command"
OTHER_DASK = rf"runs .* with Dask 2020\.1\.0, but this command {re.escape(running_program())};"
OLDER = rf"runs Traitline 0.0.9 \(code [0-9a-f]{{8}}\) on Python .*, but this command {re.escape(running_program())};"


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Start:
    """Starts a part of Dask, such as a worker, whose Traitline is "current", "older", "edited" or "absent".

    That of "other dask" is current.
    """
    folder = tmp_path_factory.mktemp("programs")
    ours = Path(flows.__file__).parents[1]
    for program in ("older", "edited"):
        for package in PACKAGES:
            shutil.copytree(ours / package, folder / program / package, ignore=shutil.ignore_patterns("__pycache__"))
    first = folder / "older" / "flows" / "__init__.py"
    first.write_text(f"{first.read_text()}__version__ = '0.0.9'\n")
    (folder / "edited" / "flows" / "added.py").touch()
    (folder / "current").mkdir()
    metadata = folder / "other dask" / "dask-2020.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: dask\nVersion: 2020.1.0\n")
    (folder / "absent").mkdir()
    (folder / "absent" / "flows.py").touch()  # hides the package

    @contextmanager
    def start(part: str, *arguments: str, program: str) -> Iterator[subprocess.Popen[bytes]]:
        paths = (folder / program, Path(engine_work.__file__).parent)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        command = [sys.executable, "-m", f"distributed.cli.dask_{part}", *arguments]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    return start


@pytest.fixture
def scheduler(dask_address) -> Iterator[Client]:
    """A client of a scheduler that two workers with the current program are connected to, and only these at the end."""
    with Client(dask_address, set_as_default=False) as client:
        yield client
        client.wait_for_workers(2)
        wait_for("the end of the other workers", lambda: count_workers(client) == 2, limit_s=60)


def count_workers(client: Client) -> int:
    def count(dask_scheduler: Scheduler) -> int:
        return len(dask_scheduler.workers)

    return client.run_on_scheduler(count)


def test_a_worker_as_dask_starts_it_has_the_program(start, scheduler):
    """It has a nanny, and a folder for its data on its path, in which Dask makes one that is called "storage"."""
    with start("worker", scheduler.scheduler.address, "--nthreads", "1", "--no-dashboard", program="current"):
        scheduler.wait_for_workers(3, timeout=120)
        connect(scheduler.scheduler.address)


def add_worker(start: Start, scheduler: Client, program: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--name", program)
    return start("worker", scheduler.scheduler.address, *options, program=program)


@pytest.mark.parametrize(
    ("program", "runs"),
    [
        pytest.param("older", OLDER, marks=pytest.mark.slow),  # as the one that joins later
        ("edited", OLDER.replace("0.0.9", flows.__version__)),
        ("other dask", OTHER_DASK),
        ("absent", ABSENT),
    ],
)
@pytest.mark.filterwarnings("error::distributed.versions.VersionMismatchWarning")
def test_a_worker_with_another_program(start, scheduler, program, runs):
    with add_worker(start, scheduler, program):
        scheduler.wait_for_workers(3, timeout=120)
        with pytest.raises(UserError, match=rf"^the worker tcp://\S+ of the Dask cluster {runs}") as raised:
            connect(scheduler.scheduler.address)
    assert str(raised.value).endswith("; install the same there and restart it")


@contextmanager
def started_scheduler(start: Start, folder: Path, program: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A scheduler without workers, and its address."""
    file = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    with start("scheduler", *options, program=program) as process:
        wait_for("the scheduler", file.exists, limit_s=120)
        with Client(scheduler_file=str(file), set_as_default=False, timeout=60) as client:
            address = client.scheduler.address
        yield process, address


@pytest.mark.parametrize(
    ("program", "runs"), [("older", OLDER), pytest.param("absent", ABSENT, marks=pytest.mark.slow)]
)
def test_a_scheduler_with_another_program(start, tmp_path, program, runs):
    with (
        started_scheduler(start, tmp_path, program) as (_, address),
        pytest.raises(UserError, match=rf"^the scheduler {address} of the Dask cluster {runs}"),
    ):
        connect(address)


def test_a_scheduler_that_is_killed_is_one_line_and_no_fault_of_the_items_at_work(start, tmp_path):
    results, failed = [], []
    with (
        started_scheduler(start, tmp_path, "current") as (process, address),
        start("worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard", program="current"),
        dask.open_dask(DaskSettings(address=address)) as opened,
    ):

        def on_result(number: int, _: object) -> None:
            results.append(number)
            process.kill()

        with pytest.raises(UserError, match=r"^the connection to Dask's scheduler is lost; run the command again$"):
            opened.run(engine_work.looking_around, range(1000), on_result, on_failure=failed.append)
    assert len(results) < 10
    assert failed == []


def test_a_worker_with_another_program_that_joins_later_ends_the_run(start, scheduler, tmp_path):
    with ExitStack() as joined, dask.open_dask(DaskSettings(address=scheduler.scheduler.address)) as opened:

        def items() -> Iterator[int]:
            joined.enter_context(add_worker(start, scheduler, "older"))
            while True:
                yield 20

        with pytest.raises(UserError, match=rf"^the worker tcp://\S+ of the Dask cluster {OLDER}"):
            opened.run(partial(engine_work.squaring, tmp_path), items(), lambda *_: None)


def connect(address: str) -> None:
    with dask.open_dask(DaskSettings(address=address)):
        pass

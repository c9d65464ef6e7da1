"""One Ctrl-C on `traitline serve` pauses the schedules, even if its server is slow, and before a worker is at work."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prefect_machine import BIN, below, wait_for

from flows.scheduling import worker


@pytest.fixture
def home(prepared_prefect_home, tmp_path) -> Path:
    return shutil.copytree(prepared_prefect_home, tmp_path / "home")


@contextmanager
def served(home: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `traitline serve` with a server of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "COLUMNS": "200"}
    with log.open("wb") as output:
        process = subprocess.Popen([BIN / "traitline", "serve"], env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        for found in [*below(process.pid), process] if process.poll() is None else []:
            found.kill()
        process.wait()


def schedules(home: Path) -> list[int]:
    """Whether each schedule in the database is active."""
    with sqlite3.connect(home / "prefect.db") as database:
        return [active for (active,) in database.execute("select active from deployment_schedule")]


def appears(words: str, log: Path, process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    return lambda: words in log.read_text() or process.poll() is not None


def server_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    (server,) = [found for found in below(process.pid) if "flows.session.server" in found.cmdline()]
    return server


def test_a_server_that_answers_late_still_learns_that_the_schedules_are_paused(home, tmp_path):
    log = tmp_path / "serve.log"
    with served(home, log) as process:
        wait_for("deployments", appears("Serving", log, process), limit_s=180)
        assert schedules(home) == [1]
        server = server_of(process)
        server.suspend()
        process.send_signal(signal.SIGINT)
        wait_for("the end to begin", appears("stopping", log, process), limit_s=60)
        time.sleep(worker.ANSWER_LIMIT_S + 1)  # the limit where nothing else takes time
        server.resume()
        assert process.wait(60) == 0, log.read_text()
    assert schedules(home) == [0]
    assert "was not told" not in log.read_text()


def test_a_schedule_that_has_just_become_active_is_paused(home, tmp_path):
    log = tmp_path / "serve.log"
    with served(home, log) as process:
        wait_for("a schedule", lambda: schedules(home) or process.poll() is not None, limit_s=180, poll_s=0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130), log.read_text()
    assert schedules(home) == [0]
    assert "Traceback" not in log.read_text()

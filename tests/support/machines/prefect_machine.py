"""PostgreSQL, Prefect's server on it and a worker, each a process of its own, as on the machines of a laboratory."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import yaml

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[3]
PASSWORD = "traitline:of the tests"
OVER = ("COMPLETED", "FAILED", "CRASHED")


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(what: str, there: Callable[[], Any], *, limit_s: float, poll_s: float = 0.25) -> Any:
    """What `there` returns as soon as that is true; AssertionError after the limit."""
    give_up_at = time.monotonic() + limit_s
    while time.monotonic() < give_up_at:
        if found := there():
            return found
        time.sleep(poll_s)
    raise AssertionError(f"waited {limit_s:g} s for {what}")


@contextmanager
def postgresql(programs: Path) -> Iterator[str]:
    """A new PostgreSQL server, by the programs of a folder; yields the address by which Prefect finds it."""
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to be root
    folder = Path(tempfile.mkdtemp(prefix="traitline-postgresql-"))
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
    as_user = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    data, port = folder / "data", free_port()
    try:
        init = [programs / "initdb", "-D", data, "-U", "prefect", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        subprocess.run(init, check=True, **as_user)
        listen = ["-h", "127.0.0.1", "-p", str(port), "-k", folder]
        server = subprocess.Popen([programs / "postgres", "-D", data, *listen], **as_user)
        try:
            wait_for("PostgreSQL", lambda: _accepts(port), limit_s=180, poll_s=0.1)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(180)
    finally:
        shutil.rmtree(folder)


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def scheduled_every(seconds: int, copy: Path, *, deployment: str = "nightly", first_after_s: float = 0.0) -> Path:
    """A copy of the deployments of which one runs every so many seconds, and first after so many from now.

    It also runs each day twelve hours from now.
    """
    first = datetime.now(UTC) + timedelta(seconds=first_after_s)
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    scheduled = next(entry for entry in tree["deployments"] if entry["name"] == deployment)
    often = {"interval": seconds, "anchor_date": first.isoformat(), "timezone": "Europe/Berlin"}
    scheduled["schedules"] = [often, {"cron": f"0 {(first.hour + 12) % 24} * * *", "timezone": "UTC"}]
    copy.write_text(yaml.safe_dump(tree))
    return copy


class PrefectServer:
    """The server of the compose file on a database; it can be stopped and started again at the same address.

    Args:
        folder: for its home and its log.
        database: address.
        host: address at which it listens.
    """

    def __init__(self, folder: Path, database: str, host: str = "127.0.0.1") -> None:
        self.host, self.port = host, free_port()
        self.api = f"http://{host}:{self.port}/api"
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": self.api,
            "PREFECT_API_AUTH_STRING": PASSWORD,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "COLUMNS": "200",
        }
        self._of_server = {
            **self.environment,
            "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": self.api.removesuffix("/api"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
            "TRAITLINE_SERVER_HOSTS": f"{host},127.0.0.1,localhost",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }
        self._log = (folder / "server.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        app = ["--factory", "flows.session.server:create_app"]
        command = [BIN / "uvicorn", "--log-level", "error", *app, "--host", self.host, "--port", str(self.port)]
        self._process = subprocess.Popen(command, env=self._of_server, stdout=self._log, stderr=self._log)
        wait_for("Prefect's server", self._healthy, limit_s=180)

    def stop(self) -> None:
        """Stop it as a service manager does."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _healthy(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.api}/health", timeout=5) as answer:
            return answer.status == 200
        return False

    def traitline(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command against this server."""
        command = [str(BIN / "traitline"), *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0 or not check, done.stderr
        return done

    def ask(self, path: str, **body: Any) -> Any:
        """What its API answers to a question."""
        headers = {"Authorization": f"Basic {base64.b64encode(PASSWORD.encode()).decode()}"}
        if body:
            client = str(uuid.uuid4())
            token = self._answer(f"/csrf-token?client={client}", None, headers)["token"]
            headers |= {"Content-Type": "application/json", "Prefect-Csrf-Client": client, "Prefect-Csrf-Token": token}
        return self._answer(path, json.dumps(body).encode() if body else None, headers)

    def _answer(self, path: str, data: bytes | None, headers: dict[str, str]) -> Any:
        question = urllib.request.Request(f"{self.api}{path}", data, headers)
        with urllib.request.urlopen(question, timeout=30) as answer:
            return json.load(answer)

    def deployments(self) -> dict[str, Any]:
        """All deployments by name."""
        return {found["name"]: found for found in self.ask("/deployments/filter", offset=0)}

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """Have a deployment run now; its flow run's id."""
        found = self.deployments()[deployment]
        run = self.ask(
            f"/deployments/{found['id']}/create_flow_run", parameters=parameters, state={"type": "SCHEDULED"}
        )
        return run["id"]

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Flow runs of a deployment, in the order of their times."""
        found = self.deployments()[deployment]["id"]
        chosen = {"id": {"any_": [found]}}
        return self.ask("/flow_runs/filter", deployments=chosen, sort="EXPECTED_START_TIME_ASC")

    def runs_over(self, deployment: str) -> list[dict[str, Any]]:
        """Those that have run to their end, whatever that was."""
        return [run for run in self.runs(deployment) if run["state_type"] in OVER]

    def state(self, run: str) -> dict[str, Any]:
        """The state of a flow run."""
        return self.ask(f"/flow_runs/{run}")["state"]

    def ended(self, run: str, *, limit_s: float = 240) -> dict[str, Any]:
        """The last state of a flow run, once it has one."""
        wait_for(f"the end of {run}", lambda: self.state(run)["type"] in OVER, limit_s=limit_s)
        return self.state(run)

    @contextmanager
    def worker(self, folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of the pool `traitline`, which asks for work every second."""
        command = [BIN / "traitline", "worker"]
        environment = {**self.environment, "PREFECT_WORKER_QUERY_SECONDS": "1", **variables}
        folder.mkdir(exist_ok=True)
        with (folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(60)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()


def below(process: int) -> list[psutil.Process]:
    """All processes that one has started, and those that they have."""
    return psutil.Process(process).children(recursive=True)

"""Other accounts of this machine, and web pages of other origins, get nothing from the server that `serve` starts."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from prefect_machine import BIN, wait_for
from stranger import as_stranger, needs_root, public_folder, readable_by_stranger

ATTACKS = """
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=180)
for method, path, headers in json.loads(sys.argv[2]):
    connection.request(method, path, json.dumps({}), {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    answer.read()
    print(answer.status)
"""
LISTEN = """
with connect(sys.argv[1], subprotocols=["prefect"]) as line:
    line.send(json.dumps({"type": "auth", "token": "traitline:guessed"}))
    try:
        print(line.recv(timeout=180))
    except ConnectionClosed as error:
        print(error.rcvd.code, error.rcvd.reason)
"""
TOKEN = {"Prefect-Csrf-Token": "guessed", "Prefect-Csrf-Client": "stranger"}


@dataclass(frozen=True)
class Served:
    """What a running `traitline serve` says, and its process."""

    process: subprocess.Popen[bytes]
    home: Path
    started_s: float
    said: str

    @property
    def port(self) -> int:
        return int(re.search(r"http://127\.0\.0\.1:(\d+)", self.said)[1])

    @property
    def access(self) -> dict[str, str]:
        (file,) = self.home.glob("server-*.env")
        return dict(line.split("=", 1) for line in file.read_text().splitlines())

    def ask(self, method: str, path: str, body: dict | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of an answer to the one who has the password."""
        password = base64.b64encode(self.access["PREFECT_API_AUTH_STRING"].encode()).decode()
        question = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Basic {password}", **headers},
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(question, timeout=180) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read().decode()


@pytest.fixture(scope="module")
def served(prepared_prefect_home) -> Iterator[Served]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with public_folder() as folder:
        home, log = shutil.copytree(prepared_prefect_home, folder / "home"), folder / "serve.log"
        home.chmod(0o755)  # what is inside must hold by itself
        started_s = time.time()
        environment |= {"PREFECT_HOME": str(home), "COLUMNS": "200"}
        with log.open("wb") as output:
            process = subprocess.Popen([BIN / "traitline", "serve"], env=environment, stdout=output, stderr=output)
        try:
            wait_for("deployments", lambda: "Serving" in log.read_text() or process.poll(), limit_s=180)
            assert process.poll() is None, log.read_text()
            yield Served(process, home, started_s, log.read_text())
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert not list(home.glob("server-*.env"))
        finally:
            process.kill()


def test_the_one_who_has_the_password_changes_deployments(served):
    """Otherwise the attacks below could fail for any reason."""
    status, _, text = served.ask("POST", "/api/deployments/filter", {}, **csrf(served))
    assert status == 200
    deployment = next(found for found in json.loads(text) if found["name"] == "export")
    change = {"description": "changed"}
    assert served.ask("PATCH", f"/api/deployments/{deployment['id']}", change, **csrf(served))[0] == 204


def csrf(served: Served) -> dict[str, str]:
    client = str(uuid.uuid4())
    status, _, text = served.ask("GET", f"/api/csrf-token?client={client}")
    assert status == 200
    return {"Prefect-Csrf-Token": json.loads(text)["token"], "Prefect-Csrf-Client": client}


@needs_root
def test_another_account_reads_and_changes_nothing_on_the_server(served):
    deployment = "/api/deployments/00000000-0000-0000-0000-000000000000"
    wrong = {"Authorization": "Basic " + base64.b64encode(b"traitline:guessed").decode()}
    attacks = [
        ("GET", "/api/csrf-token?client=stranger", {}),
        ("GET", "/api/csrf-token?client=stranger", wrong),
        ("GET", "/api/admin/settings", {}),
        ("GET", deployment, wrong),
        ("PATCH", deployment, {}),
        ("PATCH", deployment, TOKEN),
        # The token that one's own client got is not one's password.
        ("PATCH", deployment, csrf(served)),
        ("POST", "/api/deployments/filter", {**csrf(served), **wrong}),
        ("POST", "/api/work_pools/", csrf(served)),
        ("GET", "/api/health", {"Host": "attacker.example"}),
    ]
    found = [int(status) for status in as_stranger(ATTACKS, served.port, json.dumps(attacks)).split()]
    assert found == [401, 401, 401, 401, 403, 403, 401, 401, 401, 400]


@needs_root
def test_another_account_gets_no_events_or_logs(served):
    imports = "from websockets.sync.client import connect\nfrom websockets.exceptions import ConnectionClosed"
    for path in ("events/out", "events/in", "logs/out"):
        said = as_stranger(LISTEN, f"ws://127.0.0.1:{served.port}/api/{path}", imports=imports)
        assert said.startswith("1008 ")


@needs_root
def test_another_account_finds_the_password_nowhere(served):
    password = served.access["PREFECT_API_AUTH_STRING"]
    processes = [served.process.pid, *(process.pid for process in psutil.Process(served.process.pid).children(True))]
    assert len(processes) >= 3  # the command, its server and its worker
    code = "print(*(pathlib.Path(path).read_bytes() for path in sys.argv[1:]))"
    assert "prefect" in (said := as_stranger(code, *(f"/proc/{pid}/cmdline" for pid in processes)))
    assert password not in said
    assert password not in served.said
    new = [path for path in served.home.rglob("*") if path.is_file() and path.stat().st_mtime > served.started_s]
    kept = [path for path in new if not path.name.startswith("prefect.db")]  # it was there before
    assert any(path.suffix == ".env" for path in kept)
    assert readable_by_stranger([*kept, *(Path(f"/proc/{pid}/environ") for pid in processes)]) == []


def test_the_server_listens_on_this_machine_alone(served):
    server = next(process for process in psutil.Process(served.process.pid).children() if listens(process))
    assert {(line.laddr.ip, line.laddr.port) for line in listens(server)} == {("127.0.0.1", served.port)}
    (file,) = served.home.glob("server-*.env")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def listens(process: psutil.Process) -> list:
    return [line for line in process.net_connections("inet") if line.status == psutil.CONN_LISTEN]


def test_a_page_of_another_origin_may_neither_ask_nor_read(served):
    for origin in ("http://attacker.example", "null", "http://localhost:3000"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
        asked["Access-Control-Request-Headers"] = "authorization,content-type"
        _, headers, _ = served.ask("OPTIONS", "/api/deployments/filter", **asked)
        assert "access-control-allow-origin" not in {name.lower() for name in headers}
        _, headers, _ = served.ask("GET", "/api/health", Origin=origin)
        assert "access-control-allow-origin" not in {name.lower() for name in headers}


@pytest.mark.parametrize("path", ["/api/health", "/", "/ui-settings"])
def test_a_name_that_was_bent_to_this_machine_is_refused(served, path):
    """DNS rebinding: the page's own host resolves to 127.0.0.1, so that its requests are of the same origin."""
    assert served.ask("GET", path)[0] == 200
    assert served.ask("GET", path, Host=f"attacker.example:{served.port}")[0] == 400


def test_the_pages_ask_for_the_password(served):
    settings = json.loads(served.ask("GET", "/ui-settings")[2])
    assert (settings["auth"], settings["csrf_enabled"]) == ("BASIC", True)

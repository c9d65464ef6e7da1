"""Prefect's server: this machine without proxies, others through them, and one line about one of no use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from flows.session.environment import PROXY_VARIABLES, bypass_proxies
from flows.session.errors import UserError
from flows.session.server import check_server

DEAD = "http://127.0.0.1:9"
PROXIES = [
    {"http_proxy": DEAD},
    {"HTTP_PROXY": DEAD, "HTTPS_PROXY": DEAD, "NO_PROXY": "example.org"},
    {"ALL_PROXY": DEAD, "NO_PROXY": ""},
    {"http_proxy": DEAD, "no_proxy": "", "NO_PROXY": "localhost,127.0.0.1"},
    {"http_proxy": "127.0.0.1:9"},
    {"ALL_PROXY": "socks5://127.0.0.1:9", "all_proxy": "socks://127.0.0.1:9"},
]


class Answering(ThreadingHTTPServer):
    """Answers every request alike, and remembers what was asked."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.asked = status, body.encode(), []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Callable[..., Answering]]:
    servers: list[Answering] = []

    def start(status: int = 200, body: object = "3.8.8") -> Answering:
        servers.append(Answering(status, body if isinstance(body, str) and body[:1] == "<" else json.dumps(body)))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(autouse=True)
def _connect_again_at_once(monkeypatch) -> None:
    """Prefect's client tries four times, and waits ever longer in between."""
    monkeypatch.setattr("httpcore._sync.connection.RETRIES_BACKOFF_FACTOR", 0.0)


@pytest.fixture
def proxies(monkeypatch) -> Callable[[dict[str, str]], None]:
    """Set these variables, and no others about proxies, as the environment of the test."""

    def set_only(variables: dict[str, str]) -> None:
        # What the code under test changes is put back because it was changed through monkeypatch first.
        for name in (*PROXY_VARIABLES, "no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_only


@pytest.mark.parametrize("variables", PROXIES)
def test_a_server_on_this_machine_is_asked_without_any_proxy(variables, proxies, answering):
    proxies(variables)
    server = answering()
    with temporary_settings({PREFECT_API_URL: f"{server.address}/api"}):
        check_server()
        with get_client(sync_client=True) as client:
            assert client.api_version() == "3.8.8"
    assert server.asked == ["/api/admin/version"] * 2
    assert get_proxy(parse_uri(f"ws{server.address.removeprefix('http')}/api/events/in")) is None


def test_a_server_elsewhere_is_asked_through_the_users_proxy(proxies, answering):
    proxy = answering()
    proxies({"http_proxy": proxy.address, "NO_PROXY": "example.org"})
    bypass_proxies()
    with temporary_settings({PREFECT_API_URL: "http://prefect.test:4200/api"}):
        check_server()
    assert proxy.asked == ["http://prefect.test:4200/api/admin/version"]
    assert get_proxy(parse_uri("ws://prefect.test:4200/api/events/in")) == proxy.address


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"http_proxy": DEAD}, "localhost,127.0.0.1,::1"),
        ({"http_proxy": DEAD, "NO_PROXY": "a, .b"}, "a,.b,localhost,127.0.0.1,::1"),
        ({"http_proxy": DEAD, "NO_PROXY": "a", "no_proxy": "b"}, "b,localhost,127.0.0.1,::1"),
        ({"http_proxy": DEAD, "NO_PROXY": "127.0.0.1"}, "127.0.0.1,localhost,::1"),
        ({"http_proxy": DEAD, "NO_PROXY": "*"}, "*"),
    ],
)
def test_the_users_exceptions_stay_and_this_machine_joins_them(variables, expected, proxies):
    proxies(variables)
    bypass_proxies()
    bypass_proxies()  # child processes do it again
    assert (os.environ.get("no_proxy"), os.environ.get("NO_PROXY")) == (expected, expected)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"detail": "Unauthorized"}, "PREFECT_API_AUTH_STRING"),
        (403, "", "PREFECT_API_AUTH_STRING"),
        (404, "", "whose address ends in /api"),
        (200, "<html>", "whose address ends in /api"),
        (200, {"version": 1}, "whose address ends in /api"),
        (200, "2.19.0", "version 2.19.0"),
        (502, "", "502"),
    ],
)
def test_a_server_of_no_use_is_one_line_with_its_address_and_the_cure(status, body, words, proxies, answering):
    proxies({})
    api = f"{answering(status, body).address}/api"
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(UserError, match=words) as raised:
        check_server()
    assert api in str(raised.value)
    assert "prefect server start" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("api", "words"),
    [
        (f"{DEAD}/api", "refused"),
        ("http://user:secret@nobody.invalid:4200/api", "cannot be reached"),
        ("nobody", "is not an address"),
        ("ftp://nobody/api", "is not an address"),
        ("http://:::/api", "port"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_line(api, words, proxies):
    proxies({})
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(UserError, match=words) as raised:
        check_server()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("proxy", [DEAD, "socks5://127.0.0.1:9", "socks://127.0.0.1:9"])
def test_a_proxy_that_leads_nowhere_is_named(proxy, proxies):
    proxies({"all_proxy": proxy})
    with temporary_settings({PREFECT_API_URL: "http://prefect.test/api"}), pytest.raises(UserError, match=proxy):
        check_server()


def check_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert line.startswith("traitline: ")
    for word in words:
        assert word in line


def settings_by(origin: str, folder) -> tuple[dict[str, str], str]:
    """Name a dead server in one of the places that Prefect reads; variables, and words that name the place."""
    home = folder / "home"
    home.mkdir()
    if origin == "environment":
        return {"PREFECT_API_URL": f"{DEAD}/api", "PREFECT_HOME": str(home)}, "in the environment"
    if origin == "profile":
        text = f'active = "lab"\n[profiles.lab]\nPREFECT_API_URL = "{DEAD}/api"\n'
        (home / "profiles.toml").write_text(text)
        return {"PREFECT_HOME": str(home)}, f"in Prefect's profile lab, {home / 'profiles.toml'}"
    text = f"PREFECT_API_URL={DEAD}/api\n" if origin == ".env" else f'[api]\nurl = "{DEAD}/api"\n'
    (folder / origin).write_text(text)
    return {"PREFECT_HOME": str(home)}, f"in {folder / origin}"


# The next test names the server in a profile.
@pytest.mark.parametrize("origin", ["environment", ".env", pytest.param("prefect.toml", marks=pytest.mark.slow)])
def test_what_is_said_of_a_dead_server_names_the_place_where_it_was_named(origin, tmp_path):
    variables, words = settings_by(origin, tmp_path)
    code = "from flows.session.server import check_server; check_server()"
    options = {"cwd": tmp_path, "env": {**os.environ, **variables}, "capture_output": True, "text": True}
    said = subprocess.run([sys.executable, "-c", code], **options).stderr.splitlines()[-1]
    assert f"at {DEAD}/api (PREFECT_API_URL {words})" in said


@pytest.mark.parametrize("command", [["export", "--store", "."], ["worker"]])
def test_a_dead_server_is_one_line_and_an_exit_status(command, tmp_path, traitline):
    variables, words = settings_by("profile", tmp_path)
    (tmp_path / "store").mkdir()
    result = traitline(*command, folder=tmp_path / "store", **variables)
    check_one_line(result, f"{DEAD}/api", words, "prefect server start")


def test_settings_that_prefect_cannot_read_are_one_line(tmp_path, traitline):
    (tmp_path / "store").mkdir()
    result = traitline("export", "--store", tmp_path / "store", PREFECT_LOGGING_LEVEL="loud")
    check_one_line(result, "level", "'LOUD'", "PREFECT_")


@pytest.mark.parametrize("fault", ["home", "database"])
def test_a_server_of_our_own_that_does_not_start_says_why(fault, tmp_path, monkeypatch, proxies):
    proxies({"http_proxy": DEAD})
    code = "from flows.session.server import prefect_api\nwith prefect_api(): pass"
    home = "/proc/prefect" if fault == "home" else str(tmp_path)
    (tmp_path / "prefect.db").write_bytes(b"no database " * 1000)
    environment = {**os.environ, "PREFECT_HOME": home}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    reason = "unable to open database file" if fault == "home" else "file is not a database"
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("flows.session.errors.UserError: Prefect's server does not start")
    assert reason in last
    assert home in last


def test_processes_that_a_command_starts_import_nothing_from_the_present_folder(tmp_path, prepared_prefect_home):
    """It may hold a package `flows` of the user's own, or anything of another account's."""
    home = shutil.copytree(prepared_prefect_home, tmp_path / "home")
    (tmp_path / "here" / "flows").mkdir(parents=True)
    for trap in ("uvicorn.py", "socket.py", "flows/__init__.py"):
        (tmp_path / "here" / trap).write_text("raise SystemExit('trapped')")
    code = (
        "from flows.session.environment import settle_environment\nsettle_environment()\n"
        "from flows.session.server import prefect_api\nwith prefect_api(): pass\n"
        "import multiprocessing\nchild = multiprocessing.get_context('spawn').Process(target=print, args=['started'])\n"
        "child.start()\nchild.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path / "here",
        env={**os.environ, "PREFECT_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr

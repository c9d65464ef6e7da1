"""Prefect's server: the one that the user's settings name, or a temporary one for a command whose tasks need one.

Prefect's own temporary server runs in the terminal's process group: Ctrl-C stops it together with the command, which
then waits minutes for an answer, and a killed command leaves it running. The server started here has its own session,
and ends when the pipe from its parent closes, however the parent ends.

Whoever can change a deployment on a Prefect server can run commands as the user of its workers. The server started here
therefore listens on the loopback interface only, asks for a random password, and refuses requests that a web page of
another origin can send.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import urlsplit

from flows.session import console
from flows.session.environment import (
    LOOPBACK,
    PROXY_VARIABLES,
    bypass_proxies,
    is_loopback,
    settle_environment,
)
from flows.session.errors import UserError
from storage.files.commit import commit_file

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger(__name__)

# On a new Prefect home the server first creates its database, which takes about 20 s on two cores.
START_LIMIT_S = 180.0
STOP_LIMIT_S = 10.0
# Prefect's client tries four times to connect.
CONNECT_LIMIT_S = 2.5
ANSWER_LIMIT_S = 10.0

HOSTS_VARIABLE = "TRAITLINE_SERVER_HOSTS"


def named_server() -> str | None:
    """Return the address of the Prefect API that the user's settings name, or None.

    Raises:
        UserError: Prefect cannot read its settings.
    """
    return _prefect_settings().PREFECT_API_URL.value() or None


def check_server(*, needed: bool = False) -> None:
    """Check that the Prefect server that the user's settings name answers; they may name none unless it is `needed`.

    Raises:
        UserError: it does not answer, or this version of Prefect cannot use it. The message names the address, its
            origin, and the cure.
    """
    import httpx

    api = named_server()
    if api is None and needed:
        raise UserError(
            "which server? give its address in PREFECT_API_URL, as in http://127.0.0.1:4200/api; `prefect server "
            "start` starts one, and `traitline serve` needs none"
        )
    if api is None:
        return
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    if not api.startswith(("http://", "https://")):
        raise _unusable(api, "is not an address, as in http://127.0.0.1:4200/api")
    _connect_directly(api)
    limits = httpx.Timeout(ANSWER_LIMIT_S, connect=CONNECT_LIMIT_S)
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": limits}, sync_client=True) as client,
        ):
            version, own = client.api_version(), client.client_version()
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise _unusable(
                api, f"refuses access ({status}): set the right PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
            ) from error
        if status >= 500:
            raise _unusable(api, f"fails to answer ({status})") from error
        raise _unusable(api, f"answers {status} and is not a Prefect API, whose address ends in /api") from error
    except httpx.TimeoutException as error:
        raise _unusable(api, f"does not answer{_through_proxy(api)}") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ImportError) as error:
        raise _unusable(api, f"cannot be reached{_through_proxy(api)} ({_first_line(error)})") from error
    except ValueError as error:  # an answer that is not JSON, a proxy's address that httpx cannot use
        if _through_proxy(api) and "proxy" in str(error).lower():
            raise _unusable(api, f"cannot be reached{_through_proxy(api)} ({_first_line(error)})") from error
        raise _unusable(api, "is not a Prefect API, whose address ends in /api") from error
    if not isinstance(version, str) or not re.match(r"\d+\.", version):
        raise _unusable(api, "is not a Prefect API, whose address ends in /api")
    if version.split(".")[0] != own.split(".")[0]:
        raise _unusable(api, f"has version {version}, and the client here {own}: their major versions must be equal")


@contextmanager
def prefect_api(*, for_people: bool = False) -> Iterator[str]:
    """Provide a Prefect API while the block runs: the user's, or else a temporary server.

    Args:
        for_people: whether a temporary server serves Prefect's pages. Its password is then in a file in PREFECT_HOME.

    Yields:
        The address of the API.

    Raises:
        UserError: the server does not start.
    """
    settings = _prefect_settings()
    if (known := named_server()) is not None:
        yield known
        return
    with _listen() as listening:
        port = listening.getsockname()[1]
        api = f"http://127.0.0.1:{port}/api"
        _connect_directly(api)
        current = settings.get_current_settings()
        chosen = current.server.api.auth_string
        password = f"traitline:{secrets.token_urlsafe(32)}" if chosen is None else chosen.get_secret_value()
        environment = {**os.environ, **current.to_environment_variables(exclude_unset=True)}
        environment |= {
            # The pages send their requests to this address.
            "PREFECT_UI_API_URL": api,
            "PREFECT_UI_ENABLED": str(int(for_people)),
            # Other accounts can read a process's arguments, but not its environment.
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": api.removesuffix("/api"),
            HOSTS_VARIABLE: ",".join(LOOPBACK),
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.session.server", str(listening.fileno())],
            env=environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[listening.fileno()],
            umask=0o077,
        )
    last_lines: deque[str] = deque(maxlen=200)
    pipe, errors = cast(IO[bytes], server.stdin), cast(IO[bytes], server.stderr)
    threading.Thread(target=_pass_on, args=(errors, last_lines), daemon=True).start()
    try:
        _wait_until_healthy(server, port, last_lines)
        log.info("Prefect server of this command: process %d at %s", server.pid, api)
        client = {
            settings.PREFECT_API_URL: api,
            settings.PREFECT_API_AUTH_STRING: password,
            # Nobody could read messages on a server that ends with the command; the run's log file has them all.
            settings.PREFECT_LOGGING_TO_API_ENABLED: for_people,
        }
        with ExitStack() as opened:
            opened.enter_context(settings.temporary_settings(client))
            if for_people:
                opened.enter_context(_access_file(api, password))
            yield api
    finally:
        pipe.close()
        try:
            server.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def client_variables() -> dict[str, str]:
    """Return environment variables with the address of the present Prefect API and its password, if it has one."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.to_environment_variables(exclude_unset=True)


@contextmanager
def _access_file(api: str, password: str) -> Iterator[None]:
    """Keep a server's address and password in a file that only this user can read, and say where it is."""
    from prefect.settings import PREFECT_HOME

    file = PREFECT_HOME.value() / f"server-{urlsplit(api).port}.env"
    with commit_file(file) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(f"PREFECT_API_URL={api}\nPREFECT_API_AUTH_STRING={password}\n")
    try:
        console.say(f"Prefect's pages: {api.removesuffix('/api')}; they ask for PREFECT_API_AUTH_STRING in {file}")
        yield
    finally:
        file.unlink(missing_ok=True)


def _prefect_settings() -> ModuleType:
    """Return the module `prefect.settings` after Prefect has read its settings."""
    try:
        import_module("prefect.context")  # reads the settings
        from prefect import settings
    except (ValueError, OSError) as error:  # pydantic, TOML and dotenv raise ValueErrors
        raise UserError(
            f"Prefect cannot read its settings ({_why(error)}); check the environment variables PREFECT_..., .env, "
            "prefect.toml, and profiles.toml in PREFECT_HOME"
        ) from error
    return settings


def _why(error: Exception) -> str:
    errors = getattr(error, "errors", None)  # pydantic's
    if errors is None:
        return _first_line(error)
    first = errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}; got {first['input']!r:.100}"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _unusable(api: str, reason: str) -> UserError:
    return UserError(
        f"Prefect's server at {console.masked(api)} (PREFECT_API_URL {_origin()}) {reason}; correct the address, "
        "start a server with `prefect server start`, or remove the setting: only deploy and worker need a server"
    )


def _origin() -> str:
    """Say where PREFECT_API_URL is set, in Prefect's order of precedence."""
    name = "PREFECT_API_URL"
    if name in os.environ:
        return "in the environment"
    folder = Path.cwd()
    if (file := folder / ".env").is_file() and re.search(rf"^\s*(export\s+)?{name}\s*=", file.read_text(), re.M | re.I):
        return f"in {file}"
    for file, section in ((folder / "prefect.toml", ()), (folder / "pyproject.toml", ("tool", "prefect"))):
        if file.is_file():
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
            for part in (*section, "api"):
                tree = tree.get(part, {})
            if "url" in tree:
                return f"in {file}"
    from prefect.context import get_settings_context

    profile = get_settings_context().profile
    return f"in Prefect's profile {profile.name}, {profile.source}"


def _through_proxy(api: str) -> str:
    """Name the proxy of the environment that requests to this address use; empty if they use none."""
    address = urlsplit(api)
    if address.hostname is None or urllib.request.proxy_bypass(address.hostname):
        return ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    return f" through the proxy {console.masked(proxy)}" if proxy else ""


def _connect_directly(api: str) -> None:
    """Bypass proxies if the server is on this machine, and drop those that Prefect's client cannot even parse."""
    import httpx

    host = urlsplit(api).hostname
    if host is None or not is_loopback(host):
        return
    bypass_proxies(host)
    for variable in PROXY_VARIABLES & os.environ.keys():
        address = os.environ[variable]
        try:
            httpx.HTTPTransport(proxy=address if "://" in address else f"http://{address}", verify=False).close()
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            log.info("ignoring %s: %s", variable, error)
            del os.environ[variable]


def _listen() -> socket.socket:
    """Open the server's socket here, so that no other process can take its port before the server starts."""
    try:
        listening = socket.create_server(("127.0.0.1", 0))
        socket.create_connection(listening.getsockname(), CONNECT_LIMIT_S).close()
        return listening
    except OSError as error:
        raise UserError(
            f"cannot connect to 127.0.0.1 ({error}), where Prefect's server listens: bring up the loopback interface, "
            "or name a server in PREFECT_API_URL"
        ) from error


def _pass_on(errors: IO[bytes], last_lines: deque[str]) -> None:
    """Copy the server's output to the standard error, and remember its last lines."""
    for line in errors:
        os.write(2, line)
        last_lines.append(line.decode(errors="replace"))


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, last_lines: deque[str]) -> None:
    give_up_at = time.monotonic() + START_LIMIT_S
    while server.poll() is None and time.monotonic() < give_up_at:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/api/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    errors = re.findall(r"^[\w.]*(?:Error|Exception|NotFound|Denied)\w*: .+$", "".join(list(last_lines)), re.MULTILINE)
    reason = errors[-1] if errors else f"no answer within {START_LIMIT_S:g} s"
    raise UserError(
        f"Prefect's server does not start ({reason}); {_database()}, or name a running server in PREFECT_API_URL"
    )


def _database() -> str:
    """Say where a temporary server keeps its database, and how to choose another place."""
    from prefect.settings import PREFECT_HOME, get_current_settings

    if (address := get_current_settings().server.database.connection_url) is None:
        return f"its database is in {PREFECT_HOME.value()}: name another folder in PREFECT_HOME"
    place = console.masked(address.get_secret_value())
    return f"its database is {place}: name another one in PREFECT_SERVER_DATABASE_CONNECTION_URL"


def create_app() -> ASGIApp:
    """Create Prefect's server as an application that answers only requests for known hosts.

    A web page can have the name of its own host resolve to this machine (DNS rebinding); its requests carry that name.
    TRAITLINE_SERVER_HOSTS lists the known hosts, with commas between; by default those of the loopback interface.
    """
    from prefect.server.api.server import create_app as create_prefect_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    hosts = os.environ.get(HOSTS_VARIABLE, ",".join(LOOPBACK))
    # Around the application, not in it: the server's automations call it directly, for a host of Prefect's own.
    return TrustedHostMiddleware(create_prefect_app(), allowed_hosts=hosts.split(","), www_redirect=False)


def _serve(listening: socket.socket) -> None:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on"))

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    server.run(sockets=[listening])


if __name__ == "__main__":
    settle_environment()
    _serve(socket.socket(fileno=int(sys.argv[1])))

"""Prefect's server: the one that the user's settings name, or one of our own if tasks need one.

Prefect would start its own in the terminal's process group: Ctrl-C would stop it together with the command, which then
waits minutes for an answer, and a command that is killed would leave it running. This one has a session of its own and
ends when the pipe from its parent closes, however the parent ends.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, cast
from urllib.parse import urlsplit

from flows.session.environment import PROXY_VARIABLES, bypass_proxies
from flows.session.errors import UserError

log = logging.getLogger(__name__)

# On a new Prefect home the server makes its database first, which takes about 20 s on two cores.
START_LIMIT_S = 180.0
STOP_LIMIT_S = 10.0
# Prefect's client tries four times to connect.
CONNECT_LIMIT_S = 2.5
ANSWER_LIMIT_S = 10.0


def named_server() -> str | None:
    """Address of the Prefect API that the user's settings name; None if they name none.

    Raises:
        UserError: Prefect cannot read its settings.
    """
    return _prefect_settings().PREFECT_API_URL.value() or None


def check_server() -> None:
    """Make sure that the Prefect server which the user's settings name answers, if they name one.

    Raises:
        UserError: it does not, or is not one that this version of Prefect can talk to. The message gives the address,
            where it comes from, and the cure.
    """
    import httpx

    api = named_server()
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
                api, f"refuses us ({status}): give it the right PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
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
        raise _unusable(api, f"is of version {version}, and the client here of {own}: they must share the first number")


@contextmanager
def prefect_api(*, for_people: bool = False) -> Iterator[str]:
    """Make sure that there is a Prefect API while the block runs: the user's, or else a server of our own.

    Args:
        for_people: whether to serve Prefect's pages; the server of a single command does not.

    Returns:
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
        environment = {**os.environ, **settings.get_current_settings().to_environment_variables(exclude_unset=True)}
        # Its pages ask this address.
        environment |= {"PREFECT_UI_API_URL": api, "PREFECT_UI_ENABLED": str(int(for_people))}
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.session.server", str(listening.fileno())],
            env=environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[listening.fileno()],
        )
    said: deque[str] = deque(maxlen=200)
    pipe, errors = cast(IO[bytes], server.stdin), cast(IO[bytes], server.stderr)
    threading.Thread(target=_pass_on, args=(errors, said), daemon=True).start()
    try:
        _wait_until_healthy(server, port, said)
        log.info("Prefect server of this command: process %d at %s", server.pid, api)
        # The run's log file has all messages; nobody will read them on a server that ends with the command.
        with settings.temporary_settings(
            {settings.PREFECT_API_URL: api, settings.PREFECT_LOGGING_TO_API_ENABLED: for_people}
        ):
            yield api
    finally:
        pipe.close()
        try:
            server.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _prefect_settings() -> ModuleType:
    """The module `prefect.settings`, once Prefect has read them."""
    try:
        import_module("prefect.context")  # reads them
        from prefect import settings
    except (ValueError, OSError) as error:  # all that pydantic, TOML and dotenv raise are ValueErrors
        raise UserError(
            f"Prefect cannot read its settings ({_why(error)}); look at the variables PREFECT_... of the environment, "
            "and at .env, prefect.toml and the profiles.toml in PREFECT_HOME"
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
        f"Prefect's server at {_without_password(api)} (PREFECT_API_URL {_origin()}) {reason}; mend the address, start "
        "a server with `prefect server start`, or take the setting away: no command but deploy and worker needs one"
    )


def _without_password(address: str) -> str:
    return re.sub(r"//[^/@]*@", "//", address)


def _origin() -> str:
    """Where PREFECT_API_URL was set, in Prefect's order of precedence."""
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
    """Which proxy of the environment lies on the way, in words; empty without one."""
    address = urlsplit(api)
    if address.hostname is None or urllib.request.proxy_bypass(address.hostname):
        return ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    return f" through the proxy {_without_password(proxy)}" if proxy else ""


def _connect_directly(api: str) -> None:
    """If the server is on this machine, connect without proxies, even those that Prefect's client cannot use."""
    import httpx

    host = urlsplit(api).hostname
    if host is None or not _is_loopback(host):
        return
    bypass_proxies(host)
    for variable in PROXY_VARIABLES & os.environ.keys():
        address = os.environ[variable]
        try:
            httpx.HTTPTransport(proxy=address if "://" in address else f"http://{address}", verify=False).close()
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            # It would refuse to start for a proxy that it does not need.
            log.info("%s is left aside: %s", variable, error)
            del os.environ[variable]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _listen() -> socket.socket:
    """Open the server's socket, so that no other process can take its port before the server starts."""
    try:
        listening = socket.create_server(("127.0.0.1", 0))
        socket.create_connection(listening.getsockname(), CONNECT_LIMIT_S).close()
        return listening
    except OSError as error:
        raise UserError(
            f"this machine cannot talk to itself ({error}), and Prefect's server is to listen at 127.0.0.1: "
            "bring up its loopback interface, or name a server in PREFECT_API_URL"
        ) from error


def _pass_on(errors: IO[bytes], said: deque[str]) -> None:
    """Copy what the server says to the standard error, and remember the end of it."""
    for line in errors:
        os.write(2, line)
        said.append(line.decode(errors="replace"))


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, said: deque[str]) -> None:
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
    errors = re.findall(r"^[\w.]*(?:Error|Exception|NotFound|Denied)\w*: .+$", "".join(list(said)), re.MULTILINE)
    reason = errors[-1] if errors else f"nothing heard for {START_LIMIT_S:g} s"
    raise UserError(
        f"Prefect's server does not start ({reason}); {_database()}, or a server of your own in PREFECT_API_URL"
    )


def _database() -> str:
    """Where the database of a server of our own is, and how to choose another, in words."""
    from prefect.settings import PREFECT_HOME, get_current_settings

    if (address := get_current_settings().server.database.connection_url) is None:
        return f"its database lies in {PREFECT_HOME.value()}: name another folder in PREFECT_HOME"
    place = _without_password(address.get_secret_value())
    return f"its database is {place}: name another in PREFECT_SERVER_DATABASE_CONNECTION_URL"


def _serve(listening: socket.socket) -> None:
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    )

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    server.run(sockets=[listening])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))

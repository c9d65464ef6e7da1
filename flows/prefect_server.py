"""A Prefect server for the time of one command, where the user has none.

Prefect would start one itself, but in the terminal's process group: Ctrl-C would stop it together with the command,
which then waits minutes for an answer, and a command that is killed would leave it running. This one has a session of
its own and ends when the pipe from its parent closes, however the parent ends.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from flows.errors import UserError

# On a new Prefect home the server makes its database first, which takes about 20 s on two cores.
START_LIMIT_S = 180.0
STOP_LIMIT_S = 10.0


@contextmanager
def prefect_api(*, for_people: bool = False) -> Iterator[str]:
    """Make sure that there is a Prefect API while the block runs; import Prefect's flows inside it.

    Args:
        for_people: whether people look at its pages, which a server for the time of one command has none of.

    Returns:
        The address of the API.

    Raises:
        UserError: the server does not start.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_LOGGING_TO_API_ENABLED,
        get_current_settings,
        temporary_settings,
    )

    if (known := PREFECT_API_URL.value()) is not None:
        yield known
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)}
    # Its pages ask this address.
    environment |= {"PREFECT_UI_API_URL": api, "PREFECT_UI_ENABLED": str(int(for_people))}
    server = subprocess.Popen(
        [sys.executable, "-m", "flows.prefect_server", str(port)],
        env=environment,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _wait_until_healthy(server, port)
        # The run's log file has all messages; nobody will read them on a server that ends with the command.
        with temporary_settings({PREFECT_API_URL: api, PREFECT_LOGGING_TO_API_ENABLED: for_people}):
            yield api
    finally:
        server.stdin.close()
        try:
            server.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_healthy(server: subprocess.Popen, port: int) -> None:
    give_up_at = time.monotonic() + START_LIMIT_S
    while server.poll() is None and time.monotonic() < give_up_at:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=10) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise UserError(
        "Prefect's server does not start; the run's log in STORE/runs says why. A server of your own can be named with "
        "PREFECT_API_URL"
    )


def _serve(port: int) -> None:
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            "prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=port, log_level="error"
        )
    )

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    server.run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))

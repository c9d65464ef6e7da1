"""Prefect's worker as a child process that stops promptly, together with its runs.

On SIGTERM, Prefect's worker takes no new runs but waits for the current ones, possibly for hours; a second SIGTERM
makes it kill them without telling the server. Here the runs get the signal first: they drop the current shard and end
within seconds, and the server learns of it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from uuid import UUID

import psutil

from flows.session import console, stopping

STOP_LIMIT_S = 18.0  # for the runs; the three limits together must stay below `stopping.LIMIT_S`
GRACE_S = 3.0  # then for the worker
ANSWER_LIMIT_S = 3.0  # then for the server


def work_until_stopped(pool: str, kind: str, limit: int, *options: str, environment: Mapping[str, str]) -> int:
    """Run a worker until it ends, or until SIGTERM or Ctrl-C stops it, by force if necessary.

    Args:
        pool, kind: the work pool and its type.
        limit: maximum number of concurrent runs.
        options: further options of `prefect worker start`.
        environment: of the worker and its runs.

    Returns:
        The exit status; 0 if it was stopped.
    """
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind]
    command += ["--limit", str(limit), "--install-policy", "never", *options]
    stopping.listen()
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        console.complain("stopping; whole shards are kept")
        _stop(process)
        return 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    worker = psutil.Process(process.pid)
    processes = worker.children()
    runs = _flow_runs(processes)
    _send(signal.SIGTERM, processes)
    psutil.wait_procs(processes, timeout=STOP_LIMIT_S)
    runs |= _flow_runs(worker.children())  # runs that have not ended, or started in the meantime
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:  # Prefect's worker may hang once its runs are gone
        _send(signal.SIGKILL, worker.children(recursive=True))
        process.kill()
        process.wait()
    _mark_crashed(runs)


def _flow_runs(processes: list[psutil.Process]) -> set[str]:
    """Return the ids of the flow runs that these processes execute."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            if run := process.environ().get("PREFECT__FLOW_RUN_ID"):
                found.add(run)
    return found


def _mark_crashed(runs: set[str]) -> None:
    """Mark these runs as crashed, unless the worker or the runs themselves have reported their ends."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
    from prefect.states import Crashed

    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": ANSWER_LIMIT_S}, sync_client=True) as client,
        ):
            for run in runs:
                state = client.read_flow_run(UUID(run)).state
                if state is None or not state.is_final():
                    client.set_flow_run_state(run, Crashed(message="Its worker was told to stop."), force=True)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        # The automation for missing heartbeats will notice.
        console.say(f"Prefect's server was not told: {console.one_line(str(error))}", style="yellow")


def _send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)

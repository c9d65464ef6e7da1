"""Prefect's worker as a child process that stops promptly, together with its runs.

On SIGTERM, Prefect's worker takes no new runs but waits for the current ones, possibly for hours; a second SIGTERM
makes it kill them without telling the server. Here the runs get the signal first: they drop the current shard and end
within seconds, and the server learns of it. What has not ended by then is killed, and this tells the server instead.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

import psutil

from flows.session import console, stopping

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

# For the runs, then for the worker, then for each answer of the server: together below the 30 s after which container
# engines and schedulers kill.
STOP_LIMIT_S = 14.0
GRACE_S = 3.0
ANSWER_LIMIT_S = 3.0


def work_until_stopped(
    pool: str,
    kind: str,
    limit: int,
    *options: str,
    environment: Mapping[str, str],
    deployments: Collection[str] = (),
) -> int:
    """Run a worker until it ends, or until SIGTERM or Ctrl-C stops it; a second Ctrl-C does so by force.

    Call `stopping.listen(ends_itself=True)` before.

    Args:
        pool, kind: the work pool and its type.
        limit: maximum number of concurrent runs.
        options: further options of `prefect worker start`.
        environment: of the worker and its runs.
        deployments: their schedules are paused when the worker is to stop, so that no run begins meanwhile.

    Returns:
        The exit status; 0 if it was stopped.
    """
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind]
    command += ["--limit", str(limit), "--install-policy", "never", *options]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        console.complain("stopping; whole shards are kept")
        crew = _Crew(process)
        try:
            crew.ask_to_stop()
            pause_schedules(deployments, while_runs_end=True)
            crew.wait()
            status = 0
        except KeyboardInterrupt:
            status = stopping.EXIT_INTERRUPTED
        crew.kill()
        _mark_crashed(crew.flow_runs)
    if status:
        console.complain("stopped by force; finished work is kept, and nothing is half done")
    return status


class _Crew:
    """A worker, the processes below it, and the flow runs that they execute, including those that have ended since."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._worker = process, psutil.Process(process.pid)
        self._below: set[psutil.Process] = set()
        self.flow_runs: set[str] = set()

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the runs."""
        self._look()
        self._asked, self._kill_at = self._worker.children(), time.monotonic() + STOP_LIMIT_S
        _send(signal.SIGTERM, self._asked)

    def wait(self) -> None:
        """Wait for the runs and then for the worker, both for a limited time."""
        _, left = psutil.wait_procs(self._asked, timeout=max(0.0, self._kill_at - time.monotonic()))
        if left:
            console.complain(f"killing {console.counted(len(left), 'run')} that did not end within {STOP_LIMIT_S:g} s")
        self._look()  # runs may have started in the meantime
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):  # Prefect's worker may hang once its runs are gone
            self._process.wait(GRACE_S)

    def kill(self) -> None:
        """Kill what is left."""
        self._look()
        self._process.kill()
        _send(signal.SIGKILL, self._below)
        self._process.wait()

    def _look(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self._below.update(self._worker.children(recursive=True))
        for process in self._below:
            with suppress(psutil.Error):
                if run := process.environ().get("PREFECT__FLOW_RUN_ID"):
                    self.flow_runs.add(run)


def pause_schedules(deployments: Collection[str], *, while_runs_end: bool = False) -> None:
    """Make the schedules of deployments inactive; `traitline serve` and `deploy` make them active again.

    Args:
        deployments: as in "nightly/nightly"; some may not exist.
        while_runs_end: whether runs are ending on this machine. Its server may then answer late, but nothing has to
            wait for it, and if it does not answer at all, this is done again after them.
    """
    if not deployments:
        return
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowFilter, FlowFilterName

    flows, names = zip(*(deployment.split("/", 1) for deployment in deployments), strict=True)
    limit_s, untold = (STOP_LIMIT_S / 2, None) if while_runs_end else (ANSWER_LIMIT_S, "that the schedules are paused")
    with _server(limit_s, untold) as client:
        for found in client.read_deployments(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(flows))),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=list(names))),
        ):
            for schedule in found.schedules:
                if schedule.active:
                    client.update_deployment_schedule(found.id, schedule.id, active=False)


def _mark_crashed(runs: Iterable[str]) -> None:
    """Mark these runs and the steps below them as crashed, unless their ends have been reported."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
    from prefect.states import Crashed

    ids = [UUID(run) for run in runs]
    with _server(ANSWER_LIMIT_S, "how runs ended") as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids))) if ids else []
        while found:
            for run in found:
                if run.state is None or not run.state.is_final():
                    client.set_flow_run_state(run.id, Crashed(message="Its worker was told to stop."), force=True)
            parents = FlowRunFilterParentFlowRunId(any_=[run.id for run in found])
            found = client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parents))


@contextmanager
def _server(limit_s: float, untold: str | None) -> Iterator[SyncPrefectClient]:
    """Connect to Prefect's server; if it does not answer in time, the block ends there, with a message of what."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": limit_s}, sync_client=True) as client,
        ):
            yield client
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        if untold is not None:  # the automation for missing heartbeats will notice runs that have ended
            console.say(f"Prefect's server was not told {untold}: {console.one_line(str(error))}", style="yellow")


def _send(number: signal.Signals, processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)

"""The command `traitline worker`: Prefect's worker, one for each GPU, that stops when it is told to.

Prefect's own takes no new runs once it gets a SIGTERM, and then waits for those at hand, for hours if need be, until
whoever sent it loses patience and kills. Here the runs are told too: they drop the shard at hand and end in seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from types import FrameType
from typing import Annotated

import typer

from flows import console
from flows.errors import UserError
from flows.session import run_plainly

STOP_LIMIT_S = 25.0  # container engines and schedulers kill after 30 s or more


def worker(
    gpu: Annotated[
        str | None,
        typer.Option(metavar="N", help="The one GPU that its runs see; without this, they see all."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs at a time (count).")] = 1,
    pool: Annotated[str, typer.Option(help="Work pool, as `traitline deploy` has made it.")] = "traitline",
    healthcheck: Annotated[
        bool, typer.Option("--healthcheck", help="Answer on port 8080 (/health) whether it still asks for work.")
    ] = False,
) -> None:
    """Take runs from a work pool of Prefect's server, which PREFECT_API_URL names, until stopped; start one per GPU.

    SIGTERM and Ctrl-C stop the run at hand within half a minute: its whole shards are kept, and the next run goes on
    from there.
    """

    def body() -> None:
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        from flows.deployments import server_address, server_at

        with server_at(server_address()), get_client(sync_client=True) as client:
            try:
                kind = client.read_work_pool(pool).type
            except ObjectNotFound as error:
                raise UserError(f"there is no work pool {pool}; make it with `traitline deploy`") from error
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind]
        command += ["--limit", str(limit), "--install-policy", "never"]
        environment = dict(os.environ)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
            command += ["--name", f"{socket.gethostname()}-gpu-{gpu}"]
        if healthcheck:
            command.append("--with-healthcheck")
        status = _run_until_stopped(command, environment)
        if status:
            raise typer.Exit(status)

    run_plainly(body)


def _run_until_stopped(command: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            console.say("traitline: stopping; whole shards are kept")
            os.killpg(process.pid, signal.SIGTERM)  # its runs are in its group
            signal.alarm(int(STOP_LIMIT_S))

    def kill(number: int, frame: FrameType | None) -> None:
        os.killpg(process.pid, signal.SIGKILL)

    for number, handler in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGALRM, kill)):
        signal.signal(number, handler)
    status = process.wait()
    signal.alarm(0)
    return 0 if stopped else status

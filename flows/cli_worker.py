"""The command `traitline worker`. The work is in `flows.prefect_worker`."""

from __future__ import annotations

import os
import socket
from typing import Annotated

import typer

from flows.errors import UserError
from flows.prefect_server import check_server
from flows.prefect_worker import work_until_stopped
from flows.session import run_plainly


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
        check_server()
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        from flows.deployments import server_address, server_at

        with server_at(server_address()), get_client(sync_client=True) as client:
            try:
                kind = client.read_work_pool(pool).type
            except ObjectNotFound as error:
                raise UserError(f"there is no work pool {pool}; make it with `traitline deploy`") from error
        options, environment = [], dict(os.environ)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
            options += ["--name", f"{socket.gethostname()}-gpu-{gpu}"]
        if healthcheck:
            options.append("--with-healthcheck")
        if status := work_until_stopped(pool, kind, limit, *options, environment=environment):
            raise typer.Exit(status)

    run_plainly(body)

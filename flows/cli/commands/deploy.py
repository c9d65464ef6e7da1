"""The commands `traitline deploy`, `traitline serve` and `traitline worker`. The work is in `flows.scheduling`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.command import plain_command
from flows.config.load import load_config
from flows.scheduling.worker import pause_schedules, work_until_stopped
from flows.session import console, stopping
from flows.session.errors import UserError
from flows.session.server import check_server, client_variables, prefect_api

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

    from flows.scheduling.deployments import Entry

FILE = Annotated[
    Path | None,
    typer.Option("--file", help="Deployments to use instead of the built-in ones: a changed copy of prefect.yaml."),
]
SETTINGS = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Settings file in YAML for the runs, at this path on every worker."),
]
CRON = Annotated[str | None, typer.Option(help="Schedule of `nightly`, as in '0 2 * * *'.")]
TIMEZONE = Annotated[str | None, typer.Option(help="Time zone of --cron, as in Europe/Berlin; by default UTC.")]
GPU_SLOTS = Annotated[
    int, typer.Option(min=1, help="Runs that may use GPUs at the same time; usually the GPUs of all workers (count).")
]


def deploy(
    config: SETTINGS = None,
    cron: CRON = None,
    timezone: TIMEZONE = None,
    gpu_slots: GPU_SLOTS = 1,
    kind: Annotated[
        Literal["process", "docker"], typer.Option("--type", help="Whether workers start processes or containers.")
    ] = "process",
    image: Annotated[str, typer.Option(help="Image of containers.")] = "traitline:cpu",
    volumes: Annotated[
        list[str] | None, typer.Option("--volume", metavar="HOST:CONTAINER", help="Folder to mount in containers.")
    ] = None,
    file: FILE = None,
) -> None:
    """Create or update the deployments extract, train, rescore, export and nightly on the server at PREFECT_API_URL.

    Also creates the work pool, `traitline` or `traitline-docker`, the slots for GPUs, and an automation that marks
    crashed runs. Repeat it after each change. Then start workers, such as `traitline worker --gpu 0`, one for each GPU.
    """
    with plain_command():
        _check(config, cron, timezone)
        check_server(needed=True)
        entries = _entries(file, config, cron, timezone)
        if kind == "docker":
            entries = [_in_containers(entry, image, volumes) for entry in entries]
        _put_on_server(entries, _built(entries), kind, gpu_slots)
        start = "`prefect worker start --pool {}`" if kind == "docker" else "`traitline worker --pool {}`"
        workers = " and ".join(start.format(name) for name in _pools(entries))
        console.say(f"Runs wait until a worker takes them; on each machine, start {workers}")


def serve(
    config: SETTINGS = None,
    cron: CRON = None,
    timezone: TIMEZONE = None,
    gpu_slots: GPU_SLOTS = 1,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of concurrent runs (count).")] = 1,
    file: FILE = None,
) -> None:
    """Serve the deployments on this machine, on schedule or on demand, until stopped: `deploy` and `worker` in one.

    Without a PREFECT_API_URL it starts a temporary server, with Prefect's pages. Ctrl-C and SIGTERM pause the schedules
    and stop the current runs: finished shards are kept, and the next run continues from there. A second Ctrl-C kills
    the runs at once.
    """
    with plain_command():
        _check(config, cron, timezone)
        check_server()
        entries = _entries(file, config, cron, timezone)
        pool, *others = _pools(entries)
        if others:
            raise UserError(f"deployments of several work pools ({', '.join([pool, *others])}) cannot be served by one")
        stopping.listen(ends_itself=True)
        with prefect_api(for_people=True) as api:
            deployments = _built(entries)
            names = [deployment.full_name for deployment in deployments]
            try:
                _put_on_server(entries, deployments, "process", gpu_slots)
                console.say(f"Serving the deployments at {api.removesuffix('/api')}")
                environment = {**os.environ, **client_variables()}
                status = work_until_stopped(pool, "process", limit, environment=environment, deployments=names)
            finally:
                pause_schedules(names)
        if status:
            raise typer.Exit(status)


def _built(entries: list[Entry]) -> list[RunnerDeployment]:
    from flows.scheduling.deployments import build

    return [build(entry) for entry in entries]


def _put_on_server(entries: list[Entry], deployments: list[RunnerDeployment], kind: str, gpu_slots: int) -> None:
    """Create or update the deployments of these entries, and what they need."""
    from flows.scheduling.deployments import make_crash_automation, make_pool
    from flows.scheduling.gpu_slots import make_slots

    for name in _pools(entries):
        make_pool(name, kind)
        console.say(f"work pool {name} ({kind})")
    make_slots(gpu_slots)
    console.say(f"GPU slots: {gpu_slots}")
    make_crash_automation(_heartbeat_s(entries))
    for deployment in deployments:
        deployment.apply()
        console.say(f"deployment {deployment.full_name}{_when(deployment)}")


def _pools(entries: list[Entry]) -> list[str]:
    return sorted({entry.work_pool.name for entry in entries})


def _check(config: Path | None, cron: str | None, timezone: str | None) -> None:
    if config is not None:
        load_config(config)  # report a mistake in it now, not at run time
    if timezone is not None and cron is None:
        raise UserError("--timezone belongs to --cron; give both")


def _entries(file: Path | None, config: Path | None, cron: str | None, timezone: str | None) -> list[Entry]:
    """Read the deployments, and apply the options to them."""
    from flows.scheduling.deployments import read_entries

    entries = []
    for entry in read_entries(file):
        changes: dict[str, Any] = {}
        if config is not None:
            changes["parameters"] = {**entry.parameters, "settings": str(config.absolute())}
        if cron is not None and entry.name == "nightly":
            changes["schedules"] = ({"cron": cron, "timezone": timezone if timezone is not None else "UTC"},)
        entries.append(entry.model_copy(update=changes))
    return entries


def _in_containers(entry: Entry, image: str, volumes: list[str] | None) -> Entry:
    variables = {**entry.work_pool.job_variables, "image": image, "volumes": volumes if volumes is not None else []}
    pool = entry.work_pool.model_copy(update={"name": f"{entry.work_pool.name}-docker", "job_variables": variables})
    return entry.model_copy(update={"work_pool": pool})


def _heartbeat_s(entries: list[Entry]) -> int:
    """Return the longest heartbeat interval of any deployment, in seconds."""
    name = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
    return max(int(entry.work_pool.job_variables.get("env", {}).get(name, 180)) for entry in entries)


def _when(deployment: RunnerDeployment) -> str:
    times = [_in_words(schedule.schedule) for schedule in deployment.schedules or () if schedule.active is not False]
    return f", {', '.join(times)}" if times else ""


def _in_words(schedule: Any) -> str:
    name, value = next((key, getattr(schedule, key)) for key in ("cron", "interval", "rrule") if hasattr(schedule, key))
    return f"{name} {value} ({schedule.timezone if schedule.timezone is not None else 'UTC'})"


def worker(
    gpu: Annotated[
        str | None, typer.Option(metavar="N", help="The only GPU that its runs see; by default they see all.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of concurrent runs (count).")] = 1,
    pool: Annotated[str, typer.Option(help="Work pool, created by `traitline deploy`.")] = "traitline",
    healthcheck: Annotated[
        bool, typer.Option("--healthcheck", help="Report on port 8080 (/health) whether it still polls for work.")
    ] = False,
) -> None:
    """Execute runs of a work pool of the server at PREFECT_API_URL until stopped; start one worker per GPU.

    SIGTERM and Ctrl-C stop the current run within half a minute: finished shards are kept, and the next run continues
    from there.
    """
    with plain_command():
        check_server(needed=True)
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        with get_client(sync_client=True) as client:
            try:
                kind = client.read_work_pool(pool).type
            except ObjectNotFound as error:
                raise UserError(f"there is no work pool {pool}; create it with `traitline deploy`") from error
        options, environment = [], dict(os.environ)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
            options += ["--name", f"{socket.gethostname()}-gpu-{gpu}"]
        if healthcheck:
            _check_health_port()
            options.append("--with-healthcheck")
        stopping.listen(ends_itself=True)
        if status := work_until_stopped(pool, kind, limit, *options, environment=environment):
            raise typer.Exit(status)


def _check_health_port() -> None:
    """Check that the health check can listen: Prefect's worker would go on without it."""
    from prefect.settings import get_current_settings

    place = get_current_settings().worker.webserver
    try:
        socket.create_server((place.host, place.port)).close()
    except OSError as error:
        raise UserError(
            f"{place.host}:{place.port} cannot be used for --healthcheck; name another port in "
            "PREFECT_WORKER_WEBSERVER_PORT"
        ) from error

"""Prefect deployments from `prefect.yaml`, and the work pools and the automation that they need on the server.

Every function is idempotent: it updates existing objects and touches no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, StateType
from prefect.client.schemas.schedules import SCHEDULE_TYPES
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import MissingFlowError, ObjectNotFound, ParameterTypeError, SignatureMismatchError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.types.entrypoint import EntrypointType
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from flows.config.load import read_yaml
from flows.session.errors import UserError

CRASH_AUTOMATION = "traitline: runs without a sign of life have crashed"  # name of the automation on the server
TAG = "traitline"  # on all runs of the deployments, and on their steps
SILENT_HEARTBEATS = 3
HEARTBEAT = "prefect.flow-run.heartbeat"
_TIMING: TypeAdapter[SCHEDULE_TYPES] = TypeAdapter(SCHEDULE_TYPES)
ENDINGS = ("Completed", "Failed", "Crashed", "Cancelled", "Paused", "Suspended", "Scheduled", "AwaitingRetry")


class Pool(BaseModel, frozen=True, extra="forbid"):
    """The work pool of a deployment, with variables for its runs."""

    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict)


class Entry(BaseModel, frozen=True, extra="forbid"):
    """One deployment of `prefect.yaml`, with Prefect's own keys."""

    name: str
    entrypoint: str
    description: str | None = None
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    schedules: tuple[dict[str, Any], ...] = ()
    concurrency_limit: ConcurrencyLimitConfig | None = None
    work_pool: Pool


def read_entries(path: Path | None = None) -> list[Entry]:
    """Read the deployments from a file, by default the one that is installed with this package.

    Raises:
        UserError: the file cannot be read, names no deployments, or has unknown keys.
    """
    source = files("flows.scheduling") / "prefect.yaml" if path is None else path
    tree = read_yaml(source, "deployments file")
    entries = tree.get("deployments") if isinstance(tree, dict) else None
    if not entries:
        raise UserError(f"{source} names no deployments; copy them from the prefect.yaml of this project")
    try:
        return TypeAdapter(list[Entry]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{source}: deployments.{place}: {first['msg']}; got {first['input']!r}") from error


def build(entry: Entry) -> RunnerDeployment:
    """Build the deployment that an entry describes.

    Raises:
        UserError: the flow does not exist or does not take these parameters, or the schedule is invalid.
    """
    try:
        flow: Flow[..., Any] = load_flow_from_entrypoint(entry.entrypoint)
    except (ImportError, MissingFlowError, ValueError) as error:
        raise UserError(f"deployment {entry.name}: no flow {entry.entrypoint}: {error}") from error
    pool = entry.work_pool
    deployment = cast(
        RunnerDeployment,
        flow.to_deployment(
            entry.name,
            schedules=[_schedule(entry.name, schedule) for schedule in entry.schedules],
            concurrency_limit=entry.concurrency_limit,
            parameters=_checked(flow, entry),
            description=entry.description,
            tags=sorted({*entry.tags, TAG}),
            entrypoint_type=EntrypointType.MODULE_PATH,
            work_pool_name=pool.name,
            work_queue_name=pool.work_queue_name,
            job_variables=pool.job_variables,
        ),
    )  # a coroutine only inside an event loop
    deployment.entrypoint = entry.entrypoint
    return deployment


def make_pool(name: str, kind: str) -> None:
    """Create a work pool of a type, unless it exists.

    Raises:
        UserError: the package for this type is not installed, or the existing pool has another type.
    """
    worker = ProcessWorker if kind == ProcessWorker.type else BaseWorker.get_worker_class_from_type(kind)
    if worker is None:
        raise UserError(f"work pools of type {kind} need prefect-{kind}: pip install 'traitline[{kind}]'")
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(name)
        except ObjectNotFound:
            template = worker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
            return
    if found.type != kind:
        raise UserError(f"the work pool {name} has the type {found.type}, not {kind}; delete it or name another pool")


def make_crash_automation(heartbeat_s: int) -> None:
    """Have the server mark a run as crashed, which frees its slots, when three heartbeats in a row are missing.

    Workers report runs whose process dies; this automation covers the loss of a worker or its machine.

    Args:
        heartbeat_s: seconds between two heartbeats of a run, PREFECT_FLOWS_HEARTBEAT_FREQUENCY.
    """
    wanted = AutomationCore(
        name=CRASH_AUTOMATION,
        description="Created by `traitline deploy`: a run whose process and worker are gone does not stay Running.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            # Other runs on the server may send heartbeats less often.
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{ending}" for ending in ENDINGS)},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=SILENT_HEARTBEATS * heartbeat_s),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: the run's process is gone.")],
    )
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(CRASH_AUTOMATION)
        if known:
            client.update_automation(known[0].id, wanted)
        else:
            client.create_automation(wanted)


def _schedule(name: str, words: Mapping[str, Any]) -> DeploymentScheduleCreate:
    timing = {key: value for key, value in words.items() if key not in ("active", "parameters", "slug")}
    other = {key: words[key] for key in ("active", "parameters", "slug") if key in words}
    try:
        return DeploymentScheduleCreate(schedule=_TIMING.validate_python(timing), **other)
    except ValidationError as error:
        raise UserError(f"deployment {name}: {words} is not a schedule: {error.errors()[0]['msg']}") from error


def _checked(flow: Flow[..., Any], entry: Entry) -> dict[str, Any]:
    try:
        flow.validate_parameters(entry.parameters)
    except (ParameterTypeError, SignatureMismatchError) as error:
        raise UserError(f"deployment {entry.name}: {' '.join(str(error).split())}") from error
    return entry.parameters

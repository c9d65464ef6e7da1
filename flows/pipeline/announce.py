"""Shows the progress and results of a run on Prefect's pages.

This is optional: if Prefect's server does not answer, or is the command's own and ends with it, nothing is announced,
and no run fails or waits long because of it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from flows.session.console import counted
from storage.files.paths import StorePath

log = logging.getLogger(__name__)

SHARD_COMMITTED = "traitline.shard.committed"

_ANSWER_LIMIT_S = 5.0
_SILENCE_S = 300.0  # after a server that did not answer
_PROGRESS_EVERY_S = 10.0


def progress(title: str) -> Callable[[int, int, int], None] | None:
    """Show the progress of a stage of this flow run.

    Returns:
        A function to call with counts (done, in all, failed) whenever they change; None outside a flow run.
    """
    run = _run_id()
    if run is None:
        return None
    artifact: UUID | None = None
    next_s = 0.0

    def show(done: int, total: int, failed: int) -> None:
        nonlocal artifact, next_s
        if not total or (time.monotonic() < next_s and done < total):
            return
        next_s = time.monotonic() + _PROGRESS_EVERY_S
        percent, text = 100 * done / total, f"{title}: {done:,} of {total:,}" + (f", {failed:,} failed" * bool(failed))
        if artifact is None:
            artifact = _create(run, "progress", f"{title.lower()}-progress", percent, text)
        else:
            known = artifact
            _ask(lambda client: client.update_artifact(known, ArtifactUpdate(data=percent, description=text)))

    return show


def shard_committed(store: StorePath, extracted: int, failed: int, seconds: Mapping[str, float]) -> None:
    """Emit the event of a committed shard, with counts of videos and seconds of work by stage."""
    work_s = sum(seconds.values())
    videos = counted(extracted, "video")
    log.info("shard committed: %s extracted, %d refused, %.1f s of work", videos, failed, work_s)
    if _run_id() is None:
        return
    resource = {"prefect.resource.id": f"traitline.store.{store}", "prefect.resource.name": str(store)}
    # Prefect sends events from a thread of its own.
    emit_event(SHARD_COMMITTED, resource, payload={"extracted": extracted, "failed": failed, "seconds": dict(seconds)})


def table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show a table with this flow run."""
    if (run := _run_id()) is not None:
        _create(run, "table", key, json.dumps([dict(row) for row in rows]), description)


def markdown(key: str, text: str, description: str) -> None:
    """Show a text with this flow run."""
    if (run := _run_id()) is not None:
        _create(run, "markdown", key, text, description)


def link(key: str, path: StorePath, description: str) -> None:
    """Show a link to a file of the store with this flow run."""
    address = path.absolute().as_uri() if isinstance(path, Path) else str(path)
    markdown(key, f"[{path.name}]({address})", description)


def _run_id() -> UUID | None:
    """Return the present flow run if its server outlives it: only then does Prefect send the run's log there too."""
    run = FlowRunContext.get()
    if run is None or run.flow_run is None or not PREFECT_LOGGING_TO_API_ENABLED.value():
        return None
    return run.flow_run.id


def _create(run: UUID, kind: str, key: str, data: Any, description: str) -> UUID | None:
    artifact = ArtifactCreate(type=kind, key=key, data=data, description=description, flow_run_id=run)
    created = _ask(lambda client: client.create_artifact(artifact))
    return None if created is None else created.id


class _Server:
    silent_until_s = 0.0


def _ask(request: Callable[[SyncPrefectClient], Any]) -> Any:
    """Ask the server. If it does not answer in time, return None and do not ask again for a while."""
    if time.monotonic() < _Server.silent_until_s:
        return None
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": _ANSWER_LIMIT_S}, sync_client=True) as client,
        ):
            return request(client)
    except Exception as error:  # no such error is worth a run
        log.warning("cannot show this on Prefect's pages: %s: %s", type(error).__name__, error)
        _Server.silent_until_s = time.monotonic() + _SILENCE_S
        return None

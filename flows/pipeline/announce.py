"""Show the progress and results of a run on Prefect's pages.

Nothing is shown outside a flow run, on a server that ends with the command, or if the server does not answer. No run
fails or waits long because of it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from flows.extraction.jobs import Committed
from flows.session.console import counted
from storage.files.paths import StorePath

log = logging.getLogger(__name__)

SHARDS_COMMITTED = "traitline.shards.committed"
NOTHING_NEW = "traitline.run.nothing-new"

_ANSWER_LIMIT_S = 5.0
_SILENCE_S = 300.0  # after a server that did not answer
_PROGRESS_EVERY_S = 10.0
_COMMITS_EVERY_S = 60.0


class Commits:
    """Announces committed shards, several at a time. Use it as a context manager, which announces the last ones."""

    def __init__(self, store: StorePath) -> None:
        self._store = store
        self._next_s = 0.0
        self._untold = Committed()

    def __enter__(self) -> Commits:
        return self

    def __exit__(self, *reason: object) -> None:
        self._tell()

    def add(self, committed: Committed) -> None:
        """Add what a worker has committed."""
        self._untold += committed
        if time.monotonic() >= self._next_s:
            self._tell()

    def _tell(self) -> None:
        told, self._untold = self._untold, Committed()
        if not told.shards:
            return
        shards, videos = counted(told.shards, "shard"), counted(told.extracted, "video")
        work_s = sum(told.seconds.values())
        log.info("committed %s: %s extracted, %d rejected, %.1f s of work", shards, videos, told.failed, work_s)
        counts = {"shards": told.shards, "extracted": told.extracted, "failed": told.failed}
        _emit(SHARDS_COMMITTED, self._store, {**counts, "seconds": dict(told.seconds)})
        self._next_s = time.monotonic() + _COMMITS_EVERY_S


def nothing_new(store: StorePath) -> None:
    """Emit the event of a run that finds no video that it has not seen before."""
    _emit(NOTHING_NEW, store, {})


def _emit(event: str, store: StorePath, payload: dict[str, Any]) -> None:
    if _run_id() is None:
        return
    resource = {"prefect.resource.id": f"traitline.store.{store}", "prefect.resource.name": str(store)}
    emit_event(event, resource, payload=payload)  # Prefect sends events from a thread of its own


class Pages:
    """The pages of the present flow run. After a server that did not answer in time, nothing is shown for a while."""

    def __init__(self) -> None:
        self._run = _run_id()
        self._silent_until_s = 0.0

    def progress(self, title: str) -> Callable[[int, int, int], None] | None:
        """Show the progress of a stage.

        Returns:
            A function to call with counts (done, in all, failed) whenever they change; None outside a flow run. What
            it shows is bounded, because the server keeps about five rows of each update: a hundred updates, no two
            within ten seconds, and one at the end.
        """
        if self._run is None:
            return None
        artifact: UUID | None = None
        next_s, next_percent = 0.0, 0.0

        def show(done: int, total: int, failed: int) -> None:
            nonlocal artifact, next_s, next_percent
            percent = 100 * done / total if total else 0.0
            if not total or (done < total and (percent < next_percent or time.monotonic() < next_s)):
                return
            next_s, next_percent = time.monotonic() + _PROGRESS_EVERY_S, percent + 1
            text = f"{title}: {done:,} of {total:,}"
            if failed:
                text += f", {failed:,} rejected"
            if artifact is None:
                artifact = self._create("progress", f"{title.lower()}-progress", percent, text)
            else:
                known = artifact
                self._ask(lambda client: client.update_artifact(known, ArtifactUpdate(data=percent, description=text)))

        return show

    def table(self, key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
        """Show a table."""
        self._create("table", key, json.dumps([dict(row) for row in rows]), description)

    def markdown(self, key: str, text: str, description: str) -> None:
        """Show a text."""
        self._create("markdown", key, text, description)

    def link(self, key: str, address: str, description: str) -> None:
        """Show a link to a page on a web server; browsers open no files from Prefect's pages."""
        self.markdown(key, f"[{address.rpartition('/')[2]}]({address})", description)

    def _create(self, kind: str, key: str, data: Any, description: str) -> UUID | None:
        if self._run is None:
            return None
        artifact = ArtifactCreate(type=kind, key=key, data=data, description=description, flow_run_id=self._run)
        created = self._ask(lambda client: client.create_artifact(artifact))
        return None if created is None else created.id

    def _ask(self, request: Callable[[SyncPrefectClient], Any]) -> Any:
        if time.monotonic() < self._silent_until_s:
            return None
        try:
            with (
                temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
                get_client(httpx_settings={"timeout": _ANSWER_LIMIT_S}, sync_client=True) as client,
            ):
                return request(client)
        except Exception as error:  # no such error is worth a run
            log.warning("cannot show this on Prefect's pages: %s: %s", type(error).__name__, error)
            self._silent_until_s = time.monotonic() + _SILENCE_S
            return None


def _run_id() -> UUID | None:
    """Return the id of the present flow run, if its server outlives it: Prefect then sends the run's log there too."""
    run = FlowRunContext.get()
    if run is None or run.flow_run is None or not PREFECT_LOGGING_TO_API_ENABLED.value():
        return None
    return run.flow_run.id

"""Shard tasks in a Dask worker. The first one builds the networks, and later ones reuse them."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Sequence
from typing import Any

from flows.extraction import cores
from flows.extraction.jobs import Job, ShardReport
from flows.extraction.worker import MakeWorker, Worker
from flows.session import console
from flows.session.environment import settle_environment

LOOK_S = 1.0


class StopAskedError(Exception):
    """The run that a shard belongs to is being stopped."""


def extract_here(make: MakeWorker, jobs: Sequence[Job], stop: str, own_cluster: bool) -> ShardReport:
    """Extract and commit one shard in this process.

    Args:
        make: builds the worker if this process has none yet.
        stop: name of the event, on Dask's scheduler, that stops the run.
        own_cluster: whether the run started the cluster itself.

    Raises:
        StopAskedError: the event was set.
    """
    from distributed import Event, get_client, get_worker

    asked = Event(stop, client=get_client())  # type: ignore[no-untyped-call]  # distributed has few annotations
    looked_at = time.monotonic()

    def check() -> None:
        nonlocal looked_at
        if time.monotonic() - looked_at > LOOK_S:
            looked_at = time.monotonic()
            if asked.is_set():  # type: ignore[no-untyped-call]  # likewise
                raise StopAskedError

    return _resident_of(get_worker()).get(make, own_cluster).extract(jobs, lambda *_: None, check)


def release_worker(dask_worker: Any) -> None:
    """Release the networks that a Dask worker holds, after its current shard."""
    # In a thread, because Dask calls this in the event loop that also serves the shard's check for a stop.
    threading.Thread(target=_resident_of(dask_worker).close, daemon=True).start()


def _resident_of(dask_worker: Any) -> _ResidentWorker:
    """Return what a Dask worker keeps between shards. `setdefault` is atomic, so threads share one object."""
    resident: _ResidentWorker = vars(dask_worker).setdefault("traitline", _ResidentWorker())
    return resident


class _ResidentWorker:
    """The worker in one Dask worker, built for its first shard."""

    def __init__(self) -> None:
        self._made_by = b""
        self._worker: Worker | None = None
        self._building = threading.Lock()

    def get(self, make: MakeWorker, own_cluster: bool) -> Worker:
        """Return the worker that `make` builds. A worker of another run is closed first, to free its memory."""
        made_by = pickle.dumps(make)
        with self._building:
            if self._worker is None or made_by != self._made_by:
                self._close()
                _settle(own_cluster)
                self._worker, self._made_by = make().__enter__(), made_by
            return self._worker

    def close(self) -> None:
        with self._building:
            self._close()

    def _close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.__exit__(None, None, None)


def _settle(own_cluster: bool) -> None:
    """Prepare this process for TensorFlow, and restrict it to its share of the machine."""
    from distributed import get_client, get_worker

    settle_environment()
    console.log_to_standard_error()
    me = get_worker().address
    hosts = {address: worker["host"] for address, worker in get_client().scheduler_info()["workers"].items()}
    here = sorted(address for address, host in hosts.items() if host == hosts[me])
    if own_cluster or not cores.is_restricted():  # otherwise the cores are already distributed
        cores.take_share(here.index(me), len(here))

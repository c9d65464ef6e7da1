"""What a shard task does in a worker of Dask's: the networks are built by the first one, and stay for the next ones."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Sequence

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
        make: makes the worker, where this process has none yet.
        jobs: the shard.
        stop: name of the event, on Dask's scheduler, that stops the run.
        own_cluster: whether the run started the cluster itself.

    Raises:
        StopAskedError: the event came.
    """
    from distributed import Event, get_client

    asked, looked_at = Event(stop, client=get_client()), time.monotonic()

    def check() -> None:
        nonlocal looked_at
        if time.monotonic() - looked_at > LOOK_S:
            looked_at = time.monotonic()
            if asked.is_set():
                raise StopAskedError

    return _resident.get(make, own_cluster).extract(jobs, lambda *_: None, check)


def release_worker() -> None:
    """Let go of the networks that this process holds, once the shard at hand has come to its end."""
    # Dask calls this where it also answers the shard that asks whether it should stop.
    threading.Thread(target=_resident.close, daemon=True).start()


class _ResidentWorker:
    """The worker of this process, built when a shard first asks for it."""

    def __init__(self) -> None:
        self._made_by = b""
        self._worker: Worker | None = None
        self._building = threading.Lock()

    def get(self, make: MakeWorker, own_cluster: bool) -> Worker:
        """The worker that `make` makes. Another run's is closed for it: there is memory for one."""
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


_resident = _ResidentWorker()


def _settle(own_cluster: bool) -> None:
    """Make this process ready for TensorFlow, and give it its share of the machine."""
    from distributed import get_client, get_worker

    settle_environment()
    console.log_to_standard_error()
    me = get_worker().address
    hosts = {address: worker["host"] for address, worker in get_client().scheduler_info()["workers"].items()}
    here = sorted(address for address, host in hosts.items() if host == hosts[me])
    if own_cluster or not cores.is_restricted():  # else whoever started the workers has dealt the cores out
        cores.take_share(here.index(me), len(here))

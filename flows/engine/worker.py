"""What a Dask worker keeps for a run: its work, opened for the first item, and whether the run is being stopped."""

from __future__ import annotations

import asyncio
import pickle
import threading
from contextlib import AbstractContextManager, suppress
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from flows.engine import cores
from flows.engine.engine import Work, attempt
from flows.session import console
from flows.session.environment import settle_environment

TOPIC = "traitline-progress"
STOP_LIMIT_S = 10.0


class StopAskedError(Exception):
    """The run that an item belongs to has ended or is being stopped."""


class Resident(WorkerPlugin):
    """The work of one run in each Dask worker. Dask sets it up in workers that join later, too.

    Args:
        name: of the run.
        open_work: pickled `flows.engine.engine.OpenWork`. It is unpickled after this process has got its share of the
            machine, because libraries count the cores and GPUs when they are imported.
        own: whether the run started the cluster itself.
    """

    _settled = False  # whether this process has got its share of the machine

    def __init__(self, name: str, open_work: bytes, *, own: bool) -> None:
        self.name, self._open_work, self._own = name, open_work, own

    async def setup(self, worker: Worker) -> None:
        """Give this process its share of the machine, unless that is done. Nothing is built yet."""
        self.stopped = threading.Event()
        self._busy = threading.Lock()
        self._opened: AbstractContextManager[Work[Any, Any]] | None = None
        self._work: Work[Any, Any] | None = None
        if Resident._settled:
            return
        Resident._settled = True
        settle_environment()
        console.log_to_standard_error()
        # Otherwise the cores are already distributed.
        if self._own or not cores.is_restricted():
            known = (await worker.scheduler.identity())["workers"]
            host = known[worker.address]["host"]
            # Workers that were started again keep their names, but not their addresses.
            here = sorted(str(about["name"]) for about in known.values() if about["host"] == host)
            cores.take_share(here.index(str(worker.name)), len(here))

    async def teardown(self, worker: Worker) -> None:
        """Stop, and release what was opened."""
        self.stopped.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self.close), STOP_LIMIT_S)

    def do(self, worker: Worker, number: int, item: Any, retries: int) -> Any:
        """Work on an item. Threads of one process take turns."""
        course = _InWorker(worker, self, number)
        with self._busy:
            course.check()
            if self._work is None:
                # Another run may have ended without a word; its memory is wanted here.
                for other in list(worker.plugins.values()):
                    if isinstance(other, Resident) and other is not self:
                        other.close()
                opened = pickle.loads(self._open_work)()  # noqa: S301 - from those who may run code here anyway
                self._work, self._opened = opened.__enter__(), opened
            return attempt(self._work, item, course, retries)

    def close(self) -> None:
        """Release what was opened, after the present item. The next item opens it again."""
        with self._busy:
            opened, self._opened, self._work = self._opened, None, None
            if opened is not None:
                opened.__exit__(None, None, None)


class _InWorker:
    """The course of work in a Dask worker."""

    def __init__(self, worker: Worker, resident: Resident, number: int) -> None:
        self._worker, self._resident, self._number = worker, resident, number

    def check(self) -> None:
        if self._resident.stopped.is_set():
            raise StopAskedError(f"{self._resident.name} is being stopped")

    def progress(self, done: int, failed: int) -> None:
        told = {"run": self._resident.name, "item": self._number, "done": done, "failed": failed}
        self._worker.log_event(TOPIC, told)


def do(name: str, number: int, item: Any, retries: int) -> Any:
    """Work on an item of a run in the Dask worker that calls this.

    Raises:
        StopAskedError: the run has ended.
    """
    worker = get_worker()
    resident = worker.plugins.get(name)
    if not isinstance(resident, Resident):
        raise StopAskedError(f"{name} has ended")
    return resident.do(worker, number, item, retries)

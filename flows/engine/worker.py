"""What a Dask worker keeps for a run: its work, opened for the first item, and whether the run is being stopped."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import pickle
import sys
import threading
from contextlib import AbstractContextManager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

import flows
from flows.engine import cores
from flows.engine.engine import Course, Work
from flows.session import console
from flows.session.environment import settle_environment
from flows.session.errors import UserError
from flows.session.log import hide_greetings

TOPIC = "traitline-progress"
STOP_LIMIT_S = 10.0


def _describe_program() -> str:
    code, root = hashlib.sha256(), Path(__file__).parents[2]
    for package in console.PACKAGES:  # not by import: workers have a folder "storage" of Dask's on their path
        for file in sorted((root / package).rglob("*.py")):
            code.update(f"{file.relative_to(root).as_posix()} ".encode() + file.read_bytes())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"Traitline {flows.__version__} (code {code.hexdigest()[:8]}) on Python {python} with Dask {version('dask')}"


_PROGRAM = _describe_program()  # when it is imported: files may change while the process runs


def running_program() -> str:
    """Describe what this process runs, as in "Traitline 0.1.0 (code 3f2a9c1d) on Python 3.11 with Dask 2026.8.0"."""
    return _PROGRAM


def check_program(place: str, there: str | None, here: str) -> None:
    """Check that a process of a Dask cluster and the command run the same program.

    Args:
        place: the process and its address.
        there, here: what it and the command run; None if it cannot tell.

    Raises:
        UserError: they differ.
    """
    if there != here:
        other = "another version of Traitline, or none" if there is None else there
        raise UserError(
            f"{place} of the Dask cluster runs {other}, but this command {here}; install the same there and restart it"
        )


class StopAskedError(Exception):
    """The run that an item belongs to has ended or is being stopped."""


class Resident(WorkerPlugin):
    """The work of one run in each Dask worker. Dask sets it up in workers that join later, too.

    Args:
        name: of the run.
        open_work: pickled `flows.engine.engine.OpenWork`. It is unpickled after this process has got its share of the
            machine, because libraries count the cores and GPUs when they are imported.
        program: what the command runs.
        own: whether the run started the cluster itself.
    """

    _settled = False  # whether this process has got its share of the machine

    def __init__(self, name: str, open_work: bytes, program: str, *, own: bool) -> None:
        self.name, self._open_work, self._program, self._own = name, open_work, program, own

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
        hide_greetings()
        console.log_to_standard_error()
        if self._own:
            # When a run ends, the scheduler may be gone before it answers a heartbeat. Dask logs that with a traceback.
            logging.getLogger("distributed.worker").addFilter(lambda record: "heartbeat" not in str(record.msg))
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

    def do(self, worker: Worker, number: int, item: Any) -> Any:
        """Work on an item. Threads of one process take turns."""
        check_program(f"the worker {worker.address}", running_program(), self._program)  # it may have joined later

        def progress(done: int, failed: int) -> None:
            worker.log_event(TOPIC, {"run": self.name, "item": number, "done": done, "failed": failed})

        with self._busy:
            self._check()
            if self._work is None:
                # Another run may have ended without a word; its memory is wanted here.
                for other in list(worker.plugins.values()):
                    if isinstance(other, Resident) and other is not self:
                        other.close()
                opened = pickle.loads(self._open_work)()  # noqa: S301 - from those who may run code here anyway
                self._work, self._opened = opened.__enter__(), opened
            return self._work(item, Course(self._check, progress))

    def _check(self) -> None:
        if self.stopped.is_set():
            raise StopAskedError(f"{self.name} is being stopped")

    def close(self) -> None:
        """Release what was opened, after the present item. The next item opens it again."""
        with self._busy:
            opened, self._opened, self._work = self._opened, None, None
            if opened is not None:
                opened.__exit__(None, None, None)


def do(name: str, number: int, item: Any) -> Any:
    """Work on an item of a run in the Dask worker that calls this.

    Raises:
        StopAskedError: the run has ended.
    """
    worker = get_worker()
    resident = worker.plugins.get(name)
    if not isinstance(resident, Resident):
        raise StopAskedError(f"{name} has ended")
    try:
        return resident.do(worker, number, item)
    except StopAskedError:  # nobody waits for it any more, and Dask would log it as an error
        return None

"""The main program of a process of `flows.extraction.pool`."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

from flows.extraction.jobs import Job
from flows.extraction.worker import Worker
from flows.session import console, stopping
from flows.session.environment import settle_environment

STOP_LIMIT_S = 15.0  # from the parent's end or request to the end of this process


@dataclass(frozen=True)
class Ready:
    """The first message of a worker: its networks are built."""


@dataclass(frozen=True)
class VideoDone:
    """Another video of the current shard is finished; `ok` if it was accepted."""

    ok: bool


def serve(connection_fd: int) -> None:
    """Build the worker that the parent asks for, and extract its shards until it closes the connection."""
    settle_environment()
    console.log_to_standard_error()
    stopping.listen()
    # Ctrl-C reaches the whole process group; the parent decides what happens to this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(connection_fd)
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()
    try:
        try:
            with pickle.loads(orders.get())() as worker:  # noqa: S301 - our own parent sent it
                connection.send(Ready())
                while True:
                    _extract(worker, pickle.loads(orders.get()), connection)  # noqa: S301 - likewise
        except Exception as error:
            _tell(connection, error)
    except (KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        pass  # the parent has ended, or has closed the connection
    finally:
        # Threads of libraries can delay the interpreter's exit; the worker is closed, and nothing else is open.
        os._exit(0)


def _listen(connection: Connection, orders: queue.SimpleQueue[bytes]) -> None:
    """Queue the parent's messages. When it closes the connection, end this process, by force if necessary."""
    try:
        while True:
            orders.put(connection.recv_bytes())
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_LIMIT_S)
        os._exit(1)


def _extract(worker: Worker, jobs: list[Job], connection: Connection) -> None:
    try:
        report = worker.extract(jobs, lambda _, ok: connection.send(VideoDone(ok)), stopping.check)
    except Exception as error:
        _tell(connection, error)
    else:
        connection.send(report)


def _tell(connection: Connection, error: Exception) -> None:
    error.add_note(f"in a worker process:\n{traceback.format_exc()}")
    connection.send(error)

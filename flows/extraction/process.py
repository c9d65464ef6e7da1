"""What runs in a process of `flows.extraction.pool`."""

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

from flows.extraction.worker import Worker
from flows.session import console, stopping
from flows.session.environment import settle_environment

STOP_LIMIT_S = 15.0  # from the parent's end, or its wish, to the end of this process at the latest


@dataclass(frozen=True)
class Ready:
    """A worker's first words: its networks are built."""


@dataclass(frozen=True)
class VideoDone:
    """One more video of the shard at hand was gone through; whether it was accepted."""

    ok: bool


def serve(connection_fd: int) -> None:
    """Build the worker that the parent asks for, and extract its shards until it closes the connection."""
    settle_environment()
    console.log_to_standard_error()
    stopping.listen()
    # Ctrl-C goes to the whole group of processes; the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(connection_fd)
    orders: queue.SimpleQueue = queue.SimpleQueue()
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
        pass  # the parent has gone, or needs no more
    finally:
        # Threads of libraries may hold up the interpreter's end; the worker is closed, and nothing else is open.
        os._exit(0)


def _listen(connection: Connection, orders: queue.SimpleQueue) -> None:
    """Pass on what the parent sends; once it has closed the connection, end this process, gently at first."""
    try:
        while True:
            orders.put(connection.recv_bytes())
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_LIMIT_S)
        os._exit(1)


def _extract(worker: Worker, jobs: list, connection: Connection) -> None:
    try:
        report = worker.extract(jobs, lambda _, ok: connection.send(VideoDone(ok)), stopping.check)
    except Exception as error:
        _tell(connection, error)
    else:
        connection.send(report)


def _tell(connection: Connection, error: Exception) -> None:
    error.add_note(f"in a worker process:\n{traceback.format_exc()}")
    connection.send(error)

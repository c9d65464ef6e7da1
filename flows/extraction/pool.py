"""Worker processes on this machine. Each builds its networks once and extracts shard after shard.

A worker that dies is replaced; the claim on its shard expires.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

from flows.extraction.jobs import Job, ShardReport
from flows.extraction.process import STOP_LIMIT_S, Ready, VideoDone
from flows.extraction.worker import MakeWorker


class WorkerDiedError(Exception):
    """A worker process ended during a shard; another worker can take the shard over."""


class PoolClosedError(Exception):
    """The pool is closed."""


@dataclass
class Tally:
    """The progress of a shard, for display."""

    done: int = 0
    failed: int = 0


class WorkerPool:
    """Extract shards in worker processes, one shard in each at a time. Use it as a context manager.

    Raises:
        Exception: on entering, the error that building the worker raised.
        WorkerDiedError: on entering, if a worker process ended.
    """

    def __init__(self, make: MakeWorker, count: int) -> None:
        self._workers = [_Process(pickle.dumps(make), number, count) for number in range(count)]
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._changing = threading.Lock()
        self._closed = False

    def __enter__(self) -> WorkerPool:
        try:
            for worker in self._workers:
                worker.start()
            for worker in self._workers:
                worker.await_ready()
                self._idle.put(worker)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def extract(self, jobs: list[Job], tally: Tally) -> ShardReport:
        """Extract a shard in the next free worker. Several threads may call this.

        Raises:
            WorkerDiedError: the worker ended; a new one has taken its place.
            PoolClosedError: the pool was closed in the meantime.
            Exception: the error that the worker raised.
        """
        tally.done = tally.failed = 0
        worker = self._idle.get()
        try:
            if self._closed:
                raise PoolClosedError
            return self._converse(worker, jobs, tally)
        finally:
            self._idle.put(worker)

    def _converse(self, worker: _Process, jobs: list[Job], tally: Tally) -> ShardReport:
        try:
            worker.connection.send(jobs)
            while isinstance(message := worker.hear(), VideoDone):
                tally.done, tally.failed = tally.done + 1, tally.failed + (not message.ok)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            with self._changing:
                if self._closed:
                    raise PoolClosedError from None
                how = worker.stop()
                worker.start()
            worker.await_ready()
            raise WorkerDiedError(f"a worker process {how} during a shard") from None
        if isinstance(message, Exception):
            raise message
        if isinstance(message, Ready):
            raise RuntimeError("a worker process reported twice that it is ready")
        return message

    def _close(self) -> None:
        with self._changing:
            self._closed = True
            for worker in self._workers:
                worker.hang_up()
        for worker in self._workers:
            worker.stop()


class _Process:
    """The parent's side of one worker process."""

    def __init__(self, make: bytes, number: int, count: int) -> None:
        self._make, self._number, self._count = make, number, count
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ours, theirs = socket.socketpair()
        # Not multiprocessing: its children reimport the main module. `take_share` comes first: NumPy starts threads.
        code = (
            f"from flows.extraction.cores import take_share; take_share({self._number}, {self._count}); "
            f"from flows.extraction.process import serve; serve({theirs.fileno()})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        self._socket = ours  # only a socket can be shut down while another thread listens to it
        self.connection = Connection(os.dup(ours.fileno()))
        self.connection.send_bytes(self._make)

    def await_ready(self) -> None:
        try:
            message = self.hear()
        except (EOFError, ConnectionResetError):
            raise WorkerDiedError(f"a worker process cannot start: it {self.stop()}") from None
        if isinstance(message, Exception):
            raise message

    def hear(self) -> Ready | VideoDone | ShardReport | Exception:
        """Receive the worker's next message. Raises EOFError or ConnectionResetError if the worker has ended."""
        message: Ready | VideoDone | ShardReport | Exception = self.connection.recv()
        return message

    def hang_up(self) -> None:
        """Ask the worker to end, and wake up the thread that listens to it."""
        if self._process is not None:
            with suppress(OSError):  # it has already ended
                self._socket.shutdown(socket.SHUT_RDWR)

    def stop(self) -> str:
        """Wait for the worker to end, or kill it; return in words how it ended."""
        if self._process is None:
            return "was never started"
        try:
            self._process.wait(STOP_LIMIT_S + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        status = self._process.returncode
        return f"ended by signal {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

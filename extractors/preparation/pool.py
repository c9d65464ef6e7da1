"""Child processes that prepare videos ahead of the networks, and that may crash or hang without harm.

Each child has a connection for small messages and a block of shared memory, divided into slots, for windows of motion.
A child that finds no free slot waits, which bounds the memory.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import numpy as np

from extractors.errors import Fault, VideoError, undecodable
from extractors.faces.crops import Window
from extractors.faces.track import FaceTrack
from extractors.networks import SIDE_PX
from extractors.preparation.preparer import FaceCrop, Frame, Motion, Part, PreparationSettings, Request
from extractors.video.digests import FileWatch

log = logging.getLogger(__name__)

SLOTS = 2  # one window is computed while another waits for the network
# Bytes that a child can send before the parent listens, if the system allows so many: 16 face crops. With fewer, it
# waits in the middle of its first windows of motion.
SENT_AHEAD_BYTES = 16 * SIDE_PX * SIDE_PX * 3
HEAD_BYTES = mmap.PAGESIZE  # in front of the slots: a counter of progress
# How often a silent child is checked.
CHECK_INTERVAL_S = 1.0
# Exit status of a child whose video exceeds its memory limit.
OUT_OF_MEMORY = 71
# A child that the system killed (out of memory, perhaps because of other programs) deserves a second try.
TRIES = 2
# Each core has its own child, and these threads speed up nothing in a child. Each would reserve address space
# (OpenBLAS, which NumPy and OpenCV both bring: 40 MiB and 130 MiB), which counts as memory. Libraries read these
# variables when they are imported.
THREADED = ("OPENBLAS", "OMP", "MKL", "BLIS", "NUMEXPR", "NUMBA")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in THREADED} | {"VECLIB_MAXIMUM_THREADS": "1"}


@dataclass(frozen=True)
class Finished:
    """All parts of a video have been sent; how long each stage took, in seconds."""

    seconds: dict[str, float]


@dataclass(frozen=True)
class Again:
    """The video is prepared from its beginning again; discard the parts that came before."""


@dataclass(frozen=True)
class InSlot:
    """Stands for a window of motion whose values are in the shared memory."""

    window: Window
    slot: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Ready:
    """A child's first message: it has loaded everything that it needs."""


def slot_bytes(settings: PreparationSettings) -> int:
    """Return the size of one slot: two float32 per pixel and field; grey frames need less."""
    size = settings.crops.window_fields * SIDE_PX * SIDE_PX * 2 * 4
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class PreparerPool:
    """Prepare videos in child processes, several at a time. Use it as a context manager.

    Args:
        processes: how many children, at least 1.
        stall_s: seconds without progress after which a child counts as hung.
    """

    def __init__(self, settings: PreparationSettings, processes: int, stall_s: float) -> None:
        self._settings, self._stall_s = settings, stall_s
        self._children = [_Child(settings) for _ in range(processes)]

    def __enter__(self) -> PreparerPool:
        with ExitStack() as running:
            for child in self._children:
                child.start()
                running.callback(child.stop)
            self._running = running.pop_all()
        return self

    def __exit__(self, *reason: object) -> None:
        for child in self._children:
            child.connection.close()  # so that all end at the same time
        self._running.close()
        for child in self._children:
            child.task = None  # a generator of parts that is closed later must start no child again

    def prepare(
        self, requests: Iterable[Request], meanwhile: Callable[[], object] = lambda: None
    ) -> Iterator[tuple[int, Part | Again | Finished | VideoError]]:
        """Yield the parts of all videos as they arrive; those of one video are in order.

        Args:
            requests: the videos; read one at a time, when a child is free.
            meanwhile: called once when the children have their first videos, before anybody listens to them.

        Yields:
            (number of the request, part). `Finished` or a `VideoError` is the last of each request. The array of a
            `Motion` is valid until the next item is requested. A fault of the program is logged and becomes a
            `VideoError` with stage "extract", reason "internal_error".
        """
        waiting = enumerate(requests)
        try:
            self._hand_out(waiting)
            meanwhile()
            for child in self._children:
                child.watch()
            while self._hand_out(waiting):
                for child, task in self._speaking():
                    yield from self._listen(child, task)
        finally:
            for child in self._children:
                if child.task is not None:
                    child.restart()

    def _hand_out(self, waiting: Iterator[tuple[int, Request]]) -> bool:
        """Give every idle child a video; return whether any child is at work."""
        for child in self._children:
            if child.task is None and (following := next(waiting, None)) is not None:
                child.take(*following)
        return any(child.task is not None for child in self._children)

    def _speaking(self) -> list[tuple[_Child, _Task]]:
        """Return the children that have sent something, have died or are overdue, with their tasks."""
        busy = [(child, child.task) for child in self._children if child.task is not None]
        ready = wait([child.connection for child, _ in busy], timeout=CHECK_INTERVAL_S)
        return [(child, task) for child, task in busy if child.connection in ready or self._overdue(child, task)]

    def _overdue(self, child: _Child, task: _Task) -> str:
        """Return the reason for giving up the child's video; empty if there is none."""
        name, most = task.request.path.name, self._settings.limits.wall_s
        if time.monotonic() - child.began > most:
            return f"preparing {name} takes longer than limits.wall_s allows ({most:g} s)"
        # A child with a message waiting has made progress, however long nobody has listened to it.
        if not child.connection.poll() and child.still_s() > self._stall_s:
            return f"no progress in {name} for {self._stall_s:g} s"
        return ""

    def _listen(self, child: _Child, task: _Task) -> Iterator[tuple[int, Part | Again | Finished | VideoError]]:
        if why := self._overdue(child, task):
            child.restart()
            yield task.number, task.file.change() or undecodable("timeout", why)
            return
        try:
            message = child.hear()
        except (EOFError, OSError):  # OSError: it died while sending
            yield from self._bury(child, task)
            return
        match message:
            case Ready():
                return
            case InSlot():
                yield task.number, child.motion(message)
                child.send(message.slot)
            case Finished() | VideoError():
                child.task = None
                yield task.number, message
            case Fault() if not child.ready:
                raise RuntimeError(f"a process that prepares videos cannot start: {message.summary}")
            case Fault():
                log.error("a fault of the program at %s:\n%s", task.request.path, message.trace)
                child.task = None
                yield task.number, message.refusal()
            case FaceTrack() | Frame() | FaceCrop() | Motion():
                yield task.number, message

    def _bury(self, child: _Child, task: _Task) -> Iterator[tuple[int, Again | VideoError]]:
        """Replace a dead child, and try its video again or refuse it."""
        if not child.ready:
            raise RuntimeError(f"a process that prepares videos cannot start ({_ended(child.stop())})")
        status, name, limits = child.restart(), task.request.path.name, self._settings.limits
        if status == -signal.SIGKILL and task.tries < TRIES:
            yield task.number, Again()
            child.take(task.number, task.request, task.tries + 1)
            return
        if status == -signal.SIGXCPU:
            reason = "timeout"
            message = f"preparing {name} takes more processor time than limits.cpu_s allows ({limits.cpu_s:g} s)"
        elif status == OUT_OF_MEMORY:
            reason = "too_large"
            message = f"preparing {name} takes more memory than limits.memory_mb allows ({limits.memory_mb})"
        else:
            reason, message = "decoder_crashed", f"decoding {name} {_ended(status)}"
        yield task.number, task.file.change() or undecodable(reason, message)


@dataclass(frozen=True)
class _Task:
    """A video that a child works on.

    Args:
        file: its file, watched since the task began.
        tries: how often the video was begun, this time included.
    """

    number: int
    request: Request
    file: FileWatch
    tries: int


class _Child:
    """One child process as its parent sees it.

    Attributes:
        task: None while the child is idle.
        ready: whether it has started well.
        began: since when its video's time counts, by the monotonic clock.
    """

    def __init__(self, settings: PreparationSettings) -> None:
        self._settings = settings
        self.task: _Task | None = None
        self.ready = False

    def start(self) -> None:
        """Start the process; it reports later that it is ready."""
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD_BYTES)
        # Never closed explicitly: a caller may still hold a window inside it.
        memory = _anonymous_file(HEAD_BYTES + SLOTS * slot_bytes(self._settings))
        self._memory = mmap.mmap(memory, 0)
        # Not multiprocessing: its children import the main module again, and with it Prefect and TensorFlow.
        code = f"from extractors.preparation.child import serve; serve({theirs.fileno()}, {memory})"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, **ONE_THREAD},
                pass_fds=[theirs.fileno(), memory],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        finally:
            theirs.close()
            os.close(memory)
        self.ready = False
        self.connection = Connection(ours.detach())
        self.send(self._settings)

    def stop(self) -> int:
        """End the child, by force if it does not end by itself; return its exit status."""
        self.connection.close()
        try:
            status = self._process.wait(timeout=0 if self.task is not None else 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return status

    def restart(self) -> int:
        """Replace a child that is dead or must be given up; return the old one's exit status."""
        status = self.stop()
        self.task = None
        self.start()
        return status

    def take(self, number: int, request: Request, tries: int = 1) -> None:
        """Send the child a video."""
        file = FileWatch(request.path, request.sha256)
        if not self.send(request) and self.ready:
            # It died while it was idle, which is not this video's fault.
            self.restart()
            self.send(request)
        self.task = _Task(number, request, file, tries)
        self.watch()

    def watch(self) -> None:
        """Count the time of its video from now on. A child that nobody listens to may have to wait."""
        self.began = time.monotonic()
        self._moved()

    def send(self, message: object) -> bool:
        """Send a message; return whether it was sent. `hear` reports a dead child."""
        try:
            self.connection.send(message)
        except OSError:  # also if it could not be started again
            return False
        return True

    def hear(self) -> object:
        """Return the child's next message. Raises EOFError or OSError if it is dead."""
        message = self.connection.recv()
        self.ready = self.ready or isinstance(message, Ready)
        self._moved()
        return message

    def motion(self, message: InSlot) -> Motion:
        """Return the window in a slot, without copying it."""
        offset = HEAD_BYTES + message.slot * slot_bytes(self._settings)
        count = int(np.prod(message.shape))
        fields = np.frombuffer(self._memory, message.dtype, count, offset).reshape(message.shape)
        return Motion(message.window, fields)

    def still_s(self) -> float:
        """Return the seconds since the child's last progress."""
        if int.from_bytes(self._memory[:8], sys.byteorder) != self._counted:
            self._moved()
        return time.monotonic() - self._since

    def _moved(self) -> None:
        self._counted, self._since = int.from_bytes(self._memory[:8], sys.byteorder), time.monotonic()


def _anonymous_file(size: int) -> int:
    """Open a file without a name and return its descriptor: nothing remains of it, however the processes end."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("traitline-windows")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


def _ended(status: int) -> str:
    return f"ended by signal {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

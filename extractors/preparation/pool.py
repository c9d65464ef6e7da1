"""Child processes that prepare videos ahead of the networks, and that may crash or hang without harm.

Every child has a connection for small messages and a block of shared memory, cut into slots, for windows of motion. A
child that finds no free slot waits: that is what bounds the memory.
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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import numpy as np

from extractors.errors import Fault, VideoError
from extractors.faces.crops import SIDE_PX, Window
from extractors.preparation.preparer import Motion, Part, PreparationSettings, Request
from extractors.video.digests import FileWatch

log = logging.getLogger(__name__)

SLOTS = 2  # one window is computed while another waits for the network
HEAD_BYTES = mmap.PAGESIZE  # in front of the slots: a counter of progress
# A child is looked at this often while it says nothing.
LOOK_S = 1.0
# Exit status of a child whose video takes more memory than it may.
OUT_OF_MEMORY = 71
# A child that nobody but the system has killed (out of memory, perhaps through others) is worth a second try.
TRIES = 2
# Every core has a child of its own, and nothing in a child gains from these threads. Each would reserve address space
# (OpenBLAS, which both NumPy and OpenCV bring: 40 MiB and 130 MiB), which counts as memory. Libraries read this when
# they are imported, whatever is set outside.
ONE_THREAD = dict.fromkeys(
    [
        *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
        *("NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"),
    ],
    "1",
)


@dataclass(frozen=True)
class Finished:
    """A video's parts are all there; how long that took by stage, in seconds."""

    seconds: dict[str, float]


@dataclass(frozen=True)
class Again:
    """The video is prepared from its beginning again; what came of it so far does not count."""


@dataclass(frozen=True)
class InSlot:
    """Stands for a window of motion whose numbers lie in the shared memory."""

    window: Window
    slot: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Ready:
    """A child's first words: everything it needs is there."""


def slot_bytes(settings: PreparationSettings) -> int:
    """Room for one window: two float32 per pixel and field; grey frames need less."""
    size = settings.crops.window_fields * SIDE_PX * SIDE_PX * 2 * 4
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class PreparerPool:
    """Prepare videos in child processes, several at a time. Use it as a context manager.

    Args:
        settings: how videos are prepared.
        processes: how many children, at least 1.
        stall_s: seconds without progress after which a child is taken to hang.
    """

    def __init__(self, settings: PreparationSettings, processes: int, stall_s: float) -> None:
        self._settings, self._stall_s = settings, stall_s
        self._children = [_Child(settings) for _ in range(processes)]

    def __enter__(self) -> PreparerPool:
        for child in self._children:
            child.start()
        return self

    def __exit__(self, *reason: object) -> None:
        for child in self._children:
            child.stop()

    def prepare(self, requests: Iterable[Request]) -> Iterator[tuple[int, Part | Again | Finished | VideoError]]:
        """Give the parts of all videos as they come, those of one video in their order.

        Args:
            requests: the videos; asked for one at a time, when a child is free.

        Yields:
            (number of the request, part). `Finished` or a `VideoError` is the last of each request. The array of a
            `Motion` is valid until the next item is asked for. A fault of the program is logged, and a `VideoError`
            with stage "extract", reason "internal_error".
        """
        waiting = enumerate(requests)
        try:
            while self._hand_out(waiting):
                for child in self._speaking():
                    yield from self._listen(child)
        finally:
            for child in self._children:
                if child.request is not None:
                    child.restart()

    def _hand_out(self, waiting: Iterator[tuple[int, Request]]) -> bool:
        """Give every idle child a video, and say whether any is at work."""
        for child in self._children:
            if child.request is None and (following := next(waiting, None)) is not None:
                child.take(*following)
        return any(child.request is not None for child in self._children)

    def _speaking(self) -> list[_Child]:
        """Children that have something to say, or nothing more."""
        busy = {child.connection: child for child in self._children if child.request is not None}
        ready = [busy[connection] for connection in wait(list(busy), timeout=LOOK_S)]
        return ready + [child for child in busy.values() if child not in ready and self._overdue(child)]

    def _overdue(self, child: _Child) -> str:
        """Why a child's video must be given up; empty if it need not."""
        name, most = child.request.path.name, self._settings.limits.wall_s
        if time.monotonic() - child.began > most:
            return f"preparing {name} takes longer than limits.wall_s allows ({most:g} s)"
        # Who has something to say has moved on, however long it was not listened to.
        if not child.connection.poll() and child.still_s() > self._stall_s:
            return f"no progress in {name} for {self._stall_s:g} s"
        return ""

    def _listen(self, child: _Child) -> Iterator[tuple[int, Part | Again | Finished | VideoError]]:
        number = child.number
        if why := self._overdue(child):
            file = child.file
            child.restart()
            yield number, file.change() or VideoError("decode", "timeout", why)
            return
        try:
            message = child.hear()
        except (EOFError, OSError):  # OSError: in the midst of a message
            yield from self._bury(child)
            return
        match message:
            case Ready():
                return
            case InSlot():
                yield number, child.motion(message)
                child.send(message.slot)
                return
            case Finished() | VideoError():
                child.request = None
            case Fault():
                log.error("a fault of the program at %s:\n%s", child.request.path, message.trace)
                child.request, message = None, message.refusal()
        yield number, message

    def _bury(self, child: _Child) -> Iterator[tuple[int, Again | VideoError]]:
        number, request, tries, file = child.number, child.request, child.tries, child.file
        if not child.ready:
            raise RuntimeError(f"a process that prepares videos cannot start ({_ended(child.stop())})")
        status = child.restart()
        if status == -signal.SIGKILL and tries < TRIES:
            yield number, Again()
            child.take(number, request, tries + 1)
        elif status == -signal.SIGXCPU:
            most = self._settings.limits.cpu_s
            message = f"preparing {request.path.name} takes more processor time than limits.cpu_s allows ({most:g} s)"
            yield number, file.change() or VideoError("decode", "timeout", message)
        elif status == OUT_OF_MEMORY:
            most_mb = self._settings.limits.memory_mb
            message = f"preparing {request.path.name} takes more memory than limits.memory_mb allows ({most_mb})"
            yield number, file.change() or VideoError("decode", "too_large", message)
        else:
            message = f"decoding {request.path.name} {_ended(status)}"
            yield number, file.change() or VideoError("decode", "decoder_crashed", message)


@dataclass
class _Child:
    """One child process as its parent sees it.

    Attributes:
        number, request: what it is working on; None for the request while it is idle.
        file: the request's, watched since.
        tries: how often that was begun.
        ready: whether it has started well.
        began: when it was given its request, by the monotonic clock.
    """

    settings: PreparationSettings
    number: int = 0
    request: Request | None = None
    file: FileWatch | None = None
    tries: int = 1
    ready: bool = False
    began: float = 0.0

    def start(self) -> None:
        """Start the process; `ready` comes later, by itself."""
        ours, theirs = socket.socketpair()
        # Never closed by hand: somebody may still hold a window that lies in it.
        memory = _anonymous_file(HEAD_BYTES + SLOTS * slot_bytes(self.settings))
        self._memory = mmap.mmap(memory, 0)
        # Not multiprocessing: its children import the main module again, and with it Prefect and TensorFlow.
        code = f"from extractors.preparation.child import serve; serve({theirs.fileno()}, {memory})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **ONE_THREAD},
            pass_fds=[theirs.fileno(), memory],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        os.close(memory)
        self.ready = False
        self.connection = Connection(ours.detach())
        self.send(self.settings)

    def stop(self) -> int:
        """Let the child end, by force if it does not at once; return its exit status."""
        self.connection.close()
        try:
            status = self._process.wait(timeout=0 if self.request is not None else 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return status

    def restart(self) -> int:
        """Replace a child that is dead, or that must be given up; return the old one's exit status."""
        status = self.stop()
        self.request = None
        self.start()
        return status

    def take(self, number: int, request: Request, tries: int = 1) -> None:
        """Begin with a video."""
        self.file = FileWatch(request.path, request.sha256)
        if not self.send(request) and self.ready:
            # It died while it had nothing to do, which is not this video's fault.
            self.restart()
            self.send(request)
        self.number, self.request, self.tries = number, request, tries
        self.began = time.monotonic()
        self._moved()

    def send(self, message: object) -> bool:
        """Whether the message went out; that a child is dead is seen when it is heard next."""
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def hear(self) -> object:
        """Take the child's next message. Raises EOFError or OSError if it is dead."""
        message = self.connection.recv()
        self.ready = True
        self._moved()
        return message

    def motion(self, message: InSlot) -> Motion:
        """The window that lies in a slot, without a copy."""
        offset = HEAD_BYTES + message.slot * slot_bytes(self.settings)
        count = int(np.prod(message.shape))
        fields = np.frombuffer(self._memory, message.dtype, count, offset).reshape(message.shape)
        return Motion(message.window, fields)

    def still_s(self) -> float:
        """For how long the child has been seen not to move on, in seconds."""
        if int.from_bytes(self._memory[:8], sys.byteorder) != self._counted:
            self._moved()
        return time.monotonic() - self._since

    def _moved(self) -> None:
        self._counted, self._since = int.from_bytes(self._memory[:8], sys.byteorder), time.monotonic()


def _anonymous_file(size: int) -> int:
    """A descriptor of a file without a name: nothing is left of it, however the processes end."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("traitline-windows")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


def _ended(status: int) -> str:
    return f"ended by signal {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

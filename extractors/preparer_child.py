"""What runs in a child process of `extractors.preparer_pool`."""

from __future__ import annotations

import errno
import faulthandler
import mmap
import resource
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection

import cv2
import numpy as np

from extractors.errors import VideoError
from extractors.limits import Limits
from extractors.offline_thread import give_up_network
from extractors.preparation import Motion, Part, Preparer, Request
from extractors.preparer_pool import HEAD_BYTES, SLOTS, Finished, InSlot, Ready, slot_bytes
from extractors.stopwatch import Stopwatch


def serve(connection_fd: int, memory_fd: int) -> None:
    """Prepare the videos that the parent asks for, until it closes the connection."""
    # Ctrl-C goes to the whole group of processes; the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    # Decoders read what strangers made; neither they nor MediaPipe have any business on a network.
    give_up_network()
    # MediaPipe would import TensorFlow for a decorator of its documentation: seconds, and hundreds of megabytes.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]
    connection = Connection(connection_fd)
    memory = mmap.mmap(memory_fd, 0)
    try:
        settings = connection.recv()
        _bound(resource.RLIMIT_DATA, settings.limits.memory_mb * 2**20)
        progress = np.frombuffer(memory, np.uint64, 1)

        def count() -> None:
            progress[0] += 1

        slots = _Slots(connection, memory, slot_bytes(settings))
        with Preparer(settings, count) as preparer:
            connection.send(Ready())
            while True:
                request = slots.next_request()
                _bound(resource.RLIMIT_CPU, int(time.process_time() + settings.limits.cpu_s) + 1)
                _answer(preparer, request, slots, settings.limits)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has gone, or needs no more


def _bound(what: int, most: int) -> None:
    """Set a soft limit of this process, as far as the system's hard one lets it."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(preparer: Preparer, request: Request, slots: _Slots, limits: Limits) -> None:
    watch = Stopwatch()
    try:
        for part in preparer.prepare(request, watch):
            slots.send(part)
    except VideoError as error:
        slots.connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        if _is_lack_of_memory(error):
            message = (
                f"preparing {request.path.name} takes more memory than limits.memory_mb allows ({limits.memory_mb})"
            )
            slots.connection.send(VideoError("decode", "too_large", message))
            sys.exit()  # who knows what else got none
        error.add_note(f"in a child process, at {request.path.name}:\n{traceback.format_exc()}")
        slots.connection.send(error)
    else:
        slots.connection.send(Finished(dict(watch.seconds)))


def _is_lack_of_memory(error: Exception) -> bool:
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, cv2.error) and error.code == cv2.Error.STS_NO_MEM)
    )


class _Slots:
    """Sends parts to the parent: windows of motion through the shared memory, all else over the connection."""

    def __init__(self, connection: Connection, memory: mmap.mmap, size: int) -> None:
        self.connection = connection
        self._memory, self._size = memory, size
        self._free = list(range(SLOTS))

    def next_request(self) -> Request:
        """Wait for the parent's next request, which comes after all slots of the last one are free again."""
        while isinstance(message := self.connection.recv(), int):
            self._free.append(message)
        return message

    def send(self, part: Part) -> None:
        """Pass on one part of a video; waits where all slots are full."""
        if not isinstance(part, Motion):
            self.connection.send(part)
            return
        # While a request is being answered, all that the parent sends are slots that it is done with.
        while not self._free or self.connection.poll():
            self._free.append(self.connection.recv())
        slot = self._free.pop()
        fields = part.fields
        target = np.frombuffer(self._memory, fields.dtype, fields.size, HEAD_BYTES + slot * self._size)
        target.reshape(fields.shape)[:] = fields
        self.connection.send(InSlot(part.window, slot, fields.shape, fields.dtype.str))

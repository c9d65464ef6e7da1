"""What runs in a child process of `extractors.preparer_pool`."""

from __future__ import annotations

import faulthandler
import mmap
import signal
import sys
import traceback
from multiprocessing.connection import Connection

import numpy as np

from extractors.errors import VideoError
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
        progress = np.frombuffer(memory, np.uint64, 1)

        def count() -> None:
            progress[0] += 1

        slots = _Slots(connection, memory, slot_bytes(settings))
        with Preparer(settings, count) as preparer:
            connection.send(Ready())
            while True:
                _answer(preparer, slots.next_request(), slots)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has gone, or needs no more


def _answer(preparer: Preparer, request: Request, slots: _Slots) -> None:
    watch = Stopwatch()
    try:
        for part in preparer.prepare(request, watch):
            slots.send(part)
    except VideoError as error:
        slots.connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        error.add_note(f"in a child process, at {request.path.name}:\n{traceback.format_exc()}")
        slots.connection.send(error)
    else:
        slots.connection.send(Finished(dict(watch.seconds)))


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

"""The program of a child process of `extractors.preparation.pool`."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from types import ModuleType

import av
import cv2
import numpy as np

from extractors.errors import Fault, VideoError
from extractors.faces.offline import give_up_network
from extractors.memory import MemoryLimit, is_lack_of_memory, limit_resource
from extractors.preparation.pool import HEAD_BYTES, OUT_OF_MEMORY, SLOTS, Finished, InSlot, Ready, slot_bytes
from extractors.preparation.preparer import Motion, Part, Preparer, Request
from extractors.preparation.stopwatch import Stopwatch
from extractors.video.digests import FileWatch

# Memory of a thread that computes optical flow: 8 MiB of planes, and as much for its stack.
THREAD_BYTES = 16 * 2**20


def serve(connection_fd: int, memory_fd: int) -> None:
    """Prepare the videos that the parent requests, until it closes the connection."""
    # Ctrl-C reaches the whole process group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    _start_no_threads()
    # MediaPipe imports TensorFlow only to decorate its documentation, which takes seconds and hundreds of megabytes,
    # and Matplotlib, half of its start, only to draw.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]
    sys.modules |= {name: ModuleType(name) for name in ("matplotlib", "matplotlib.pyplot")}
    connection = Connection(connection_fd)
    memory = mmap.mmap(memory_fd, 0)
    try:
        settings = connection.recv()
        progress = np.frombuffer(memory, np.uint64, 1)

        def count() -> None:
            progress[0] += 1

        slots = _Slots(connection, memory, slot_bytes(settings))
        with ExitStack() as resources:
            try:
                # Decoders read untrusted files; neither they nor MediaPipe need a network.
                give_up_network()
                preparer = resources.enter_context(Preparer(settings, count))
            except Exception as error:
                connection.send(Fault.of(error))
                raise
            connection.send(Ready())
            memory_limit = MemoryLimit(OUT_OF_MEMORY)
            while True:
                request = slots.next_request()
                limit_resource(resource.RLIMIT_CPU, int(time.process_time() + settings.limits.cpu_s) + 1)
                # Set again for each video, so that caches filled by earlier videos do not count against it.
                memory_limit.allow(settings.limits.memory_mb * 2**20 + request.threads * THREAD_BYTES)
                _answer(preparer, request, slots, count)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has ended, or needs nothing more


def _start_no_threads() -> None:
    """Keep OpenCV and FFmpeg from starting a thread per core; environment variables do the same for NumPy.

    Each core has its own process, in which two threads decode a clip no faster than one, with a tenth more work.
    """
    cv2.setNumThreads(1)
    # PyAV's own setting is for decoders only; this one also applies to filters and converters.
    ctypes.CDLL(av._core.__file__).av_cpu_force_count(1)


def _answer(preparer: Preparer, request: Request, slots: _Slots, on_progress: Callable[[], None]) -> None:
    watch, file = Stopwatch(), FileWatch(request.path, request.sha256)
    end: Finished | VideoError | Fault
    try:
        for part in preparer.prepare(request, watch):
            slots.send(part)
        end = Finished(dict(watch.seconds))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        # Check this first: a lack of memory can surface as any error.
        if is_lack_of_memory(error):
            os._exit(OUT_OF_MEMORY)  # other parts of the process may have failed as well
        end = error if isinstance(error, VideoError) else Fault.of(error)
    # If the file could not be opened, nothing else was read from it either.
    if not (isinstance(end, VideoError) and end.reason == "unreadable"):
        end = file.change(on_progress) or end
    slots.connection.send(end)


class _Slots:
    """Sends parts to the parent: windows of motion through shared memory, everything else over the connection."""

    def __init__(self, connection: Connection, memory: mmap.mmap, size: int) -> None:
        self.connection = connection
        self._memory, self._size = memory, size
        self._free = list(range(SLOTS))

    def next_request(self) -> Request:
        """Wait for the parent's next request. Before it, all slots of the last request become free."""
        while not isinstance(message := self.connection.recv(), Request):
            self._free.append(message)
        return message

    def send(self, part: Part) -> None:
        """Send one part of a video; wait if all slots are full."""
        if not isinstance(part, Motion):
            self.connection.send(part)
            return
        # While a request is being answered, the parent sends nothing but the slots that it has finished with.
        while not self._free or self.connection.poll():
            self._free.append(self.connection.recv())
        slot = self._free.pop()
        fields = part.fields
        target = np.frombuffer(self._memory, fields.dtype, fields.size, HEAD_BYTES + slot * self._size)
        target.reshape(fields.shape)[:] = fields
        self.connection.send(InSlot(part.window, slot, fields.shape, fields.dtype.str))

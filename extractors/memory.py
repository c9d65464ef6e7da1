"""How much memory this process may use, and what it is like when there is no more."""

from __future__ import annotations

import errno
import math
import mmap
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from extractors.errors import VideoError

# How often a process looks how much it has. In that time it can fill some 100 MiB.
_LOOK_S = 0.01
# Beyond the limit, up to where allocations fail: more than any one step takes on the way to the next look.
_MARGIN_BYTES = 2**30


class MemoryLimit:
    """Ends this process when it has taken more memory than it may.

    Some libraries do not bear an allocation that fails: MediaPipe crashes or waits for ever, and FFmpeg's H.264 decoder
    takes the picture for a broken one. Hence allocations fail only far beyond the limit, and a thread looks whether it
    has been passed. What counts is private memory that can be written to, touched or not: the kernel counts it exactly,
    where it estimates resident memory the more roughly the more cores there are. So nothing may reserve memory by the
    number of cores.

    Args:
        status: exit status of the process that has passed its limit.
    """

    def __init__(self, status: int) -> None:
        self._status, self._most = status, math.inf
        threading.Thread(target=self._look, name="memory limit", daemon=True).start()

    def allow(self, more_bytes: int) -> None:
        """Let this process take so much beyond what it has now, which is what its libraries hold."""
        most = _data_bytes() + more_bytes
        self._most = most
        limit_resource(resource.RLIMIT_DATA, most + _MARGIN_BYTES)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            if _data_bytes() > self._most:
                os._exit(self._status)


def limit_resource(what: int, most: int) -> None:
    """Set a soft limit of this process, as far as the hard one lets it."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def is_lack_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that there was not enough memory."""
    while error is not None:
        if (
            isinstance(error, MemoryError)  # FFmpeg's is one, too
            or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
            or (isinstance(error, cv2.error) and (error.code == cv2.Error.STS_NO_MEM or "bad_alloc" in str(error)))
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def not_enough_for(path: Path | str) -> VideoError:
    """The refusal of a video that cannot be decoded for lack of memory."""
    return VideoError("decode", "too_large", f"there is not enough memory to decode {Path(path).name}")


@contextmanager
def refusing_lack_of_memory(path: Path | str) -> Iterator[None]:
    """Turn a lack of memory in the block into `not_enough_for` the video."""
    try:
        yield
    except Exception as error:
        if is_lack_of_memory(error):
            raise not_enough_for(path) from error
        raise


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA at present, and the stack; 0 on systems that do not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * mmap.PAGESIZE
    except OSError:
        return 0

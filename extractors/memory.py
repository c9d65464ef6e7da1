"""A limit on the memory of this process, and errors that mean a lack of memory."""

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

from extractors.errors import VideoError, undecodable

# Interval between checks, in which a process can fill some 100 MiB.
_CHECK_INTERVAL_S = 0.01
# Allocations fail this far beyond the limit: more than any step allocates between two checks.
_MARGIN_BYTES = 2**30


class MemoryLimit:
    """Ends this process when it exceeds its memory limit.

    Some libraries do not tolerate a failed allocation: MediaPipe crashes or waits forever, and FFmpeg's H.264 decoder
    reports a broken picture. Allocations therefore fail only far beyond the limit, and a thread checks whether the
    limit is exceeded. Private writable memory counts, touched or not: the kernel counts it exactly, whereas its
    estimate of resident memory gets rougher with more cores. So nothing may reserve memory in proportion to the
    number of cores.
    """

    def __init__(self, status: int) -> None:
        self._status, self._most = status, math.inf
        threading.Thread(target=self._look, name="memory limit", daemon=True).start()

    def allow(self, more_bytes: int) -> None:
        """Let this process allocate this much in addition to what it holds now."""
        most = _data_bytes() + more_bytes
        self._most = most
        limit_resource(resource.RLIMIT_DATA, most + _MARGIN_BYTES)

    def _look(self) -> None:
        while True:
            time.sleep(_CHECK_INTERVAL_S)
            if _data_bytes() > self._most:
                os._exit(self._status)


def limit_resource(resource_id: int, most: int) -> None:
    """Set a soft limit of this process, as far as the hard limit allows."""
    _, hard = resource.getrlimit(resource_id)
    resource.setrlimit(resource_id, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def is_lack_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, reports a lack of memory."""
    while error is not None:
        if (
            isinstance(error, MemoryError)  # FFmpeg's is one as well
            or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
            or (isinstance(error, cv2.error) and (error.code == cv2.Error.STS_NO_MEM or "bad_alloc" in str(error)))
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def not_enough_for(path: Path | str) -> VideoError:
    """Return the refusal of a video that lacks the memory to be decoded."""
    return undecodable("too_large", f"there is not enough memory to decode {Path(path).name}")


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
    """Return the bytes that count against RLIMIT_DATA, plus the stack; 0 on systems that do not report them."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * mmap.PAGESIZE
    except OSError:
        return 0

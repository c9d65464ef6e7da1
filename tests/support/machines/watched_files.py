"""Asks the kernel how often files are opened or read, by whatever library."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_ACCESS, _IN_OPEN = 0x1, 0x20


@contextmanager
def opened(*files: Path) -> Iterator[list[int]]:
    """Count how often anybody opens or reads these files; the number is in the list after the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0
    for file in files:
        assert libc.inotify_add_watch(descriptor, os.fsencode(file), _IN_ACCESS | _IN_OPEN) >= 0
    count: list[int] = []
    try:
        yield count
        try:
            count.append(len(os.read(descriptor, 65536)) // 16)
        except BlockingIOError:
            count.append(0)
    finally:
        os.close(descriptor)

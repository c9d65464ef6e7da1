"""Work for engines: small, and it leaves notes in a folder. Dask's workers import this file."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.session.errors import UserError


@contextmanager
def squaring(notes: Path) -> Iterator:
    """Squares numbers; 13 always fails, 7 fails the first time, 99 is the user's mistake, and 0 kills its process."""
    (notes / f"opened {os.getpid()}").touch(exist_ok=False)

    def square(number: int, course) -> int:
        course.check()
        course.progress(1, number % 2)
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 99:
            raise UserError("99 is a mistake")
        if number == 13 or (number == 7 and not (notes / "7").exists()):
            (notes / "7").touch()
            raise ValueError(f"cannot square {number}")
        return number**2

    try:
        yield square
    finally:
        (notes / f"closed {os.getpid()}").touch(exist_ok=False)


@contextmanager
def looking_around() -> Iterator:
    """Tells which cores and GPU the process has, and which libraries counted them before it had them.

    NumPy did, but Dask has it start no threads.
    """
    counted = sorted({"cv2", "numba", "tensorflow"} & sys.modules.keys())

    def look(_: int, course) -> tuple[list[int], str | None, list[str]]:
        time.sleep(0.3)  # so that each process gets some
        return sorted(os.sched_getaffinity(0)), os.environ.get("CUDA_VISIBLE_DEVICES"), counted

    yield look


@contextmanager
def printing() -> Iterator:
    """Prints lines to the standard error as C++ libraries do."""

    def write(line: str, course) -> None:
        os.write(2, f"{line}\n".encode())

    yield write


@contextmanager
def forgetting() -> Iterator:
    """Does nothing with its items."""
    yield lambda _, course: None

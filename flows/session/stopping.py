"""Remembers that Ctrl-C or a scheduler asked for a stop: the interrupted code may swallow the exception.

A process that does not end within `LIMIT_S`, because something in it blocks, is ended all the same. This loses nothing,
because every file is written completely or not at all. The state belongs to the module, as signal handlers belong to
the process.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from types import FrameType
from typing import NoReturn

from flows.session import console

LIMIT_S = 26.0  # container engines and schedulers kill after 30 s or more
EXIT_INTERRUPTED = 130
REPEATED_S = 1.0  # programs that start others, such as `uv run`, pass on a Ctrl-C that the terminal sends to both
_LOOK_S = 0.1

_asked = threading.Event()
_put_off = threading.Event()


class _State:
    raised_at = -math.inf
    ends_itself = False


def listen(*, ends_itself: bool = False) -> None:
    """From now on, remember SIGINT and SIGTERM, and raise KeyboardInterrupt in the main thread.

    Args:
        ends_itself: whether the caller limits how long stopping takes, and handles a second Ctrl-C, which then raises
            KeyboardInterrupt, too. Otherwise, the process ends after `LIMIT_S`, and at once at a second Ctrl-C.
    """
    _State.ends_itself = ends_itself
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    _watch()


def remember() -> None:
    """From now on, remember SIGTERM, and call its present handler, such as that of Prefect's engine."""
    handler = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        _asked.set()
        if callable(handler):
            handler(number, frame)

    signal.signal(signal.SIGTERM, note)
    _watch()


def asked() -> bool:
    """Return whether this process has been asked to stop."""
    return _asked.is_set()


def check() -> None:
    """Raise KeyboardInterrupt if this process has been asked to stop; the first one may have been swallowed."""
    if _asked.is_set():
        _State.raised_at = time.monotonic()  # the same stop may have been put off, and would interrupt the cleaning up
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    repeated = _asked.is_set()
    _asked.set()
    if _imports(frame):
        _put_off.set()
    elif time.monotonic() - _State.raised_at > REPEATED_S:
        if repeated and number == signal.SIGINT and not _State.ends_itself:
            _end("stopped by force")
        _State.raised_at = time.monotonic()
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    """Return whether an import is in progress: an exception would leave a module half imported, and locks held."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _watch() -> None:
    # Called in the main thread, like `signal.signal`. Started in advance, because the signal may arrive while the main
    # thread holds a lock that starting a thread needs.
    threading.Thread(target=_see_it_through, args=(threading.get_ident(),), daemon=True).start()


def _see_it_through(main_thread: int) -> None:
    _asked.wait()
    last_s = math.inf if _State.ends_itself else time.monotonic() + LIMIT_S
    while time.monotonic() < last_s:
        time.sleep(_LOOK_S)
        if _put_off.is_set():
            _put_off.clear()
            signal.pthread_kill(main_thread, signal.SIGTERM)
    _end("stopped without waiting longer")


def _end(how: str) -> NoReturn:
    console.last_words(f"traitline: {how}; finished work is kept, and nothing is half done")
    os._exit(EXIT_INTERRUPTED)

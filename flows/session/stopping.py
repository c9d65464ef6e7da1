"""A stop asked for by Ctrl-C or a scheduler, remembered: what it interrupts may swallow it, or call it a fault.

A process that was asked ends: where it has not within `LIMIT_S`, because something in it waits for what will never
come, it is ended by force. Nothing is lost by that, for what is written is there whole or not at all.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from flows.session import console

LIMIT_S = 26.0  # container engines and schedulers kill after 30 s or more
EXIT_INTERRUPTED = 130
_LOOK_S = 0.1

_asked = threading.Event()
_put_off = threading.Event()


def listen() -> None:
    """Take SIGINT and SIGTERM alike from now on: remember, and raise KeyboardInterrupt in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    _watch()


def remember() -> None:
    """Remember a SIGTERM from now on, and leave the rest to whoever takes it already, such as Prefect's engine."""
    taker = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        _asked.set()
        if callable(taker):
            taker(number, frame)

    signal.signal(signal.SIGTERM, note)
    _watch()


def asked() -> bool:
    """Whether this process has been asked to stop."""
    return _asked.is_set()


def check() -> None:
    """Raise KeyboardInterrupt where this process has been asked to stop, in case that the first one got lost."""
    if _asked.is_set():
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    _asked.set()
    if _imports(frame):
        _put_off.set()
    else:
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported: an exception out of the blue would leave it half there, and locks taken."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _watch() -> None:
    # Started before anybody asks: the signal may come where the main thread holds what is needed to start a thread.
    threading.Thread(target=_see_it_through, daemon=True).start()


def _see_it_through() -> None:
    _asked.wait()
    last_s = time.monotonic() + LIMIT_S
    while time.monotonic() < last_s:
        time.sleep(_LOOK_S)
        if _put_off.is_set():
            _put_off.clear()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    console.last_words("traitline: stopped by force; what is done is kept, and nothing is half done")
    os._exit(EXIT_INTERRUPTED)

"""A stop asked for by Ctrl-C or a scheduler, remembered: what it interrupts may swallow it, or call it a fault."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_asked = threading.Event()


def listen() -> None:
    """Take SIGINT and SIGTERM alike from now on: remember, and raise KeyboardInterrupt in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def remember() -> None:
    """Remember a SIGTERM from now on, and leave the rest to whoever takes it already, such as Prefect's engine."""
    taker = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        _asked.set()
        if callable(taker):
            taker(number, frame)

    signal.signal(signal.SIGTERM, note)


def asked() -> bool:
    """Whether this process has been asked to stop."""
    return _asked.is_set()


def check() -> None:
    """Raise KeyboardInterrupt where this process has been asked to stop, in case that the first one got lost."""
    if _asked.is_set():
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    _asked.set()
    raise KeyboardInterrupt

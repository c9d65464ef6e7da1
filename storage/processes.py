"""Telling from afar whether a process still runs, for processes of one and the same machine."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, told from any other that ever had its number.

    Args:
        host: name of its machine.
        kernel: changes with every start of the machine; empty where the system does not say.
        namespace: in which `pid` counts: containers have their own.
        pid: its number.
        started: when it started, in the kernel's ticks.
    """

    host: str
    kernel: str
    namespace: str
    pid: int
    started: int


def this_process() -> ProcessIdentity:
    """The process that asks."""
    pid = os.getpid()
    try:
        kernel = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink(_PROC / "self/ns/pid")
        _, started = _state(pid)
    except (OSError, ValueError):  # not Linux
        return ProcessIdentity(socket.gethostname(), "", "", pid, 0)
    return ProcessIdentity(socket.gethostname(), kernel, namespace, pid, started)


def is_gone(process: ProcessIdentity, here: ProcessIdentity) -> bool:
    """Whether a process has certainly ended; False where `here`, the process that asks, cannot know."""
    if not here.kernel or (here.host, here.kernel, here.namespace) != (process.host, process.kernel, process.namespace):
        return False
    try:
        os.kill(process.pid, 0)  # sends nothing; and unlike /proc it does not hide the processes of others
        state, started = _state(process.pid)
        return started != process.started or (state in "ZX" and not _has_threads(process.pid))
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        return False


def _has_threads(pid: int) -> bool:
    # The first thread of a killed process may be gone while another is still finishing what it asked of the kernel.
    return len(os.listdir(_PROC / str(pid) / "task")) > 1


def _state(pid: int) -> tuple[str, int]:
    # The name in brackets may hold anything, so count from its end: `man 5 proc`.
    fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[19])

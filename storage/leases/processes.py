"""Telling whether another process on the same machine is still running."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Identifies a process, even among processes that had the same process id earlier.

    Args:
        host: the machine's host name.
        kernel: the boot id, which changes whenever the machine starts; empty if the system does not provide one.
        namespace: the namespace that `pid` belongs to; containers have their own.
        pid: the process id.
        started: the start time in the kernel's clock ticks.
    """

    host: str
    kernel: str
    namespace: str
    pid: int
    started: int


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    pid = os.getpid()
    try:
        kernel = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink(_PROC / "self/ns/pid")
        _, started = _state(pid)
    except (OSError, ValueError):  # not Linux
        return ProcessIdentity(socket.gethostname(), "", "", pid, 0)
    return ProcessIdentity(socket.gethostname(), kernel, namespace, pid, started)


def is_gone(process: ProcessIdentity, here: ProcessIdentity) -> bool:
    """Return whether a process has certainly ended; False if `here`, the calling process, cannot tell."""
    if not here.kernel or (here.host, here.kernel, here.namespace) != (process.host, process.kernel, process.namespace):
        return False
    try:
        os.kill(process.pid, 0)  # sends no signal and, unlike /proc, does not hide other users' processes
        state, started = _state(process.pid)
        return started != process.started or (state in "ZX" and not _has_threads(process.pid))
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        return False


def _has_threads(pid: int) -> bool:
    # The first thread of a killed process may be gone while another one still finishes a system call.
    return len(os.listdir(_PROC / str(pid) / "task")) > 1


def _state(pid: int) -> tuple[str, int]:
    # The process name, in brackets, may contain anything, so count fields from its end: `man 5 proc`.
    fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[19])

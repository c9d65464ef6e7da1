"""A thread without network access, like all threads that it starts.

MediaPipe's current wheels report their use to Google, and no setting prevents it (see "Privacy Notice" in their
description). Nothing that processes faces here may call home, so MediaPipe runs in such a thread. The Linux kernel
enforces this (seccomp): opening an IPv4 or IPv6 socket fails as on a machine without a network.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import socket
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Machine -> (the kernel's audit name, number of the system call `socket`), from the kernel's headers.
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # instructions of the kernel's packet filter
_CALL, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # offsets into its input, struct seccomp_data
_ALLOW, _FAIL_WITH = 0x7FFF0000, 0x00050000


class OfflineThread:
    """Runs functions one after another in a thread without network access. Close it after use.

    Raises OSError if the kernel does not support this.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "offline")
        # As an initializer of the thread it would turn a refusal by the kernel into a BrokenThreadPool.
        try:
            self.call(give_up_network)
        except OSError:
            self.close()
            raise

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in the thread; return its result or raise its exception."""
        return self._thread.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def give_up_network() -> None:
    """Remove network access from the calling thread, and from all threads and processes that it starts, permanently.

    Raises:
        OSError: the kernel does not support this.
    """
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        log.warning("MediaPipe cannot be kept from reporting its use to Google on this system")
        return
    machine, socket_call = _MACHINES[platform.machine()]
    rules = [
        (_LOAD, 0, 0, _MACHINE),
        (_JUMP_IF_EQUAL, 0, 5, machine),  # instructions to skip: if equal, if not
        (_LOAD, 0, 0, _CALL),
        (_JUMP_IF_EQUAL, 0, 3, socket_call),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_IF_EQUAL, 2, 0, socket.AF_INET),
        (_JUMP_IF_EQUAL, 1, 0, socket.AF_INET6),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL_WITH | errno.ENETUNREACH),
    ]
    program = _FilterProgram(len(rules), b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),  # required unless the process runs as root
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments):
            raise OSError(
                ctypes.get_errno(), f"cannot cut MediaPipe off the network: {os.strerror(ctypes.get_errno())}"
            )

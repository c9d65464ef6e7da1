"""Failing system calls: the kernel asks about every call that changes (or reads) a folder's files; the k-th one fails.

A seccomp filter on one thread hands each such call to a supervisor (SECCOMP_RET_USER_NOTIF), whoever makes it: Python,
Arrow's C++ or HDF5's C. The supervisor is a process of its own, as the thread may hold the interpreter's lock. Linux
5.5 and later on x86-64; needs no privilege.

Sources:
    seccomp(2), seccomp_unotify(2); linux/seccomp.h, linux/filter.h, linux/audit.h for the numbers.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import json
import os
import platform
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Collection
from pathlib import Path

# Number on x86-64 -> (name, whether arguments are a descriptor "d", a path "p" or a path after its folder "fp").
CALLS = {
    **{1: ("write", "d"), 18: ("write", "d"), 20: ("write", "d"), 296: ("write", "d"), 77: ("truncate", "d")},
    **{2: ("open", "p"), 85: ("open", "p"), 257: ("open", "fp"), 285: ("write", "d"), 326: ("write", "d")},
    **{74: ("fsync", "d"), 75: ("fsync", "d"), 82: ("rename", "p"), 264: ("rename", "fp"), 316: ("rename", "fp")},
    **{86: ("link", "p"), 265: ("link", "fp"), 87: ("unlink", "p"), 263: ("unlink", "fp"), 84: ("unlink", "p")},
    **{83: ("mkdir", "p"), 258: ("mkdir", "fp"), 88: ("link", "p")},
}
READS = {
    **{0: ("read", "d"), 17: ("read", "d"), 19: ("read", "d"), 295: ("read", "d"), 217: ("list", "d")},
    **{2: ("open", "p"), 257: ("open", "fp"), 4: ("stat", "p"), 6: ("stat", "p"), 262: ("stat", "fp")},
    **{332: ("stat", "fp"), 21: ("stat", "p"), 269: ("stat", "fp"), 439: ("stat", "fp")},
}
_SYS_SECCOMP = 317
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000


def supported() -> str:
    """Why this machine cannot do it, or an empty text."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "system calls are made to fail on Linux x86-64 only"
    try:
        run(lambda: None, Path("/nowhere"))
    except OSError as error:
        return f"the kernel does not let a thread be supervised (seccomp user notification): {error}"
    return ""


class Result:
    """What came of a supervised run: the error that the work raised, and the names of the calls in order.

    Names are those of `CALLS`, but "create" for an open that makes a file.
    """

    def __init__(self, error: BaseException | None, calls: list[str]) -> None:
        self.error = error
        self.calls = calls


def run(work: Callable[[], object], root: Path, *, fail_at: int = 0, error: int = 28, reads: bool = False) -> Result:
    """Do some work in a thread, in which the `fail_at`-th call (from 1) that concerns files below `root` fails.

    Only calls that change something count, or, with `reads`, only those that read.
    """
    supervisor = _supervisor()
    raised: list[BaseException] = []
    watched = False

    def supervised() -> None:
        nonlocal watched
        try:
            listener = _listen(READS if reads else CALLS)
            task = json.dumps([str(root), fail_at, error, threading.get_native_id()])
            socket.send_fds(supervisor, [task.encode()], [listener])
            watched = supervisor.recv(1) == b"g"
            os.close(listener)
            work()
        except BaseException as its_own:
            raised.append(its_own)

    thread = threading.Thread(target=supervised)
    thread.start()
    thread.join()
    if not watched:
        raise raised[0] if raised else OSError("the supervisor ended early")
    supervisor.sendall(b"end")
    with supervisor.makefile() as answers:
        return Result(raised[0] if raised else None, json.loads(answers.readline()))


@functools.cache
def _supervisor() -> socket.socket:
    """Start the process that supervises, once for all runs; it ends with this one."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-I", "-S", __file__, str(theirs.fileno()), str(os.getpid())]
    subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    return ours


def _listen(calls: Collection[int]) -> int:
    """Put the filter on this thread; returns the descriptor over which its calls are reported."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps = [struct.pack("HBBI", 0x20, 0, 0, 0)]  # load the call's number
    for position, number in enumerate(calls):
        steps.append(struct.pack("HBBI", 0x15, len(calls) - position, 0, number))  # if it is this one, go to NOTIFY
    steps += [struct.pack("HBBI", 0x06, 0, 0, _ALLOW), struct.pack("HBBI", 0x06, 0, 0, _NOTIFY)]
    code = ctypes.create_string_buffer(b"".join(steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, of this thread
    libc.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: the supervisor reads the paths in memory
    descriptor = libc.syscall(_SYS_SECCOMP, 1, 8, program)  # SECCOMP_SET_MODE_FILTER, FLAG_NEW_LISTENER
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def _serve(channel: socket.socket, process: int) -> None:
    """Supervise one thread after the other, until the process is gone.

    Threads that a supervised one starts inherit its filter, and may live on: their calls are let through for ever.
    """
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    current, calls, task = -1, [], ("", 0, 0, 0)
    while True:
        for descriptor, events in poll.poll():
            if descriptor != channel.fileno():
                if events & select.POLLIN:
                    _answer(descriptor, process, *task, calls if descriptor == current else [])
                else:
                    poll.unregister(descriptor)
                    os.close(descriptor)
                continue
            message, listeners, _, _ = socket.recv_fds(channel, 65536, 1)
            if not message:
                return
            if message == b"end":
                current = -1
                channel.sendall(f"{json.dumps(calls)}\n".encode())
            else:
                (current,) = listeners
                calls, task = [], json.loads(message)
                poll.register(current, select.POLLIN)
                channel.send(b"g")


def _answer(listener: int, process: int, root: str, fail_at: int, error: int, watched: int, calls: list[str]) -> None:
    """Answer the kernel about one call. If a signal interrupts the call, it comes again."""
    notification = bytearray(80)
    try:
        fcntl.ioctl(listener, _RECEIVE, notification)
    except FileNotFoundError:
        return
    before = len(calls)
    identifier, thread, _, call, _, _ = struct.unpack_from("QIIiIQ", notification)
    answer = (0, 0, _CONTINUE)
    if thread == watched:
        arguments = struct.unpack_from("6Q", notification, 32)
        name, kind = (CALLS | READS)[call]
        if _path(process, thread, arguments, kind).startswith(root):
            creates = name == "open" and arguments[kind.index("p") + 1] & os.O_CREAT
            calls.append("create" if creates else name)
            if len(calls) == fail_at:
                answer = (0, -error, 0)
    try:
        fcntl.ioctl(listener, _SEND, struct.pack("QqiI", identifier, *answer))
    except FileNotFoundError:
        del calls[before:]


def _path(process: int, thread: int, arguments: tuple[int, ...], kind: str) -> str:
    try:
        if kind == "d":
            return os.readlink(f"/proc/{process}/task/{thread}/fd/{arguments[0]}")
        name = _text(thread, arguments[kind.index("p")])
        if kind == "fp" and not name.startswith("/"):
            folder = ctypes.c_int(arguments[0] & 0xFFFFFFFF).value
            where = "cwd" if folder == -100 else f"fd/{folder}"
            name = os.path.join(os.readlink(f"/proc/{process}/task/{thread}/{where}"), name)
        return name
    except FileNotFoundError:
        return ""  # no such descriptor


def _text(thread: int, address: int) -> str:
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        text = b""
        while b"\0" not in text and len(text) < 4096:
            text += memory.read(min(256, 4096 - (address + len(text)) % 4096))  # not beyond the page
        return os.fsdecode(text.partition(b"\0")[0])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))

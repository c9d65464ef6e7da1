"""Starts a command of Python many times, each time as a fork of one process that has imported it.

An interpreter that imports `traitline` takes a second of CPU time before the command does anything. A fork of one that
has done so is a process of its own all the same: it has its own output, folder, environment and exit. Libraries that
read the environment when they are imported (Prefect, TensorFlow) may be loaded before the fork if what they read there
is the same.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn


class CommandStarter:
    """Runs a script of Python as `subprocess.run` does, one run at a time.

    Args:
        script: to run, such as a console script.
        preload: modules that are imported once.
        environment: of the imports; each run is given its own.
    """

    def __init__(self, script: Path, preload: Sequence[str], environment: Mapping[str, str]) -> None:
        self._script, self._one_at_a_time = script, threading.Lock()
        self._control, theirs = socket.socketpair()
        command = [sys.executable, __file__, str(theirs.fileno()), str(script), *preload]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        theirs.close()

    def run(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run the script with arguments in a folder; return once its outputs are closed and it has ended."""
        request = json.dumps({"arguments": arguments, "folder": str(folder), "environment": dict(environment)})
        with self._one_at_a_time:
            pipes = [os.pipe(), os.pipe()]
            socket.send_fds(self._control, [f"{request}\n".encode()], [write for _, write in pipes])
            for _, write in pipes:
                os.close(write)
            child = json.loads(_line(self._control))
            limit = threading.Timer(timeout_s, os.kill, (child, 9))
            limit.start()
            with os.fdopen(pipes[0][0], "rb") as out, os.fdopen(pipes[1][0], "rb") as err:
                errors: list[bytes] = []
                reader = threading.Thread(target=lambda: errors.append(err.read()))
                reader.start()
                shown = out.read()
                reader.join()
            status = json.loads(_line(self._control))
            limit.cancel()
        command = [str(self._script), *arguments]
        return subprocess.CompletedProcess(command, status, shown.decode(), errors[0].decode())

    def close(self) -> None:
        """End the process that is forked."""
        self._control.close()
        self._process.wait(30)


def _line(control: socket.socket, begun: bytes = b"") -> bytes:
    while not begun.endswith(b"\n"):
        part = control.recv(65536)
        if not part:
            raise EOFError("the other end is gone")
        begun += part
    return begun


def _serve(control: socket.socket, script: str, preload: Sequence[str]) -> None:
    gc.disable()  # there is no garbage in what is imported, and looking for it takes a fifth of the time
    for module in preload:
        import_module(module)
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:  # a fork has none of them, and the locks that they hold for ever
        raise RuntimeError(f"importing {', '.join(preload)} started {len(threads) - 1} threads")
    gc.freeze()  # what is collected is copied in every fork
    gc.enable()
    sys.path[0] = str(Path(script).parent)  # as if it had been started by its name
    while True:
        begun, descriptors, _, _ = socket.recv_fds(control, 65536, 2)
        if not begun:
            return
        request = json.loads(_line(control, begun))
        child = os.fork()
        if child == 0:
            control.close()
            for standard, descriptor in enumerate(descriptors, start=1):
                os.dup2(descriptor, standard)
                os.close(descriptor)
            os.chdir(request["folder"])
            os.environ.clear()
            os.environ.update(request["environment"])
            sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
            sys.argv = [script, *request["arguments"]]
            _run_to_the_end(script)
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        control.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run_to_the_end(script: str) -> NoReturn:
    """Run a script, and end this process as Python does, except that it does not take all modules apart.

    Doing so would copy the memory that the process shares with the one it was forked from, four times the work of a
    short command.
    """
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3:])

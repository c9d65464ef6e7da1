"""Prefect's worker as a child process that stops when it is told to, with its runs.

Prefect's own takes no new runs once it gets a SIGTERM, and then waits for those at hand, for hours if need be, until
whoever sent it loses patience and kills. Here the runs are told too: they drop the shard at hand and end in seconds.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

import psutil

from flows import console, stopping

STOP_LIMIT_S = 20.0  # for the runs; container engines and schedulers kill after 30 s or more
GRACE_S = 3.0  # for the worker after them


def work_until_stopped(pool: str, kind: str, limit: int, *options: str, environment: Mapping[str, str]) -> int:
    """Run a worker until it ends, or SIGTERM or Ctrl-C ends it, by force in the end.

    Args:
        pool, kind: the work pool and its type.
        limit: runs at a time.
        options: more of `prefect worker start`.
        environment: of the worker and its runs.

    Returns:
        Its exit status; 0 where it was stopped.
    """
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind]
    command += ["--limit", str(limit), "--install-policy", "never", *options]
    stopping.listen()
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        console.say("traitline: stopping; whole shards are kept")
        _stop(process)
        return 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    worker = psutil.Process(process.pid)
    runs = worker.children()
    _send(signal.SIGTERM, runs)
    process.terminate()
    psutil.wait_procs(runs, timeout=STOP_LIMIT_S)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:  # which is how Prefect's worker may end once its runs are gone
        _send(signal.SIGKILL, worker.children(recursive=True))
        process.kill()
        process.wait()


def _send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)

"""The log of a command, on a local disk or on object storage."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from extractors.devices import has_cuda_device
from flows.session import console
from storage.errors import StoreError
from storage.files.commit import commit_file
from storage.files.paths import StorePath

# TensorFlow, LiteRT and MediaPipe print these lines from C++ in every process, before any setting takes effect.
_GREETING = (
    r"INFO: |I\d{4} \d\d:\d\d:|WARNING: (All log messages before absl::InitializeLog|Logging before InitGoogle)\(\)"
    r"|W\d{4} .* inference_runner_litert\.cc:\d+\] Input tensor memory is not aligned"
)
_NO_GPU = r"|E\d{4} .* cuda_\w+\.cc:\d+\] failed call to cuInit"
_FILTER = """
import os, re, sys
for line in sys.stdin.buffer:
    if not re.match(sys.argv[1].encode(), line):
        try:
            os.write(1, line)
        except OSError:  # a full disk must not end the process that prints
            pass
"""


@contextmanager
def local_log(log: StorePath) -> Iterator[Path]:
    """Yield a file to append to: the log itself, or a local file that is copied to it when the block ends.

    The greetings that C++ libraries print in this process are removed at the end; if it is killed, they stay.
    """
    if isinstance(log, Path):
        try:
            yield log
        finally:
            _drop_greetings(log)
        return
    folder = Path(tempfile.mkdtemp(prefix="traitline-"))
    file = folder / log.name
    try:
        yield file
    finally:
        try:
            _drop_greetings(file)
            with commit_file(log) as temporary:
                shutil.copyfile(file, temporary)
            shutil.rmtree(folder)
        except (StoreError, OSError) as error:
            console.complain(f"the log stays at {file}: {error}")


def hide_greetings() -> None:
    """Pass this process's standard error through another process, which drops the greetings of C++ libraries at once.

    It outlives this process, so that a crash's last words get through.
    """
    command = [sys.executable, "-I", "-S", "-c", _FILTER, _greetings()]
    filtering = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    with cast(IO[bytes], filtering.stdin) as pipe:
        os.dup2(pipe.fileno(), 2)


def _greetings() -> str:
    return _GREETING if has_cuda_device() else _GREETING + _NO_GPU


def _drop_greetings(file: Path) -> None:
    greeting = re.compile(_greetings().encode())
    with suppress(OSError), file.open("r+b") as log:  # a full disk must not hide how the command ended
        kept = [line for line in log if not greeting.match(line)]
        log.seek(0)
        log.writelines(kept)
        log.truncate()

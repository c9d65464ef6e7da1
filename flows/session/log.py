"""The log of a command, on a local disk or on object storage."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from extractors.devices import has_cuda_device
from flows.session import console
from storage.errors import StoreError
from storage.files.commit import commit_file
from storage.files.paths import StorePath

# TensorFlow, LiteRT and MediaPipe print these lines from C++ in every process, before any setting takes effect.
_GREETING = re.compile(
    rb"INFO: |I\d{4} \d\d:\d\d:|WARNING: (All log messages before absl::InitializeLog|Logging before InitGoogle)\(\)"
    rb"|W\d{4} .* inference_runner_litert\.cc:\d+\] Input tensor memory is not aligned"
)
_NO_GPU = re.compile(rb"E\d{4} .* cuda_\w+\.cc:\d+\] failed call to cuInit")


@contextmanager
def local_log(log: StorePath) -> Iterator[Path]:
    """Yield a file to append to: the log itself, or a local file that is copied to it when the block ends.

    The greetings of C++ libraries are removed at the end; if the process is killed, they stay.
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


def _drop_greetings(file: Path) -> None:
    shows_gpu = has_cuda_device()
    with suppress(OSError), file.open("r+b") as log:  # a full disk must not hide how the command ended
        kept = [line for line in log if not (_GREETING.match(line) or (not shows_gpu and _NO_GPU.match(line)))]
        log.seek(0)
        log.writelines(kept)
        log.truncate()

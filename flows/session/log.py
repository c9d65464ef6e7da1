"""The log of a command, on a local disk or on object storage."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.session import console
from storage.errors import StoreError
from storage.files.commit import commit_file
from storage.files.paths import StorePath


@contextmanager
def local_log(log: StorePath) -> Iterator[Path]:
    """Give a file to append to while the block runs: the log itself, or one that is copied to it afterwards."""
    if isinstance(log, Path):
        yield log
        return
    folder = Path(tempfile.mkdtemp(prefix="traitline-"))
    file = folder / log.name
    try:
        yield file
    finally:
        try:
            with commit_file(log) as temporary:
                shutil.copyfile(file, temporary)
            shutil.rmtree(folder)
        except (StoreError, OSError) as error:
            console.complain(f"the log stays at {file}: {error}")

"""The digest of a file's bytes, and whether they stayed the same while the file was read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from extractors.errors import VideoError, undecodable

_CHUNK_BYTES = 2**20


def sha256_of(path: Path, on_chunk: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of a file's bytes, in hex. Raises OSError if they cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_chunk()
    return digest.hexdigest()


class FileWatch:
    """Detects whether a file's bytes differ from a digest at any time between the start and the end of the watch.

    Bytes that differ at the end are found by the digest. Bytes that differed only for a while are found by the time of
    the last status change, which programs cannot set and which renaming updates as well. The inode number is
    unsuitable: some network file systems change it from time to time.

    Args:
        sha256: digest that the bytes should have, in hex; empty if they could not be read; None if it is unknown.
    """

    def __init__(self, path: Path, sha256: str | None) -> None:
        self._path, self._sha256 = path, sha256
        self._state = _state(path)

    def change(self, on_chunk: Callable[[], None] = lambda: None) -> VideoError | None:
        """End the watch: read the whole file, and return the refusal if its bytes differ or differed."""
        if self._sha256 is None:
            return None
        try:
            sha256 = sha256_of(self._path, on_chunk)
        except OSError as error:
            why = f"it is no longer readable ({error.strerror})"
        else:
            # Read the state last, so that changes during the computation of the digest count.
            if sha256 == self._sha256 and self._state == _state(self._path):
                return None
            why = "its bytes are not those of the scan of the archive"
            if sha256 == self._sha256:
                why = "its bytes differed for a while, or it was written to"
        message = f"{self._path.name} changed while it was read: {why}; the next run tries it again"
        return undecodable("file_changed", message)


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return size and times, which change with the bytes or when the file is replaced; None if it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns

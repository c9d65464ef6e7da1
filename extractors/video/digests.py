"""The digest of a file's bytes, and whether they were the same all the while that somebody read them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from extractors.errors import VideoError

_CHUNK_BYTES = 2**20


def sha256_of(path: Path, on_chunk: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of a file's bytes, in hex. Raises OSError if they cannot be read.

    Args:
        path: the file.
        on_chunk: called again and again while it is read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_chunk()
    return digest.hexdigest()


class FileWatch:
    """Tells whether a file had the bytes of a digest from the watch's beginning to its end.

    Bytes that are others by the end show in the digest, whatever the file's times say. Bytes that were others only for
    a while show in the time of the last change, which nobody can set and which a new name counts for, too. The number
    of the inode would not do: some network file systems make up a new one now and then.

    Args:
        path: the file.
        sha256: digest that its bytes should have, in hex; empty if nobody could read them; None if nobody knows it.
    """

    def __init__(self, path: Path, sha256: str | None) -> None:
        self._path, self._sha256 = path, sha256
        self._state = _state(path)

    def change(self, on_chunk: Callable[[], None] = lambda: None) -> VideoError | None:
        """End the watch: read the whole file, and return the refusal if its bytes are, or were, others.

        Args:
            on_chunk: called again and again while it is read.
        """
        if self._sha256 is None:
            return None
        try:
            sha256 = sha256_of(self._path, on_chunk)
        except OSError as error:
            why = f"it cannot be read any more ({error.strerror})"
        else:
            # The file's state last: also what changed while the digest was computed counts.
            if sha256 == self._sha256 and self._state == _state(self._path):
                return None
            why = "its bytes are not those that were found when the archive was looked through"
            if sha256 == self._sha256:
                why = "its bytes were others for a while, or it was written to"
        message = f"{self._path.name} changed while it was read: {why}; the next run tries it again"
        return VideoError("decode", "file_changed", message)


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file's bytes, or with the file that a name stands for; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns

"""Reading parts of an object on object storage through an ordinary file object."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

BLOCK_BYTES = 2**16  # the smallest request

Range = tuple[int, int] | dict[str, int]
"""The first byte and the one after the last; or {"suffix": count} for the last bytes."""


class RangeReader(io.RawIOBase):
    """An object as a file: the first request also learns the size, and the last range read is kept.

    A reader that begins with the end, where Parquet has its footer, gets size and end in one request.
    """

    def __init__(self, read_range: Callable[[Range], tuple[bytes, int, int]]) -> None:
        self._read_range = read_range
        self._position = 0
        self._size: int | None = None
        self._start, self._block = 0, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another position and return it."""
        if whence == os.SEEK_END and self._size is None:
            self._fetch({"suffix": BLOCK_BYTES})
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer from the kept range, or else as many bytes as fit; return their number."""
        begin, end = self._position, self._position + len(buffer)
        if self._size is None:
            self._fetch((begin, max(end, begin + BLOCK_BYTES)))
        if begin >= self._size:
            return 0
        if not self._start <= begin < self._start + len(self._block):
            self._fetch((begin, min(max(end, begin + BLOCK_BYTES), self._size)))
        data = self._block[begin - self._start : end - self._start]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, or fewer at the end of the object."""
        if size < 0:
            return self.readall()
        parts = []
        while size and (part := super().read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _fetch(self, part: Range) -> None:
        self._block, self._start, self._size = self._read_range(part)

"""Reading parts of an object on object storage through an ordinary file object."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

BLOCK_BYTES = 2**16  # the smallest request

Range = tuple[int, int] | dict[str, int]
"""The first byte and the one after the last; or {"suffix": count} for the last bytes."""


Stream = io.RawIOBase | io.BufferedIOBase
"""A file opened for reading bytes, on this machine or on object storage."""


class RangeReader(io.RawIOBase):
    """An object as a file: the first request also learns the size, and the last range read is kept.

    A reader that begins at the end, as with Parquet's footer, gets the size and the end in one request.
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
        """Move to another position and return it; it may lie after the end.

        Raises:
            ValueError: the position is before the beginning, or `whence` is unknown.
        """
        if whence == os.SEEK_SET:
            position = offset
        elif whence == os.SEEK_CUR:
            position = self._position + offset
        elif whence == os.SEEK_END:
            position = (self._fetch({"suffix": BLOCK_BYTES}) if self._size is None else self._size) + offset
        else:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        if position < 0:
            raise ValueError(f"cannot seek to {position}, before the beginning")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer from the kept range, or else as many bytes as fit; return their number."""
        begin, end = self._position, self._position + len(buffer)
        size = self._fetch((begin, max(end, begin + BLOCK_BYTES))) if self._size is None else self._size
        if begin >= size:
            return 0
        if not self._start <= begin < self._start + len(self._block):
            self._fetch((begin, min(max(end, begin + BLOCK_BYTES), size)))
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

    def _fetch(self, part: Range) -> int:
        """Keep a range, and return the size of the object."""
        self._block, self._start, self._size = self._read_range(part)
        return self._size

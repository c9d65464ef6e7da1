"""Columns of unencoded numbers inside a file, read by plain reads at known offsets.

Both shard formats store their vectors this way. A library that parses the format takes 5 (Parquet) or 2 (HDF5) times as
long to return the same bytes, and cannot tell whether they are right: each video's checksum does that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from storage.files.remote_reader import Stream
from storage.shards.features import VideoFeatures
from storage.shards.header import ShardHeader

BLOCK_BYTES = 2**20  # of vectors: the other columns are read for as many videos at a time as these bytes hold


@dataclass(frozen=True)
class Column:
    """The location of rows of numbers in a file.

    Args:
        dtype: of the numbers, little-endian.
        width: numbers in a row.
        runs: for each run of consecutive rows, its offset in the file in bytes and its number of rows, in row order.
    """

    dtype: np.dtype
    width: int
    runs: Sequence[tuple[int, int]]

    @cached_property
    def _first_rows(self) -> list[int]:
        return [0, *accumulate(rows for _, rows in self.runs)]

    @property
    def rows(self) -> int:
        """Total number of rows."""
        return self._first_rows[-1]

    def read(self, stream: Stream, first: int, last: int) -> np.ndarray:
        """Read the rows from `first` up to but not including `last`.

        Returns:
            An array of `dtype`, [last - first, width].

        Raises:
            ValueError: there are fewer rows, or the file ends before them.
        """
        if last > self.rows:
            raise ValueError(f"it has {self.rows} rows, not {last}")
        values = np.empty((last - first, self.width), self.dtype)
        buffer = values.data.cast("B")
        row_bytes = self.width * self.dtype.itemsize
        run = bisect_right(self._first_rows, first) - 1
        row = first
        while row < last:
            offset, rows = self.runs[run]
            skipped = row - self._first_rows[run]
            count = min(rows - skipped, last - row)
            stream.seek(offset + skipped * row_bytes)
            _fill(stream, buffer[(row - first) * row_bytes : (row - first + count) * row_bytes])
            row, run = row + count, run + 1
        return values


def blocks(header: ShardHeader, positions: Sequence[int], max_rows: int) -> Iterator[tuple[int, int, list[int]]]:
    """Group neighbouring videos into blocks of at most `max_rows` rows, but at least one video.

    Args:
        header: of the shard.
        positions: of the videos in `header.videos`, ascending.
        max_rows: the limit.

    Yields:
        For each block its first row, the row after its last, and the positions of its videos.
    """
    first_rows = header.first_rows
    run: list[int] = []
    for position in positions:
        if run and (position != run[-1] + 1 or first_rows[position + 1] - first_rows[run[0]] > max_rows):
            yield first_rows[run[0]], first_rows[run[-1] + 1], run
            run = []
        run.append(position)
    if run:
        yield first_rows[run[0]], first_rows[run[-1] + 1], run


def cut_into_videos(
    header: ShardHeader,
    positions: Sequence[int],
    first: int,
    columns: Mapping[str, np.ndarray],
    vectors: Callable[[int, int], np.ndarray],
) -> Iterator[VideoFeatures]:
    """Assemble the videos at these positions, with read-only vectors.

    Args:
        header: of the shard.
        positions: of the videos in `header.videos`.
        first: the row of the shard at which the columns begin.
        columns: "start_s", "end_s" and the quality columns, [rows]; the videos share their memory.
        vectors: returns the vectors from one row of the shard up to another, any float dtype, [rows, dim].
    """
    for position in positions:
        entry = header.videos[position]
        begin, end = header.first_rows[position : position + 2]
        part = slice(begin - first, end - first)
        own = vectors(begin, end).astype(np.float32, copy=False)
        own.flags.writeable = False
        yield VideoFeatures.unchecked(
            video_id=entry.video_id,
            video_sha256=entry.video_sha256,
            vectors=own,
            start_s=columns["start_s"][part],
            end_s=columns["end_s"][part],
            quality={name: columns[name][part] for name in header.family.quality},
        )


def cut_vectors(block: np.ndarray, first: int, begin: int, end: int) -> np.ndarray:
    """Return the vectors of some rows of a shard as a view of a block that begins at row `first`."""
    return block[begin - first : end - first]


def _fill(stream: Stream, buffer: memoryview) -> None:
    while buffer:
        count = stream.readinto(buffer)
        if not count:
            raise ValueError("it ends in the middle of its rows")
        buffer = buffer[count:]

"""Columns of numbers that lie in a file as they are, without any encoding, read by plain reads at known places.

Both formats of shards keep their vectors so. A library that parses the format takes 5 (Parquet) or 2 (HDF5) times as
long to hand out the same bytes, and knows no more about whether they are right: each video's checksum says that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import BinaryIO

import numpy as np

from storage.features import VideoFeatures
from storage.shard import ShardHeader

BLOCK_BYTES = 2**20  # of vectors: for so many videos at a time their other columns are read


@dataclass(frozen=True)
class Column:
    """Where rows of numbers lie.

    Args:
        dtype: of the numbers, little-endian.
        width: numbers in a row.
        runs: (offset in the file in bytes, number of rows that lie there one after the other), in order of the rows.
    """

    dtype: np.dtype
    width: int
    runs: Sequence[tuple[int, int]]

    @cached_property
    def _first_rows(self) -> list[int]:
        return [0, *accumulate(rows for _, rows in self.runs)]

    @property
    def rows(self) -> int:
        """Number of rows in all."""
        return self._first_rows[-1]

    def read(self, stream: BinaryIO, first: int, last: int) -> np.ndarray:
        """Read the rows from `first` to before `last`, [last - first, width].

        Raises:
            ValueError: there are fewer rows, or the file ends before them.
        """
        if last > self.rows:
            raise ValueError(f"it has {self.rows} rows, not {last}")
        values = np.empty((last - first, self.width), self.dtype)
        goal = memoryview(values).cast("B")
        row_bytes = self.width * self.dtype.itemsize
        run = bisect_right(self._first_rows, first) - 1
        row = first
        while row < last:
            offset, rows = self.runs[run]
            skipped = row - self._first_rows[run]
            count = min(rows - skipped, last - row)
            stream.seek(offset + skipped * row_bytes)
            _fill(stream, goal[(row - first) * row_bytes : (row - first + count) * row_bytes])
            row, run = row + count, run + 1
        return values


def video_rows(header: ShardHeader) -> list[int]:
    """The first row of each video, with the number of all rows at the end."""
    return [0, *accumulate(entry.tokens for entry in header.videos)]


def blocks(positions: Sequence[int], first_rows: Sequence[int], most_rows: int) -> Iterator[tuple[int, int, list[int]]]:
    """Cut into runs of neighbours with at most so many rows, but at least a video: first row, row after, positions."""
    run: list[int] = []
    for position in positions:
        if run and (position != run[-1] + 1 or first_rows[position + 1] - first_rows[run[0]] > most_rows):
            yield first_rows[run[0]], first_rows[run[-1] + 1], run
            run = []
        run.append(position)
    if run:
        yield first_rows[run[0]], first_rows[run[-1] + 1], run


def cut_into_videos(
    header: ShardHeader,
    positions: Sequence[int],
    first_rows: Sequence[int],
    first: int,
    columns: Mapping[str, np.ndarray],
    vectors: Iterable[np.ndarray],
) -> Iterator[VideoFeatures]:
    """Put together the videos at these positions, read-only.

    Args:
        header: of the shard.
        positions: of the videos in `header.videos`.
        first_rows: of all videos of the shard.
        first: the first row of the columns.
        columns: "start_s", "end_s" and those of quality, [rows]; the videos share their memory.
        vectors: of each video, any float, [tokens, dim].
    """
    for position, own in zip(positions, vectors, strict=True):
        entry = header.videos[position]
        part = slice(first_rows[position] - first, first_rows[position + 1] - first)
        own = own.astype(np.float32, copy=False)
        own.flags.writeable = False
        yield VideoFeatures.unchecked(
            video_id=entry.video_id,
            video_sha256=entry.video_sha256,
            vectors=own,
            start_s=columns["start_s"][part],
            end_s=columns["end_s"][part],
            quality={name: columns[name][part] for name in header.family.quality},
        )


def cut_vectors(
    vectors: np.ndarray, positions: Sequence[int], first_rows: Sequence[int], first: int
) -> Iterator[np.ndarray]:
    """Those of each video out of a block whose first row is `first`; they share its memory."""
    for position in positions:
        yield vectors[first_rows[position] - first : first_rows[position + 1] - first]


def read_vectors(
    column: Column, stream: BinaryIO, positions: Sequence[int], first_rows: Sequence[int]
) -> Iterator[np.ndarray]:
    """Those of each video, read when asked for, in memory of their own: who keeps one video keeps no neighbour."""
    for position in positions:
        yield column.read(stream, first_rows[position], first_rows[position + 1])


def _fill(stream: BinaryIO, goal: memoryview) -> None:
    while goal:
        count = stream.readinto(goal)
        if not count:
            raise ValueError("it ends in the middle of its rows")
        goal = goal[count:]

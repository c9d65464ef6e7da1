"""Checksums of the rows of a table."""

from __future__ import annotations

import functools
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93)  # any odd numbers with many bits


def row_checksums(rows: pa.Table | pa.RecordBatch) -> np.ndarray:
    """Compute a checksum of each row, int64 [N], which changes if any single value, number or character changes.

    Each value enters with an odd factor modulo 2**64, so that no single change cancels out.
    """
    total = np.zeros(len(rows), np.uint64)
    factors, missing = (_powers(odd, rows.num_columns) for odd in _ODD[:2])
    for number in range(rows.num_columns):
        column: Any = rows.column(number)
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        total += _words(array) * factors[number]
        total += array.is_null().to_numpy(zero_copy_only=False).astype(np.uint64) * missing[number]
    return total.view(np.int64)


def _words(array: Any) -> np.ndarray:
    """Return a number for each value, uint64; 0 for null."""
    if pa.types.is_string(array.type) or pa.types.is_list(array.type):
        return _words_of_lists(array)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    values = cast("np.ndarray", pc.fill_null(array, pa.scalar(0, array.type)).to_numpy(zero_copy_only=False))
    if values.dtype == np.float32:
        return np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _words_of_lists(array: Any) -> np.ndarray:
    """Return a number for each text or list: the sum of its bytes or values, weighted by their places."""
    if not len(array):
        return np.zeros(0, np.uint64)
    _, offsets_buffer, *data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    if pa.types.is_list(array.type):
        values = _words(array.values[first:last])
    else:
        values = np.frombuffer(data[0] or b"", np.uint8)[first:last].astype(np.uint64)
    starts, lengths = offsets[:-1] - first, np.diff(offsets)
    places = np.arange(last - first) - np.repeat(starts, lengths)
    weighted = (values + np.uint64(1)) * _powers(_ODD[2], int(lengths.max()))[places]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)])
    return cast("np.ndarray", sums[offsets[1:] - first] - sums[starts])


def _powers(base: int, count: int) -> np.ndarray:
    """Return at least `count` powers of a number modulo 2**64, uint64."""
    return _some_powers(base, 1 << count.bit_length())


@functools.lru_cache(maxsize=32)
def _some_powers(base: int, count: int) -> np.ndarray:
    return np.cumprod(np.full(count, base, np.uint64), dtype=np.uint64)

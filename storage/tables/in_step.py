"""Joins ascending rows with ascending keys, a part of both in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

VIDEOS = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("video_id", "video_sha256")])
"""Videos and the SHA-256 of their files, in hex; empty if a file cannot be read."""


class InStep:
    """Rows that are read in step with ascending keys.

    Args:
        parts: rows in ascending order of the first column of the schema.
        schema: of the rows.
    """

    def __init__(self, parts: Iterator[pa.Table], schema: pa.Schema) -> None:
        self._parts, self._schema = parts, schema
        self._by = schema.names[0]
        self._held = schema.empty_table()

    def up_to(self, last: pa.Scalar[Any]) -> pa.Table:
        """Return the rows that come after those of earlier calls, up to a key, included."""
        held = [self._held]
        while not len(held[-1]) or held[-1][self._by][-1].as_py() <= last.as_py():
            part = next(self._parts, None)
            if part is None:
                break
            held.append(part.select(self._schema.names))
        rows = pa.concat_tables(held)
        is_after = pc.greater(rows[self._by], last)
        self._held = rows.filter(is_after)
        return rows.filter(pc.invert(is_after))

    def rest(self) -> Iterator[pa.Table]:
        """Yield the rows that come after those of earlier calls."""
        yield self._held
        yield from self._parts


def digests_of(ids: pa.Array[Any], known: pa.Table) -> pa.Array[Any]:
    """Return the known digest of each video, null if there is none.

    Args:
        known: with the schema `VIDEOS`, each video once.
    """
    known_ids, digests = (known[name].combine_chunks() for name in VIDEOS.names)
    return digests.take(pc.index_in(ids, value_set=known_ids))


def have_digests(videos: pa.RecordBatch, known: pa.Table) -> np.ndarray:
    """Return for each video whether its present digest is the known one, bool [N].

    Args:
        videos: N rows with the schema `VIDEOS`.
        known: with the same schema, each video once.
    """
    same = pc.equal(digests_of(videos["video_id"], known), videos["video_sha256"])
    return np.asarray(same.fill_null(False))

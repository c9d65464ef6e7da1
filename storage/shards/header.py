"""A shard's header, and the interface that a file format must implement to store shards.

Each format is one file, `storage.shards.parquet` and `storage.shards.hdf5`, and one line in `storage.shards.formats`.
Formats only move arrays; this module checks them against the header, in the same way for every format, when they come
back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from storage.errors import DamagedError, NewerVersionError, reading
from storage.files.paths import StorePath, fetched
from storage.shards.family import Family, canonical_json, key_before_manifest
from storage.shards.features import VideoFeatures

# Raised when a reader of the previous version would misread a file. Not part of the key, as the numbers are the same.
SHARD_VERSION = 4

Dtype = Literal["float32", "float16"]


class VideoEntry(NamedTuple):
    """A video in a shard's list of contents."""

    video_id: str
    video_sha256: str
    tokens: int
    checksum: int


# Like `VideoEntry._make`, in a third of the time: opening a store of a million videos makes a million entries.
_video_entry = partial(tuple.__new__, VideoEntry)
_tokens = itemgetter(VideoEntry._fields.index("tokens"))


@dataclass(frozen=True)
class ShardHeader:
    """A shard's family and contents, which show the videos that are done without reading the columns.

    Args:
        family: of all videos.
        videos: in the order of their rows.
        dtype: of the vectors in the file; readers receive float32.
    """

    family: Family
    videos: tuple[VideoEntry, ...]
    dtype: Dtype = "float32"

    @classmethod
    def of(cls, family: Family, videos: Sequence[VideoFeatures], dtype: Dtype = "float32") -> ShardHeader:
        """Build the header of features that are about to be written and that `dtype` represents exactly.

        Raises:
            ValueError: there are none, one does not belong to the family, or a video occurs twice.
        """
        if not videos:
            raise ValueError("a shard holds at least one video")
        for video in videos:
            family.check(video)
        ids = [video.video_id for video in videos]
        if len(set(ids)) != len(ids):
            raise ValueError(f"a video occurs twice in one shard: {max(ids, key=ids.count)}")
        return cls(family, tuple(VideoEntry(v.video_id, v.video_sha256, v.tokens, v.checksum()) for v in videos), dtype)

    @property
    def rows(self) -> int:
        """Total number of tokens."""
        return sum(map(_tokens, self.videos))

    @cached_property
    def first_rows(self) -> list[int]:
        """The first row of each video, followed by the total number of rows."""
        return [0, *accumulate(map(_tokens, self.videos))]

    @property
    def row_bytes(self) -> int:
        """Bytes of one vector in the file."""
        return self.family.dim * np.dtype(self.dtype).itemsize

    def to_text(self) -> str:
        """Return one line of JSON and a line with its SHA-256, for a format to store in the file."""
        values = {
            "family": self.family.to_dict(),
            "key": self.family.key,
            "videos": self.videos,
            "dtype": self.dtype,
            "shard_version": SHARD_VERSION,
        }
        line = canonical_json(values)
        return f"{line}\n{_sha256(line)}"

    @classmethod
    def from_text(cls, text: str) -> ShardHeader:
        """Parse the result of `to_text`.

        Raises:
            NewerVersionError: a newer version of the program wrote it.
            ValueError, KeyError, TypeError: it is damaged, or not a header.
        """
        line, _, checksum = text.partition("\n")
        if checksum != _sha256(line):
            raise ValueError("the header does not match its own checksum")
        values = dict(json.loads(line))
        version = values["shard_version"]
        if version > SHARD_VERSION:
            raise NewerVersionError(
                f"shard version {version} is newer than this program's ({SHARD_VERSION}): update it"
            )
        described = {name: value for name, value in values["family"].items() if name != "schema_version"}
        family = _family(canonical_json(described))
        if values["key"] != (family.key if version == SHARD_VERSION else key_before_manifest(family)):
            raise ValueError(f"the header's key {values['key']} differs from that of its settings, {family.key}")
        dtype = values["dtype"]
        if dtype not in ("float32", "float16"):
            raise ValueError(f"the header's dtype is {dtype!r}")
        return cls(family, _entries(values["videos"]), dtype)

    def check_size(self, file_bytes: int) -> None:
        """Refuse a header that claims more rows than the file has room for, before memory is allocated for them.

        Raises:
            ValueError: the header claims too many rows.
        """
        if self.rows * self.row_bytes > file_bytes:
            raise ValueError(f"it claims {self.rows:,} rows, more than {file_bytes:,} bytes can hold")


class ShardFormat(Protocol):
    """A file format for shards. The `path` of `write` is a temporary local file that is committed later.

    Readers raise FileNotFoundError if the file is gone and OSError or ValueError if it is damaged; the caller names the
    file.
    """

    suffix: str

    def write(self, path: Path, header: ShardHeader, videos: Sequence[VideoFeatures]) -> None:
        """Write one shard file. `header` describes `videos`."""

    def read_header(self, path: StorePath) -> ShardHeader:
        """Read the shard's header without its columns."""

    def read(self, path: StorePath, header: ShardHeader, positions: Sequence[int]) -> Iterator[VideoFeatures]:
        """Read the videos at these ascending positions in `header.videos`, with few of them in memory at a time."""

    def read_through_library(self, path: StorePath, header: ShardHeader) -> Iterator[VideoFeatures]:
        """Read all videos as other programs do: through the format's library, which verifies its own checksums.

        Compares with the header also what only other programs use.
        """


def read_header(path: StorePath, format: ShardFormat) -> ShardHeader:
    """Read a shard's header.

    Raises:
        FileNotFoundError, UnreachableError, DamagedError: see `storage.errors.reading`; a shard of another family than
            its folder counts as damaged.
        NewerVersionError: a newer version of the program wrote it.
    """
    try:
        with reading(path):
            header = format.read_header(path)
    except NewerVersionError as error:
        raise NewerVersionError(f"cannot read {path}: {error}") from error
    if (header.family.name, header.family.key) != (path.parent.parent.name, path.parent.name):
        raise DamagedError(f"{path} holds features of another kind ({header.family.key}) than its folder: move it away")
    return header


def read_videos(
    path: StorePath, format: ShardFormat, header: ShardHeader, positions: Sequence[int]
) -> Iterator[VideoFeatures]:
    """Read some of a shard's videos, each checked against the header; see `checked`."""
    if len(positions) > len(header.videos) // 4:
        path = fetched(path)
    yield from checked(path, header, positions, format.read(path, header, positions))


def checked(
    path: StorePath, header: ShardHeader, positions: Sequence[int], videos: Iterable[VideoFeatures]
) -> Iterator[VideoFeatures]:
    """Yield the videos at these positions, each checked against the header.

    Raises:
        FileNotFoundError, UnreachableError, DamagedError: see `storage.errors.reading`; a video that differs from its
            entry in the header counts as damage.
    """
    with reading(path):
        for position, video in zip(positions, videos, strict=True):
            entry = header.videos[position]
            header.family.check(video)
            if (video.tokens, video.checksum()) != (entry.tokens, entry.checksum):
                raise ValueError(f"the rows of {entry.video_id} do not match their checksum")
            yield video


def _entries(videos: list[list[Any]]) -> tuple[VideoEntry, ...]:
    """Validate the list of contents from JSON, column by column because there may be a million videos."""
    ids, digests, tokens, checksums = zip(*videos, strict=True)
    texts, numbers = set(map(type, ids + digests)), set(map(type, tokens + checksums))
    if texts != {str} or numbers != {int} or min(tokens) < 1 or len(set(ids)) != len(ids):
        raise ValueError("the header's list of videos is malformed")
    "".join(ids).encode()  # raises ValueError for lone surrogates, which no other file could store
    return tuple(map(_video_entry, videos))


@lru_cache(maxsize=64)
def _family(text: str) -> Family:
    # A store has few families, and computing a key takes as long as reading a small header.
    return Family.from_dict(json.loads(text))


def _sha256(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()

"""What a shard says about itself, and what a file format must be able to do to hold shards.

Parquet is one format (`storage.parquet_store`); another one is one more file like it and one more line in
`storage.feature_store.FORMATS`. Formats only move arrays: that they came back unchanged is checked here, the same way
for every format, against the header.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from storage.errors import StoreError
from storage.families import Family, canonical_json
from storage.features import VideoFeatures


class VideoEntry(NamedTuple):
    """A video in a shard's list of contents."""

    video_id: str
    video_sha256: str
    tokens: int
    crc32: int


@dataclass(frozen=True)
class ShardHeader:
    """A shard's family and contents: enough to know what is done without opening the columns."""

    family: Family
    videos: tuple[VideoEntry, ...]

    @classmethod
    def of(cls, family: Family, videos: Sequence[VideoFeatures]) -> ShardHeader:
        """Describe features that are about to be written.

        Raises:
            ValueError: there are none, one is not of the family, or a video comes twice.
        """
        if not videos:
            raise ValueError("a shard holds at least one video")
        for video in videos:
            family.check(video)
        ids = [video.video_id for video in videos]
        if len(set(ids)) != len(ids):
            raise ValueError(f"a video comes twice in one shard: {max(ids, key=ids.count)}")
        return cls(family, tuple(VideoEntry(v.video_id, v.video_sha256, v.tokens, v.checksum()) for v in videos))

    def to_text(self) -> str:
        """One line of JSON and a line with its SHA-256, for a format to keep in the file."""
        line = canonical_json({"family": self.family.to_dict(), "key": self.family.key, "videos": self.videos})
        return f"{line}\n{_sha256(line)}"

    @classmethod
    def from_text(cls, text: str) -> ShardHeader:
        """Undo `to_text`.

        Raises:
            StoreError: a newer version of the program wrote it.
            ValueError, KeyError, TypeError: it is damaged, or no header at all.
        """
        line, _, checksum = text.partition("\n")
        if checksum != _sha256(line):
            raise ValueError("the header does not match its own checksum")
        values = json.loads(line)
        family = Family.from_dict(values["family"])
        if values["key"] != family.key:
            raise ValueError(f"the header's key {values['key']} is not that of its settings, {family.key}")
        return cls(family, tuple(VideoEntry(*entry) for entry in values["videos"]))


class ShardFormat(Protocol):
    """A file format for shards. Paths are local files; `path` of `write` is a temporary one that gets committed later.

    Readers raise OSError or ValueError where the file is damaged, and leave it to the caller to name the file.
    """

    suffix: str

    def write(self, path: Path, header: ShardHeader, videos: Sequence[VideoFeatures]) -> None:
        """Write one shard file. `header` is that of `videos`."""

    def read_header(self, path: Path) -> ShardHeader:
        """Read what the shard says about itself, without its columns."""

    def read(self, path: Path, header: ShardHeader, positions: Sequence[int]) -> Iterator[VideoFeatures]:
        """Read the videos at these positions (ascending) of `header.videos`, holding few of them at a time."""


def read_header(path: Path, format: ShardFormat, family: Family) -> ShardHeader:
    """Read what a shard says about itself.

    Raises:
        StoreError: the file is damaged, too new, or of another family than `family`.
    """
    try:
        header = format.read_header(path)
    except StoreError as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    if header.family != family:
        raise StoreError(f"{path} holds features of another kind ({header.family.key}) than its folder: move it away")
    return header


def read_videos(
    path: Path, format: ShardFormat, header: ShardHeader, positions: Sequence[int]
) -> Iterator[VideoFeatures]:
    """Read some of a shard's videos, each checked against the header.

    Raises:
        StoreError: the file is damaged, or a video is not what the header says.
    """
    try:
        for position, video in zip(positions, format.read(path, header, positions), strict=True):
            entry = header.videos[position]
            header.family.check(video)
            if VideoEntry(video.video_id, video.video_sha256, video.tokens, video.checksum()) != entry:
                raise ValueError(f"the rows of {entry.video_id} do not match their checksum")
            yield video
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> StoreError:
    """The error for a file that cannot be what was once committed."""
    return StoreError(
        f"{path} is damaged: {' '.join(str(error).split())}; move it away, and the next run makes it anew"
    )


def _sha256(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()

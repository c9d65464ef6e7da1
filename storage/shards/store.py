"""Features of videos on disk or object storage, and the index of the videos that have them.

    STORE/features/<family>/<key>/family.json                   the family's settings, in plain JSON
    STORE/features/<family>/<key>/shard-<time>-<random>.parquet or .h5

Shards never change. If several hold the same video, even made from different files, the one whose name sorts last is
valid; `storage.files.parts` explains why that is the newest one. Two shards whose names differ only in the suffix hold
the same features. Other programs get the same view of Parquet shards by the same rule, for instance DuckDB:

    SELECT * FROM read_parquet('.../shard-*.parquet', filename = true)
    QUALIFY filename = max(filename) OVER (PARTITION BY video_id)
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import MALFORMED, StoreError, UnreachableError, damaged
from storage.files.commit import commit_file
from storage.files.parts import list_parts, new_part
from storage.files.paths import StorePath, in_order
from storage.layout import open_store
from storage.shards.family import Family
from storage.shards.features import VideoFeatures
from storage.shards.formats import SUFFIXES, FormatName, format_named, format_of
from storage.shards.header import Dtype, ShardHeader, VideoEntry, read_header, read_videos

DESCRIPTION = "family.json"
_WHOLE_NUMBERS = "faces"  # boxes in pixels: float16 would move those beyond 2048 by a pixel


@dataclass
class _Index:
    """The shard that holds the valid rows of each video, among some shards. Takes about 0.4 KB of memory per video."""

    shards: set[StorePath] = field(default_factory=set)
    shard_of: dict[str, StorePath] = field(default_factory=dict)
    sha256_of: dict[str, str] = field(default_factory=dict)
    newest: str = ""  # stem of the last shard by name

    def add(self, shard: StorePath, header: ShardHeader) -> None:
        """Add the contents of a shard. This is fastest in the order of the shards' names."""
        stem = shard.stem
        entries: Sequence[VideoEntry] = header.videos
        if stem < self.newest:
            entries = [entry for entry in entries if not self._knows_newer(entry.video_id, stem)]
        self.newest = max(self.newest, stem)
        self.shard_of.update(dict.fromkeys((entry[0] for entry in entries), shard))
        self.sha256_of.update(entry[:2] for entry in entries)
        self.shards.add(shard)

    def _knows_newer(self, video_id: str, stem: str) -> bool:
        known = self.shard_of.get(video_id)
        return known is not None and known.stem > stem


class FeatureStore:
    """Cached features of every family, in one store folder.

    Any number of processes may write and read at once. The store remembers the headers that it has read, so that the
    next query costs only a listing of the folder and the headers of newer shards. All methods raise StoreError if the
    operating system refuses, or if a shard is damaged, too new or in the wrong folder.

    Args:
        root: the store's folder, local or on object storage. It need not exist before the first write.
        format: of new shards; shards of every known format are read.
        dtype: of the stored vectors, except those of "faces", which are positions in pixels and stay float32.
            float16 halves the bytes and rounds each number to 11 significant bits; see `VideoFeatures.rounded`.
        confirm: called with the temporary file immediately before each shard is committed; an exception from it
            prevents the commit.

    Raises:
        StoreError: the format is unknown, or the folder is not a store.
    """

    def __init__(
        self,
        root: str | StorePath,
        format: FormatName = "parquet",
        dtype: Dtype = "float32",
        confirm: Callable[[Path], None] | None = None,
    ) -> None:
        self._format = format_named(format)
        self._dtype, self._confirm = dtype, confirm
        self._features = open_store(root) / "features"
        self._indexes: dict[StorePath, _Index] = {}
        self._lock = threading.Lock()

    def write(self, family: Family, videos: Sequence[VideoFeatures]) -> str:
        """Commit features as one shard: as a whole and on disk on return, and absent if this raises.

        Args:
            family: the family of the features.
            videos: the contents of the shard.

        Returns:
            The shard's id, unique across all machines.

        Raises:
            ValueError: there are no videos, one does not belong to the family, occurs twice, or holds a number that is
                too large for float16.
        """
        dtype: Dtype = "float32" if family.name == _WHOLE_NUMBERS else self._dtype
        videos = [video.rounded(dtype) for video in videos]
        header = ShardHeader.of(family, videos, dtype)
        self.describe(family)
        path = new_part(self.folder(family), "shard", self._format.suffix)
        with commit_file(path) as temporary:
            self._format.write(temporary, header, videos)
            if self._confirm is not None:
                self._confirm(temporary)
        return path.stem.removeprefix("shard-")

    def done(self, family: Family) -> dict[str, str]:
        """Return the videos that have features: video_id -> SHA-256 of the file that the features were made from."""
        with self._lock:
            return dict(self._index(family).sha256_of)

    def has(self, family: Family, videos: Mapping[str, str]) -> set[str]:
        """Return the ids of those videos (video_id -> SHA-256 of the file) that have features of exactly this file."""
        with self._lock:
            known = self._index(family).sha256_of
            return {video_id for video_id, sha256 in videos.items() if known.get(video_id) == sha256}

    def read(
        self, family: Family, video_ids: Iterable[str] | None = None, *, as_known: bool = False
    ) -> Iterator[VideoFeatures]:
        """Read features, each video once, as of the moment at which the first one is requested.

        If shards are merged or converted in the meantime, reading continues with the shards that replace them.

        Args:
            family: the family of the features.
            video_ids: restricts the result to these ids; ids without features are skipped. None means all.
            as_known: use the index of earlier queries, and look for newer shards only if one of its shards is gone.
                Listing a large store takes seconds, too long for callers that read a few videos at a time.

        Yields:
            Videos in the store's order: by shard, oldest first. Few of them are in memory at a time. Their arrays are
            read-only.
        """
        with self._lock:
            known = self._indexes.get(self.folder(family)) if as_known else None
            shard_of = (known or self._index(family)).shard_of
            wanted = shard_of if video_ids is None else set(video_ids)
            left = {video_id: shard_of[video_id] for video_id in wanted if video_id in shard_of}
        while left:
            try:
                for shard in sorted(set(left.values()), key=lambda path: path.stem):
                    header = read_header(shard, format_of(shard))
                    entries = enumerate(header.videos)
                    positions = [position for position, entry in entries if left.get(entry.video_id) == shard]
                    for video in read_videos(shard, format_of(shard), header, positions):
                        del left[video.video_id]
                        yield video
            except FileNotFoundError:
                with self._lock:
                    shard_of = self._index(family).shard_of
                left = {video_id: shard_of[video_id] for video_id in left if video_id in shard_of}

    def families(self) -> list[Family]:
        """Return the families in the store, sorted by name and key."""
        paths = self._features.glob(f"*/*/{DESCRIPTION}")
        families = [read_family(path) for path in paths if not path.parent.name.startswith(".")]
        return sorted(families, key=lambda family: (family.name, family.key))

    def shards(self, family: Family) -> list[StorePath]:
        """Return the committed shards of a family, oldest first."""
        return list_parts(self.folder(family), "shard", SUFFIXES)

    def shard_of(self, family: Family) -> dict[str, StorePath]:
        """Return, for each video, the shard that holds its valid rows."""
        with self._lock:
            return dict(self._index(family).shard_of)

    def folder(self, family: Family) -> StorePath:
        """Return the folder of a family's shards, which need not exist."""
        return self._features / family.name / family.key

    def describe(self, family: Family) -> None:
        """Write the description of a family if there is none. Raises StoreError if there is one of another family."""
        path = self.folder(family) / DESCRIPTION
        if path.exists():
            if read_family(path) != family:
                raise StoreError(f"{path} describes other features than its folder's name: move the folder away")
            return
        with commit_file(path) as temporary:
            text = json.dumps({"key": family.key, **family.to_dict()}, indent=2, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    def _index(self, family: Family) -> _Index:
        folder = self.folder(family)
        while True:
            shards = self.shards(family)
            index = self._indexes.get(folder)
            if index is None or not index.shards <= set(shards):  # a removed shard may have hidden an older one's rows
                index = self._indexes[folder] = _Index()
            new = [shard for shard in shards if shard not in index.shards]
            try:
                for shard, header in zip(new, in_order(_header, new), strict=True):
                    index.add(shard, header)
                return index
            except FileNotFoundError as error:
                if os.path.lexists(error.filename):
                    raise damaged(error.filename, error) from error


def _header(shard: StorePath) -> ShardHeader:
    return read_header(shard, format_of(shard))


def read_family(path: StorePath) -> Family:
    """Read a description of a family. Raises StoreError if it is damaged or too new."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        key = values.pop("key")
        family = Family.from_dict(values)
        if family.key != key:
            raise ValueError(f"its key {key} differs from that of its settings, {family.key}")
    except UnreachableError:
        raise
    except StoreError as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    except MALFORMED as error:
        raise damaged(path, error) from error
    return family

"""Features of videos on disk or object storage, and the manifest that names them.

    STORE/manifest/                                             which shard holds which video, see `storage.tables`
    STORE/features/<family>/<key>/_family.json                  the family's settings, in plain JSON
    STORE/features/<family>/<key>/shard-<id>.parquet or .h5

A shard is written as a whole and never changes. Then one commit of the manifest names its videos; until then no reader
sees them. A shard that the manifest does not name is an orphan: its writer was killed between the two, or another
shard has taken its place. `storage.maintenance.garbage` removes orphans when they are old.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from storage.errors import NewerVersionError, StoreError, damaged, reading
from storage.files.commit import commit_file, remove_files
from storage.files.paths import StorePath, exists, matching
from storage.layout import open_store
from storage.shards.family import Family
from storage.shards.features import VideoFeatures
from storage.shards.formats import FormatName, format_named, format_of
from storage.shards.header import SHARD_VERSION, Dtype, ShardHeader, read_header, read_videos
from storage.tables.manifest import FEW, Manifest, Places, Row, hashes

DESCRIPTION = "_family.json"  # programs that read a folder as one dataset skip names that begin with _
_LONG_S = 60.0  # for writing shards
_WHOLE_NUMBERS = "faces"  # boxes in pixels: float16 would move those beyond 2048 by a pixel


class FeatureStore:
    """Cached features of every family, in one store folder.

    Any number of processes may write and read at once. Methods raise StoreError if the storage refuses, or if a shard
    is damaged, too new or gone.

    Args:
        root: the store's folder, local or on object storage. It need not exist before the first write.
        format: of new shards; shards of every known format are read.
        dtype: of the stored vectors, except those of "faces", which are positions in pixels and stay float32.
            float16 halves the bytes and rounds each number to 11 significant bits; see `VideoFeatures.rounded`.
        confirm: called immediately before each commit; an exception from it prevents the commit.

    Raises:
        StoreError: the format is unknown, or the folder is not a store.
    """

    def __init__(
        self,
        root: str | StorePath,
        format: FormatName = "parquet",
        dtype: Dtype = "float32",
        confirm: Callable[[], None] | None = None,
    ) -> None:
        self._format = format_named(format)
        self._dtype, self._confirm = dtype, confirm
        self.root = open_store(root)
        self.manifest = Manifest(self.root)
        self._features = self.root / "features"
        self._run = secrets.token_hex(8)
        self._described: set[str] = set()
        self._known: dict[str, Places] = {}
        self._lock = threading.Lock()

    def write(self, family: Family, videos: Sequence[VideoFeatures]) -> str:
        """Commit features of one family as one shard; see `write_all`.

        Returns:
            The shard's id, unique across all machines.
        """
        return self.write_all({family: videos})[0]

    def write_all(self, features: Mapping[Family, Sequence[VideoFeatures]]) -> list[str]:
        """Commit features, one shard for each family: all of them or none, and on disk on return.

        Args:
            features: by family; no family without videos.

        Returns:
            The shards' ids.

        Raises:
            ValueError: there are no videos, one does not belong to its family, occurs twice, or holds a number that is
                too large for float16.
        """
        shards = []
        for family, videos in features.items():
            dtype: Dtype = "float32" if family.name == _WHOLE_NUMBERS else self._dtype
            rounded = [video.rounded(dtype) for video in videos]
            shards.append((ShardHeader.of(family, rounded, dtype), rounded))
        version = self.manifest.table.version() + 1
        began = time.time()
        paths, rows = [], []
        try:
            for header, videos in shards:
                self.describe(header.family)
                path = self.new_shard(header.family, version, self._format.suffix)
                paths.append(path)
                with commit_file(path) as temporary:
                    self._format.write(temporary, header, videos)
                rows += manifest_rows(header, path.name, self._run)
            if self._confirm is not None:
                self._confirm()
            self.manifest.add(rows)
        except BaseException:
            self._remove_uncommitted(paths)
            raise
        # If this process slept for long before the commit, the shards may have been taken for garbage.
        for path, (header, _) in zip(paths, shards, strict=True) if abs(time.time() - began) > _LONG_S else ():
            if not exists(path):
                self.manifest.remove(header.family.key, shard=[path.name])
                raise StoreError(f"{path} was removed before it was committed; run the command again")
        return [path.stem.removeprefix("shard-") for path in paths]

    def done(self, family: Family) -> dict[str, str]:
        """Return the videos that have features: video_id -> SHA-256 of the file that the features were made from."""
        parts = (rows.to_pydict().values() for rows in self.manifest.current(family.key))
        return {video_id: digest for columns in parts for video_id, digest in zip(*columns, strict=True)}

    def has(self, family: Family, videos: Mapping[str, str]) -> set[str]:
        """Return the ids of those videos (video_id -> SHA-256 of the file) that have features of exactly this file."""
        ids = list(videos)
        has = self.has_each(family, ids, list(videos.values()))
        return {ids[row] for row in np.flatnonzero(has).tolist()}

    def has_each(self, family: Family, video_ids: Sequence[str], digests: Sequence[str]) -> np.ndarray:
        """Return for each video whether it has features of exactly the file with this digest, bool [N].

        For more than a few thousand videos, reads the manifest of the family, at 24 bytes of memory a video.
        """
        if not len(video_ids):
            return np.zeros(0, bool)
        return self._places(family, video_ids).has(hashes(video_ids), hashes(digests))

    def read(
        self, family: Family, video_ids: Iterable[str] | None = None, *, as_known: bool = False
    ) -> Iterator[VideoFeatures]:
        """Read features, each video once, as of the moment at which the first one is requested.

        Args:
            video_ids: restricts the result to these ids; ids without features are skipped. None means all.
            as_known: use the places of an earlier call with `as_known`, and look again only if a shard is gone: for
                callers that read an archive a few videos at a time.

        Yields:
            Videos in the store's order: by shard, oldest first. Few of them are in memory at a time. Their arrays are
            read-only.
        """
        wanted = None if video_ids is None else hashes(list(video_ids))
        if wanted is not None and not len(wanted):
            return
        places = self._places(family, None if wanted is None else video_ids, as_known=as_known)
        pending = places.by_shard(wanted)
        names = list(pending)
        while names:
            name = heapq.heappop(names)
            left = pending.pop(name)
            try:
                for video in self._read_shard(family, name, left):
                    left = left[left != hash(video.video_id)]
                    yield video
            except FileNotFoundError as error:
                moved = self._places(family, None, as_known=as_known, again=True).by_shard(left)
                if name in moved:
                    raise StoreError(
                        f"{self.folder(family) / name} is gone, and with it the {family.name} features of "
                        f"{len(moved[name]):,} videos; `traitline store repair` takes them off the list, and the next "
                        "run extracts them"
                    ) from error
                for other, videos in moved.items():
                    if other not in pending:
                        heapq.heappush(names, other)
                        pending[other] = videos
                    else:
                        pending[other] = np.concatenate([pending[other], videos])

    def shard_numbers(self, family: Family, video_ids: Sequence[str]) -> np.ndarray:
        """Return the number of each video's shard, int32 [N], from the oldest up; -1 if it has no features."""
        if not len(video_ids):
            return np.zeros(0, np.int32)
        return self._places(family, video_ids, as_known=True).shard_of(hashes(video_ids))

    def families(self) -> list[Family]:
        """Return the families in the store, sorted by name and key."""
        paths = matching(self._features, f"*/*/{DESCRIPTION}")
        families = [read_family(path) for path in paths if not path.parent.name.startswith(".")]
        return sorted(families, key=lambda family: (family.name, family.key))

    def shards(self, family: Family) -> list[StorePath]:
        """Return the shards that hold the newest features of any video of a family, oldest first."""
        return [self.folder(family) / name for name in self._places(family, None).by_shard()]

    def folder(self, family: Family) -> StorePath:
        """Return the folder of a family's shards, which need not exist."""
        return self._features / family.name / family.key

    def new_shard(self, family: Family, version: int, suffix: str) -> StorePath:
        """Return an unused path for a shard. Paths sort by the version of the manifest that their writers saw."""
        return self.folder(family) / f"shard-{version:012d}-{secrets.token_hex(6)}{suffix}"

    def describe(self, family: Family) -> None:
        """Write the description of a family if there is none. Raises StoreError if there is one of another family."""
        if family.key in self._described:
            return
        write_family(self.folder(family) / DESCRIPTION, family)
        self._described.add(family.key)

    def touch(self, family: Family) -> None:
        """Rewrite the description of a family, if there is one: what counts on it is safe from `gc` for a day."""
        path = self.folder(family) / DESCRIPTION
        if exists(path):
            _write_description(path, family)

    def _remove_uncommitted(self, paths: Sequence[StorePath]) -> None:
        """Make room again on a disk that was full. On object storage a commit may still succeed after its answer."""
        if isinstance(self.root, Path):
            with contextlib.suppress(StoreError):
                named = self.manifest.shards()
                remove_files([path for path in paths if (path.parent.name, path.name) not in named])

    def _places(
        self, family: Family, video_ids: Iterable[str] | None, *, as_known: bool = False, again: bool = False
    ) -> Places:
        if as_known:
            with self._lock:
                if again or family.key not in self._known:
                    self._known[family.key] = self.manifest.places(family.key)
                return self._known[family.key]
        few = list(video_ids) if video_ids is not None else None
        return self.manifest.places(family.key, few if few is not None and len(few) <= FEW else None)

    def _read_shard(self, family: Family, name: str, videos: np.ndarray) -> Iterator[VideoFeatures]:
        path = self.folder(family) / name
        header = read_header(path, format_of(path))
        known = hashes([entry.video_id for entry in header.videos])
        positions = np.flatnonzero(np.isin(known, videos)).tolist()
        if len(positions) != len(videos):
            raise damaged(path, ValueError("it lacks videos that the manifest names"))
        yield from read_videos(path, format_of(path), header, positions)


def manifest_rows(header: ShardHeader, shard: str, run: str) -> list[Row]:
    """Return the rows of the manifest for all videos of a shard."""
    return [
        Row(header.family.key, entry.video_id, entry.video_sha256, shard, first_row, entry.tokens, entry.checksum, run)
        for first_row, entry in zip(header.first_rows, header.videos, strict=False)
    ]


def write_family(path: StorePath, family: Family) -> None:
    """Write the description of a family if there is none. Raises StoreError if there is one of another family."""
    if not exists(path):
        _write_description(path, family)
    elif read_family(path) != family:
        raise StoreError(f"{path} describes other features than its folder's name: move the folder away")


def _write_description(path: StorePath, family: Family) -> None:
    values = {"key": family.key, "shard_version": SHARD_VERSION, **family.to_dict()}
    with commit_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_family(path: StorePath) -> Family:
    """Read a description of a family.

    Raises:
        FileNotFoundError, UnreachableError, DamagedError: see `storage.errors.reading`.
        NewerVersionError: a newer version of the program wrote it.
    """
    with reading(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        key, version = values.pop("key"), values.pop("shard_version")
        if version > SHARD_VERSION:
            raise NewerVersionError(
                f"cannot read {path}: its version {version} is newer than this program's: update it"
            )
        family = Family.from_dict(values)
        if family.key != key:
            raise ValueError(f"its key {key} differs from that of its settings, {family.key}")
    return family

"""The manifest: which shard and rows hold the features of each video. What it does not name does not exist for readers.

A table of a store, in STORE/manifest, with one row per family and video; see `storage.tables.table` for commits. A
video whose file changed has two rows until `traitline store compact`: readers use the newest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from storage.errors import damaged
from storage.files.paths import StorePath
from storage.tables.table import Table

FOLDER = "manifest"
_SHARD = re.compile(r"shard-[0-9a-z-]+\.[a-z0-9]+")
FEW = 4096  # videos that are named in a query; the rows of more are found by reading the whole family
_BATCH_ROWS = 2**16  # whose texts are in memory at a time
_FIELDS: list[pa.Field[Any]] = [
    *(pa.field(name, pa.string(), nullable=False) for name in ("family", "video_id", "video_sha256", "shard")),
    pa.field("first_row", pa.int64(), nullable=False),
    pa.field("rows", pa.int32(), nullable=False),
    pa.field("checksum", pa.int64(), nullable=False),
    pa.field("run", pa.string(), nullable=False),
]
SCHEMA = pa.schema(_FIELDS)


class Row(NamedTuple):
    """Where the features of one video are.

    Args:
        family: key of the family.
        video_id: POSIX path of the video relative to the videos folder.
        video_sha256: SHA-256 of the video's bytes, in hex.
        shard: name of the file in the family's folder.
        first_row: of the video in the shard.
        rows: number of its rows, one per token.
        checksum: see `storage.shards.features.VideoFeatures.checksum`.
        run: random name of the process that computed them.
    """

    family: str
    video_id: str
    video_sha256: str
    shard: str
    first_row: int
    rows: int
    checksum: int
    run: str


def as_table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table with the schema of the manifest."""
    return pa.Table.from_pylist([row._asdict() for row in rows], schema=SCHEMA)


class Manifest:
    """The manifest of a store."""

    def __init__(self, root: StorePath) -> None:
        self.table = Table(root / FOLDER, SCHEMA, partition_by="family", indexed=("shard",))

    def add(self, rows: Sequence[Row]) -> None:
        """Commit rows, all or none. They are newer than all that this object has seen."""
        self.table.append(as_table(rows), as_seen=True)

    def shards(self) -> set[tuple[str, str]]:
        """Return the key of the family and the name of each shard that any row names, superseded rows too."""
        found: set[tuple[str, str]] = set()
        for rows in self.table.scan(columns=["family", "shard"]):
            pairs = rows.group_by(["family", "shard"]).aggregate([])
            found.update((row["family"], self._checked(row["shard"])) for row in pairs.to_pylist())
        return found

    def rows(self, key: str, **where: Collection[str]) -> list[tuple[int, Row]]:
        """Return rows of a family, superseded ones too, each with its version.

        Args:
            key: of the family.
            where: values of columns, such as `shard=names` or `video_id=ids`.
        """
        found = (values for rows in self.table.scan({"family": [key], **where}) for values in rows.to_pylist())
        rows = [(values["version"], Row(**{name: values[name] for name in Row._fields})) for values in found]
        for _, row in rows:
            self._checked(row.shard)
        return rows

    def places(self, key: str, videos: Collection[str] | None = None) -> Places:
        """Return the newest place of each video of a family, or of some videos at least."""
        columns = ["video_id", "video_sha256", "shard", "rows", "version"]
        where = {"family": [key]} if videos is None else {"family": [key], "video_id": videos}
        places = Places.of(self.table.scan(where, columns))
        for name in places.names:
            self._checked(name)
        return places

    def current(self, key: str) -> Iterator[pa.Table]:
        """Yield "video_id" and "video_sha256" of the newest features, in ascending order of the ids, in parts."""
        return self.table.newest({"family": [key]}, ["video_id", "video_sha256"])

    def move(self, key: str, shards: Collection[str], to: Mapping[tuple[str, str], Row]) -> int:
        """Let rows name another shard, in one commit; nobody sees the videos twice or not at all.

        Args:
            key: of the family.
            shards: names of the present shards.
            to: the new rows, by video_id and present shard; they differ from the present ones in the place only. Rows
                of these shards that are not among them are removed.

        Returns:
            The number of rows that named these shards; 0 if another process moved or removed all of them before.
        """

        def moved(rows: pa.Table) -> pa.Table:
            changed = []
            for values in rows.to_pylist():
                row = to.get((values["video_id"], values["shard"]))
                if row is not None:
                    changed.append({**values, "shard": row.shard, "first_row": row.first_row})
            return pa.Table.from_pylist(changed, schema=rows.schema)

        return self.table.change({"family": [key], "shard": shards}, moved)

    def remove(self, key: str, **where: Collection[str]) -> int:
        """Remove rows of a family, chosen as by `rows`; return their number."""
        return self.table.delete({"family": [key], **where})

    def _checked(self, shard: str) -> str:
        """Return the name of a shard if it leads nowhere else: files with these names are read, moved and removed."""
        if not _SHARD.fullmatch(shard):
            raise damaged(self.table.folder, ValueError(f"it names the shard {shard!r}"))
        return shard


@dataclass(frozen=True, eq=False)
class Places:
    """The shard of each video of a family, at 24 bytes a video.

    Videos and digests are kept as 64-bit hashes with a random key. That two of ten million videos share a hash has a
    probability of 3e-6; to be mixed up, their files would have to be equal too.

    Args:
        names: of the shards, oldest first.
        videos: int64 [N], hashes of video ids, ascending.
        digests: int64 [N], hashes of their digests.
        shards: int32 [N], positions in `names`.
        rows: int32 [N], numbers of rows.
        held_rows: int64, rows of each shard that the manifest names, superseded ones too.
    """

    names: Sequence[str]
    videos: np.ndarray
    digests: np.ndarray
    shards: np.ndarray
    rows: np.ndarray
    held_rows: np.ndarray

    @classmethod
    def of(cls, tables: Iterator[pa.Table]) -> Places:
        """Keep the newest row of each video."""
        codes: dict[str, int] = {}
        parts: list[tuple[np.ndarray, ...]] = []
        for batch in (batch for table in tables for batch in table.to_batches(max_chunksize=_BATCH_ROWS)):
            encoded: Any = batch["shard"].dictionary_encode()
            own = np.array([codes.setdefault(name, len(codes)) for name in encoded.dictionary.to_pylist()], np.int32)
            shards = own[encoded.indices.to_numpy()]
            texts: list[Any] = [batch[name].to_pylist() for name in ("video_id", "video_sha256")]
            videos, digests = map(hashes, texts)
            parts.append((videos, digests, shards, batch["rows"].to_numpy(), batch["version"].to_numpy()))
        if not parts:
            nothing = np.zeros(0, np.int64)
            return cls([], nothing, nothing, nothing.astype(np.int32), nothing.astype(np.int32), nothing)
        columns = [list(arrays) for arrays in zip(*parts, strict=True)]
        parts.clear()
        videos, digests, shards, rows, versions = (_joined(arrays) for arrays in columns)
        names = sorted(codes)
        rank = np.empty(len(names), np.int32)
        rank[[codes[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        shards = rank[shards]
        held_rows = np.bincount(shards, weights=rows, minlength=len(names)).astype(np.int64)
        order = np.argsort(videos, kind="stable")
        ascending = videos[order]
        if (ascending[1:] == ascending[:-1]).any():
            order = np.lexsort((shards, versions, videos))
            ascending = videos[order]
            order = order[np.append(ascending[1:] != ascending[:-1], True)]
        return cls(names, videos[order], digests[order], shards[order], rows[order], held_rows)

    def __len__(self) -> int:
        return len(self.videos)

    def shard_of(self, videos: np.ndarray) -> np.ndarray:
        """Return the position in `names` of each video's shard, int32; -1 if it has none.

        Args:
            videos: int64, from `hashes`.
        """
        where = self._where(videos)
        return np.where(where >= 0, self.shards[where] if len(self) else -1, -1).astype(np.int32)

    def has(self, videos: np.ndarray, digests: np.ndarray) -> np.ndarray:
        """Return whether each video has features of exactly the file with this digest, bool.

        Args:
            videos, digests: int64, from `hashes`.
        """
        where = self._where(videos)
        if not len(self):
            return np.zeros(len(videos), bool)
        same: np.ndarray = (where >= 0) & (self.digests[where] == digests)
        return same

    def by_shard(self, videos: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the hashes of the videos in each shard, oldest shard first; only those among `videos`, if given."""
        chosen = np.arange(len(self)) if videos is None else np.unique(self._where(videos))
        chosen = chosen[chosen >= 0]
        chosen = chosen[np.argsort(self.shards[chosen], kind="stable")]
        numbers, starts = np.unique(self.shards[chosen], return_index=True)
        parts = np.split(self.videos[chosen], starts[1:])
        return {self.names[number]: part for number, part in zip(numbers, parts, strict=False)}

    def live_rows(self) -> np.ndarray:
        """Return for each shard the number of rows that readers see, int64."""
        return np.bincount(self.shards, weights=self.rows, minlength=len(self.names)).astype(np.int64)

    def _where(self, videos: np.ndarray) -> np.ndarray:
        if not len(self):
            return np.full(len(videos), -1)
        place = np.minimum(np.searchsorted(self.videos, videos), len(self) - 1)
        return np.where(self.videos[place] == videos, place, -1)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """Concatenate arrays, and let go of them."""
    whole = np.concatenate(arrays)
    arrays.clear()
    return whole


def hashes(texts: Collection[str]) -> np.ndarray:
    """Return a 64-bit hash of each text, int64; the same only within this process."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))

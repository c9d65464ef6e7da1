"""Replacing shards by others with the same features, merged or of another format, while processes read and write.

The new shard is written and read back first. Then one commit of the manifest lets the rows name it, so that a reader
finds every video at any time, once. Rows that are superseded go in the same step. Of two processes that replace the
same shard, the second finds no rows left to change, and removes its own shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from storage.files.commit import commit_file, remove_files
from storage.shards.family import Family
from storage.shards.features import VideoFeatures
from storage.shards.formats import FormatName, check_shard, format_named, format_of
from storage.shards.header import Dtype, ShardFormat, ShardHeader, read_header, read_videos
from storage.shards.store import FeatureStore, manifest_rows
from storage.tables.manifest import Row

TARGET_BYTES = 2**26  # of vectors in a merged shard
MAX_VIDEOS = 2048  # in a merged shard: a reader of one video parses the list of all


@dataclass(slots=True)
class _Run:
    """Neighbouring small shards, the bytes of the vectors that readers see, and the number of videos."""

    sources: list[str] = field(default_factory=list)
    size: int = 0
    videos: int = 0
    wasteful: bool = False


def plan_merges(store: FeatureStore, family: Family, *, target_bytes: int = TARGET_BYTES) -> list[list[str]]:
    """Find runs of shards of one format to merge: small ones, and those that hold superseded rows.

    Args:
        target_bytes: largest size of a merged shard's vectors.

    Returns:
        The names of the shards of each run.
    """
    places = store.manifest.places(family.key)
    videos = {name: len(found) for name, found in places.by_shard().items()}
    runs_of: dict[str, list[_Run]] = {}  # by format
    for name, live, held in zip(places.names, places.live_rows().tolist(), places.held_rows.tolist(), strict=True):
        size = live * family.dim * 4
        if size >= target_bytes / 2 and live == held:
            continue
        runs = runs_of.setdefault(name.rpartition(".")[2], [_Run()])
        run = runs[-1]
        if run.sources and (run.size + size > target_bytes or run.videos + videos.get(name, 0) > MAX_VIDEOS):
            runs.append(run := _Run())
        run.sources.append(name)
        run.size += size
        run.videos += videos.get(name, 0)
        run.wasteful |= live < held
    return [run.sources for runs in runs_of.values() for run in runs if len(run.sources) > 1 or run.wasteful]


def shards_to_convert(store: FeatureStore, family: Family, format: FormatName) -> list[str]:
    """Return the names of the shards of a family that are not in `format`."""
    suffix = format_named(format).suffix
    return [name for name in store.manifest.places(family.key).names if not name.endswith(suffix)]


def rewrite(store: FeatureStore, family: Family, sources: Sequence[str], format: FormatName | None = None) -> list[str]:
    """Replace shards by one with the rows that readers see (one per dtype), and remove them. All are in memory.

    Args:
        sources: names of the shards.
        format: of the new shard; by default that of the first source.

    Returns:
        The names of the new shards; empty if the sources hold nothing that readers see, or if another process has
        replaced them.

    Raises:
        StoreError: a source is damaged, or the storage refused. Nothing is lost then.
    """
    rows = store.manifest.rows(family.key, shard=sources)
    if not rows:
        return []
    newest: dict[str, tuple[int, str]] = {}
    for version, row in store.manifest.rows(family.key, video_id=[row.video_id for _, row in rows]):
        newest[row.video_id] = max((version, row.shard), newest.get(row.video_id, (-1, "")))
    live = {(row.video_id, row.shard): row for version, row in rows if newest[row.video_id] == (version, row.shard)}
    try:
        found = _read(store, family, sources, live)
    except FileNotFoundError:
        return []  # another process has replaced them
    target = format_of(store.folder(family) / sources[0]) if format is None else format_named(format)
    version = store.manifest.table.version() + 1
    written = [_write(store, family, dtype, videos, target, version) for dtype, videos in found.items()]
    place_of = {row.video_id: row for new in written for row in new}
    to = {
        (video_id, shard): row._replace(shard=place_of[video_id].shard, first_row=place_of[video_id].first_row)
        for (video_id, shard), row in live.items()
    }
    moved = store.manifest.move(family.key, sources, to)
    names = [new[0].shard for new in written]
    folder = store.folder(family)
    for shards in (sources, names):
        named = {row.shard for _, row in store.manifest.rows(family.key, shard=shards)} if shards else set()
        remove_files([folder / name for name in shards if name not in named])
    return names if moved else []


def _read(
    store: FeatureStore, family: Family, sources: Sequence[str], live: dict[tuple[str, str], Row]
) -> dict[Dtype, list[VideoFeatures]]:
    found: dict[Dtype, list[VideoFeatures]] = {}
    for name in sources:
        path = store.folder(family) / name
        header = read_header(path, format_of(path))
        shown = [number for number, entry in enumerate(header.videos) if (entry.video_id, name) in live]
        if shown:
            found.setdefault(header.dtype, []).extend(read_videos(path, format_of(path), header, shown))
    return found


def _write(
    store: FeatureStore, family: Family, dtype: Dtype, videos: list[VideoFeatures], format: ShardFormat, version: int
) -> list[Row]:
    path = store.new_shard(family, version, format.suffix)
    header = ShardHeader.of(family, videos, dtype)
    with commit_file(path) as temporary:
        format.write(temporary, header, videos)
        check_shard(temporary)
    return manifest_rows(header, path.name, "")

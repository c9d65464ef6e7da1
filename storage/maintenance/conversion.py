"""Converting shards from one format to the other without loss, while other processes read and write."""

from __future__ import annotations

from storage.files.commit import commit_file, remove_files
from storage.files.paths import StorePath
from storage.shards.family import Family
from storage.shards.formats import FormatName, check_shard, format_named, format_of
from storage.shards.header import ShardHeader, gone, read_header, read_videos
from storage.shards.store import FeatureStore


def shards_to_convert(store: FeatureStore, family: Family, format: FormatName) -> list[StorePath]:
    """Return the shards of a family that are not in `format`."""
    suffix = format_named(format).suffix
    return [shard for shard in store.shards(family) if shard.suffix != suffix]


def convert_shard(shard: StorePath, format: FormatName) -> StorePath:
    """Rewrite a shard in another format, under the same name with the new suffix, and remove the original.

    Both files exist for a moment. They hold the same features, bit for bit, and a reader uses one of them. The vectors
    keep their dtype. The whole shard is in memory.

    Returns:
        The path of the new shard.

    Raises:
        StoreError: the shard is damaged or gone, or the operating system refused. Nothing is lost then.
    """
    try:
        header = read_header(shard, format_of(shard))
        videos = list(read_videos(shard, format_of(shard), header, range(len(header.videos))))
    except FileNotFoundError as error:
        raise gone(error) from error
    target = shard.with_suffix(format_named(format).suffix)
    with commit_file(target) as temporary:
        format_named(format).write(temporary, ShardHeader.of(header.family, videos, header.dtype), videos)
        check_shard(temporary)
    remove_files([shard])
    return target

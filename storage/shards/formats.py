"""The shard file formats that this program reads and writes."""

from __future__ import annotations

from typing import Literal

from storage.errors import StoreError
from storage.files.paths import StorePath, fetched, listing
from storage.shards.hdf5 import Hdf5Format
from storage.shards.header import ShardFormat, ShardHeader, checked, read_header
from storage.shards.parquet import ParquetFormat

FormatName = Literal["parquet", "hdf5"]
FORMATS: dict[str, ShardFormat] = {"parquet": ParquetFormat(), "hdf5": Hdf5Format()}
SUFFIXES = {format.suffix: format for format in FORMATS.values()}


def format_named(name: str) -> ShardFormat:
    """Return the format with this name. Raises StoreError if the name is unknown."""
    if name not in FORMATS:
        raise StoreError(f"unknown store format {name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of(shard: StorePath) -> ShardFormat:
    """Return the format of a shard's file, according to its suffix."""
    return SUFFIXES[shard.suffix]


def shards_in(folder: StorePath) -> list[StorePath]:
    """Return the files of a family's folder that have the names of shards, sorted."""
    names = sorted(name for name in listing(folder) if name.startswith("shard-"))
    return [folder / name for name in names if name[name.rfind(".") :] in SUFFIXES]


def check_shard(shard: StorePath) -> ShardHeader:
    """Read a whole shard twice: as this program's readers do, and as other programs do.

    One row group or block of rows is in memory at a time, of HDF5 and of a shard on object storage the whole file.

    Returns:
        The shard's header.

    Raises:
        FileNotFoundError, UnreachableError, DamagedError, NewerVersionError: as `read_header`.
    """
    format = format_of(shard)
    shard = fetched(shard)
    header = read_header(shard, format)
    every = range(len(header.videos))
    for videos in (format.read(shard, header, every), format.read_through_library(shard, header)):
        for _ in checked(shard, header, every, videos):
            pass
    return header

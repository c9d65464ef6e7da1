"""Feature shards as Parquet files that DuckDB, pandas and Polars can read directly.

One row per token: `video_id`, `video_sha256`, `token` (its number within the video), `start_s`, `end_s`, the family's
quality columns, and `vector`. No value is null. The header is in the footer's key-value metadata.

Measured on 64 videos (pyarrow 26; random numbers distributed like averaged ReLU maps, not real ones):

- `vector` is a fixed-size list. It reads as fast as a list (10.0 ms against 10.1 ms for 8.4 MB), but the dimension is
  part of the schema, and no ragged row can be written. DuckDB sees FLOAT[], Polars Array, pandas one array per row.
- Vectors are not compressed and occupy one page per row group, whose place the footer names. Readers here use plain
  reads, which take about the processor time of `np.fromfile` including all checksums. Byte stream split with zstd took
  0.83 of the raw size for static features, 0.75 for dynamic and 0.70 for faces, but 18 ms instead of 12 ms to write
  8.4 MB; only pyarrow could read the result, at 0.09 of the speed of `np.fromfile`.
- Row groups hold 8 MiB of vectors, as reading a single video takes no more than its own bytes of them. They are smaller
  for faces, whose times and quality columns are as large as their vectors and are read by row group.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.files.paths import StorePath, parquet_source
from storage.shards.columns import Column, cut_into_videos, cut_vectors
from storage.shards.features import VideoFeatures
from storage.shards.header import ShardHeader, VideoEntry

HEADER_KEY = "traitline"
ROW_GROUP_BYTES = 2**23
ROW_GROUP_ROWS = 2**14

_VECTOR = "vector.list.element"  # the Parquet path of the vectors' numbers
_PLACES_KEY = b"traitline_vectors"  # (offset in bytes, rows) of each row group's vectors
_NO_LIMIT = 2**31 - 1
_Codec = Literal["gzip", "brotli", "lz4", "zstd", "snappy", "none"]  # as pyarrow's stubs have it
_TAIL_BYTES = 2**16  # read at once; a longer footer takes a second read

_LABEL_FIELDS: list[pa.Field[Any]] = [
    pa.field("video_id", pa.string(), nullable=False),
    pa.field("video_sha256", pa.string(), nullable=False),
    pa.field("token", pa.int32(), nullable=False),
]
_LABELS = pa.schema(_LABEL_FIELDS)


class ParquetFormat:
    """Writes and reads shards as Parquet files; see `storage.shards.header.ShardFormat`."""

    suffix = ".parquet"

    def write(self, path: Path, header: ShardHeader, videos: Sequence[VideoFeatures]) -> None:
        """Write one shard file. Raises OSError if the disk refuses."""
        schema = _schema(header)
        compression: dict[str, _Codec] = {name: "zstd" for name in schema.names if name != "vector"}
        compression[_VECTOR] = "none"
        with (
            pa.OSFile(str(path), "wb") as sink,
            pq.ParquetWriter(
                sink,
                schema,
                compression=compression,
                use_dictionary=["video_id", "video_sha256"],  # type: ignore[arg-type]  # the stubs lack lists
                write_statistics=["video_id"],
                write_page_checksum=True,
                # Write one page of vectors per row group.
                data_page_size=_NO_LIMIT,
                max_rows_per_page=_NO_LIMIT,
            ) as writer,
        ):
            places = []
            for group in _row_groups(videos):
                rows = _rows(header, group)
                writer.write_table(rows, row_group_size=len(rows))
                # The vectors come last, in one page that ends with the unencoded numbers.
                places.append((sink.tell() - len(rows) * header.row_bytes, len(rows)))
            # In the footer only: schema metadata would be written twice, the second time in base64.
            writer.add_key_value_metadata({HEADER_KEY: header.to_text(), _PLACES_KEY.decode(): json.dumps(places)})

    def read_header(self, path: StorePath) -> ShardHeader:
        """Read the header from the footer. Raises OSError, ValueError, KeyError or TypeError if it is damaged."""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            tail = file.read()
            footer_bytes = int.from_bytes(tail[-8:-4], "little") + 8
            if tail[-4:] != b"PAR1" or footer_bytes > size:
                raise ValueError("it does not end as a Parquet file")
            if footer_bytes > len(tail):
                file.seek(size - footer_bytes)
                tail = file.read()
        header = ShardHeader.from_text(_header_text(tail[-footer_bytes:]).decode())
        header.check_size(size)
        return header

    def read(self, path: StorePath, header: ShardHeader, positions: Sequence[int]) -> Iterator[VideoFeatures]:
        """Read the vectors by plain reads and the few other numbers through pyarrow, row group by row group.

        Does not read the labels, which the header repeats. Raises OSError or ValueError if the file is damaged.
        """
        with _open(path, header) as file, path.open("rb") as stream:
            # The footer also has the places of pages, but pyarrow kills the process if it reads those of a damaged one.
            places = json.loads((file.metadata.metadata or {})[_PLACES_KEY])
            # Read each video's vectors into their own memory, so that keeping one video keeps no other.
            vectors = partial(Column(np.dtype(header.dtype), header.family.dim, places).read, stream)
            numbers = _numbers(header)
            for first, members, rows in _by_row_group(file, header, positions, numbers):
                columns = {name: rows[name].to_numpy() for name in numbers}
                yield from cut_into_videos(header, members, first, columns, vectors)

    def read_through_library(self, path: StorePath, header: ShardHeader) -> Iterator[VideoFeatures]:
        """Read as other programs do, verifying page checksums, one row group at a time."""
        with _open(path, header) as file:
            for first, members, rows in _by_row_group(file, header, range(len(header.videos)), None):
                if not rows.select(_LABELS.names).equals(_labels([header.videos[member] for member in members])):
                    raise ValueError("its rows belong to other videos than its header says")
                columns = {name: rows[name].to_numpy() for name in _numbers(header)}
                vector = cast("pa.FixedSizeListArray[Any, Any]", rows["vector"].combine_chunks())
                block = vector.flatten().to_numpy().reshape(-1, header.family.dim)
                yield from cut_into_videos(header, members, first, columns, partial(cut_vectors, block, first))


def _header_text(footer: bytes) -> bytes:
    """Cut the header out of a Parquet footer, in a tenth of the time that parsing the whole footer takes.

    Thrift's compact protocol writes the pair of texts as 0x18, length, key, 0x18, length, value, each length in groups
    of seven bits, lowest first. The header's own checksum shows whether the result is a header.
    """
    key = HEADER_KEY.encode()
    mark = b"\x18" + bytes([len(key)]) + key + b"\x18"
    start = footer.find(mark)
    if start < 0:
        raise ValueError("it has no feature shard header")
    position, length, shift = start + len(mark), 0, 0
    while position < len(footer) and shift < 64:
        byte = footer[position]
        length |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            break
    return footer[position : position + length]


@contextlib.contextmanager
def _open(path: StorePath, header: ShardHeader) -> Iterator[pq.ParquetFile]:
    remote = not isinstance(path, Path)  # if so, each row group is requested as a whole
    source = parquet_source(path)
    with (
        _arrow_errors_as_value_errors(),
        pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=remote) as file,
    ):
        if not file.schema_arrow.equals(_schema(header)):
            raise ValueError("its columns differ from its header")
        if file.metadata.num_rows != header.rows:
            raise ValueError(f"it has {file.metadata.num_rows} rows, but its header says {header.rows}")
        yield file


def _numbers(header: ShardHeader) -> list[str]:
    return ["start_s", "end_s", *header.family.quality]


def _by_row_group(
    file: pq.ParquetFile, header: ShardHeader, positions: Sequence[int], names: list[str] | None
) -> Iterator[tuple[int, list[int], pa.Table]]:
    """Read some columns of the row groups that hold these videos; yield first row, positions and rows."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    group_rows = np.cumsum([0, *sizes])
    groups = np.searchsorted(group_rows, header.first_rows[:-1], side="right") - 1
    for group, members in groupby(positions, key=lambda position: int(groups[position])):
        rows = file.read_row_group(group, columns=names, use_threads=False)
        yield int(group_rows[group]), list(members), rows


@contextlib.contextmanager
def _arrow_errors_as_value_errors() -> Iterator[None]:
    # Damage makes Arrow raise nearly any kind of error, including "not implemented" and "out of memory".
    try:
        yield
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _schema(header: ShardHeader) -> pa.Schema:
    family, number = header.family, {"float32": pa.float32(), "float16": pa.float16()}[header.dtype]
    vector = pa.list_(pa.field("element", number, nullable=False), family.dim)
    numbers = {"start_s": pa.float64(), "end_s": pa.float64(), **dict.fromkeys(family.quality, pa.float32())}
    columns = {**numbers, "vector": vector}
    return pa.schema([*_LABELS, *(pa.field(name, dtype, nullable=False) for name, dtype in columns.items())])


def _row_groups(videos: Sequence[VideoFeatures]) -> Iterator[list[VideoFeatures]]:
    """Group whole videos; a group ends with the video that reaches one of the limits."""
    group: list[VideoFeatures] = []
    size = rows = 0
    for video in videos:
        group.append(video)
        size += video.vectors.nbytes
        rows += video.tokens
        if size >= ROW_GROUP_BYTES or rows >= ROW_GROUP_ROWS:
            yield group
            group, size, rows = [], 0, 0
    if group:
        yield group


def _labels(videos: Sequence[VideoFeatures | VideoEntry]) -> pa.Table:
    """Build the columns that identify the videos of the rows, to be written or to be compared with a file."""
    tokens = [video.tokens for video in videos]
    columns = [
        np.repeat(np.array([video.video_id for video in videos], dtype=object), tokens),
        np.repeat(np.array([video.video_sha256 for video in videos], dtype=object), tokens),
        np.concatenate([np.arange(count, dtype=np.int32) for count in tokens]),
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=_LABELS)


def _rows(header: ShardHeader, videos: Sequence[VideoFeatures]) -> pa.Table:
    numbers = {
        "start_s": [video.start_s for video in videos],
        "end_s": [video.end_s for video in videos],
        **{name: [video.quality[name] for video in videos] for name in header.family.quality},
    }
    schema = _schema(header)
    # NumPy does the conversion, because it rounds to nearest.
    vectors = np.concatenate([video.vectors for video in videos]).astype(header.dtype, copy=False)
    flat = pa.array(vectors.ravel())
    vector = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type)
    columns = [*_labels(videos).columns, *(pa.array(np.concatenate(parts)) for parts in numbers.values()), vector]
    return pa.Table.from_arrays(columns, schema=schema)

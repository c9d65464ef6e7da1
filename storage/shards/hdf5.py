"""Feature shards as HDF5 files, for fast reading.

    header in the user block, the part of the file before the HDF5 data:
        "traitline <size of the file in bytes>", then the two lines of `ShardHeader.to_text`, then a line of JSON with
        the places of each dataset's rows, as pairs of offset in the file and number of rows; then zeros
    /vector   float32 or float16 [rows, dim]
    /time     float64 [rows, 2]: start_s, end_s
    /quality  float32 [rows, columns], in the order of the family's quality columns; absent if there are none
    /video_id    UTF-8 text of a fixed length, padded with zeros [videos]
    /first_row   int64 [videos]: the rows of a video reach from its first row to that of the next video

The attribute `dims` of each dataset names its axes, `columns` its columns, `units` their units, so that h5py, MATLAB
and R need nothing else. The rows belong to the header's videos, in the same order. All datasets are chunked and carry
HDF5's Fletcher32 checksums; all metadata carries checksums as well (file format of HDF5 1.10).

- Files are built in memory and written at once: nothing is appended in place, and a full disk is an ordinary error.
- A chunk is as large as one read. Chunks are not compressed, and their only filter is the checksum at their end, so
  plain reads at the places in the user block fetch their rows. `read_through_library` reads as other programs do;
  `check_shard` uses it to verify that they see the same data.
- NumPy converts float16, not HDF5.
- HDF5 can refer to other files and to code: external and soft links, external storage, virtual datasets, filters from
  plugins. A shard has none of these, so a file that has one is refused before any of its data is read.
- h5py's public functions take h5py's own lock; those inner functions that do not are not used.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5z

from storage.files.paths import StorePath
from storage.files.remote_reader import Stream
from storage.shards.columns import BLOCK_BYTES, Column, blocks, cut_into_videos, cut_vectors
from storage.shards.features import VideoFeatures
from storage.shards.header import ShardHeader

CHUNK_BYTES = 2**20

_MAGIC = b"traitline"
_HEADER_LINES_LIMIT = 2**30
_PAIR_BYTES = 48  # upper limit for a chunk's place in the user block


class Hdf5Format:
    """Writes and reads shards as HDF5 files; see `storage.shards.header.ShardFormat`."""

    suffix = ".h5"

    def write(self, path: Path, header: ShardHeader, videos: Sequence[VideoFeatures]) -> None:
        """Write one shard file. Raises OSError if the disk refuses."""
        layout = _layout(header)
        columns = {name: np.concatenate([_column(video, name, header) for video in videos]) for name in layout}
        chunk_shapes = {name: (_chunk_rows(header, *layout[name]), layout[name][0]) for name in layout}
        text = header.to_text().encode()
        chunks = sum(-(-header.rows // rows) for rows, _ in chunk_shapes.values())
        lead_bytes = len(_MAGIC) + len(text) + _PAIR_BYTES * chunks + 128
        block = max(512, 1 << (lead_bytes - 1).bit_length())  # HDF5 looks at 512, 1024, 2048 ...
        image = io.BytesIO()
        places = {}
        with h5py.File(image, "w", libver=("v110", "v114"), userblock_size=block) as file:
            for name, values in columns.items():
                # NumPy does the conversion: HDF5's own conversion to float16 is slow and was found to be inexact.
                data = values.astype(header.dtype, copy=False) if name == "vector" else values
                dataset = file.create_dataset(name, data=data, chunks=chunk_shapes[name], fletcher32=True)
                places[name] = _places(dataset)
                dataset.attrs.update({key: _texts(values) for key, values in _attributes(name, header).items()})
            for name, labels in _labels(header).items():
                dataset = file.create_dataset(name, data=labels, chunks=labels.shape, fletcher32=True)
                dataset.attrs["dims"] = _texts(["video"])
        with image.getbuffer() as written, path.open("wb") as stream:
            lead = b"%s %d\n%s\n%s\n" % (_MAGIC, len(written), text, json.dumps(places).encode())
            stream.write(lead.ljust(block, b"\0"))
            stream.write(written[block:])

    def read_header(self, path: StorePath) -> ShardHeader:
        """Read the user block only. Raises OSError, ValueError, KeyError or TypeError if it is damaged."""
        with path.open("rb") as stream:
            return _read_lead(stream)

    def read(self, path: StorePath, header: ShardHeader, positions: Sequence[int]) -> Iterator[VideoFeatures]:
        """Read by plain reads. Raises OSError, ValueError, KeyError or TypeError if the file is damaged."""
        with path.open("rb") as stream:
            _read_lead(stream)
            places = json.loads(stream.readline(_HEADER_LINES_LIMIT))
            columns = {name: Column(dtype, width, places[name]) for name, (width, dtype) in _layout(header).items()}
            # Read each video's vectors into their own memory, so that keeping one video keeps no other.
            vectors = partial(columns.pop("vector").read, stream)
            for first, last, members in blocks(header, positions, BLOCK_BYTES // header.row_bytes):
                rows = {name: column.read(stream, first, last) for name, column in columns.items()}
                yield from cut_into_videos(header, members, first, _named(rows, header), vectors)

    def read_through_library(self, path: StorePath, header: ShardHeader) -> Iterator[VideoFeatures]:
        """Read as other programs do, verifying Fletcher32. Raises OSError or ValueError if the file is damaged."""
        with _opened(path) as file:
            _check_structure(file, header)
            for name, labels in _labels(header).items():
                if not np.array_equal(file[name][:], labels):
                    raise ValueError(f"{name} differs from the header")
            for first, last, members in blocks(header, range(len(header.videos)), BLOCK_BYTES // header.row_bytes):
                rows = {name: file[name][first:last] for name in _layout(header)}
                vectors = partial(cut_vectors, rows["vector"], first)
                yield from cut_into_videos(header, members, first, _named(rows, header), vectors)


def _read_lead(stream: Stream) -> ShardHeader:
    magic, _, size = stream.readline(64).partition(b" ")
    if magic != _MAGIC:
        raise ValueError("it has no feature shard header")
    beginning = stream.tell()
    if int(size) != (found := stream.seek(0, os.SEEK_END)):
        raise ValueError(f"it has {found} bytes, not {int(size)}")
    stream.seek(beginning)
    text = stream.readline(_HEADER_LINES_LIMIT) + stream.readline(128).rstrip(b"\n")
    header = ShardHeader.from_text(text.decode())
    header.check_size(found)
    return header


def _places(dataset: h5py.Dataset) -> list[tuple[int, int]]:
    """Return the offset of each chunk of a dataset, and how many of its rows the chunk holds."""
    infos = [dataset.id.get_chunk_info(number) for number in range(dataset.id.get_num_chunks())]
    firsts = [info.chunk_offset[0] for info in infos]
    rows = np.diff([*firsts, len(dataset)]).tolist()
    return [(info.byte_offset, count) for info, count in zip(infos, rows, strict=True)]


def _named(rows: dict[str, np.ndarray], header: ShardHeader) -> dict[str, np.ndarray]:
    """Return the columns other than the vectors, under their own names."""
    quality = {name: rows["quality"][:, column] for column, name in enumerate(header.family.quality)}
    return {"start_s": rows["time"][:, 0], "end_s": rows["time"][:, 1], **quality}


def _layout(header: ShardHeader) -> dict[str, tuple[int, np.dtype]]:
    """Return the width and dtype of each dataset."""
    layout = {"vector": (header.family.dim, np.dtype(header.dtype)), "time": (2, np.dtype(np.float64))}
    if header.family.quality:
        layout["quality"] = (len(header.family.quality), np.dtype(np.float32))
    return layout


def _labels(header: ShardHeader) -> dict[str, np.ndarray]:
    """Return the datasets with one value for each video."""
    names = _texts([entry.video_id for entry in header.videos])
    return {"video_id": names, "first_row": np.array(header.first_rows[:-1], np.int64)}


def _texts(values: Sequence[str]) -> np.ndarray:
    """Return texts of a fixed length, which take less room than others and which every program reads."""
    encoded = [value.encode() for value in values]
    return np.array(encoded, h5py.string_dtype("utf-8", max(map(len, encoded))))


def _attributes(name: str, header: ShardHeader) -> dict[str, list[str]]:
    match name:
        case "time":
            return {"dims": ["row", "column"], "columns": ["start_s", "end_s"], "units": ["s", "s"]}
        case "quality":
            return {"dims": ["row", "column"], "columns": list(header.family.quality)}
    return {"dims": ["row", "number"]}


def _column(video: VideoFeatures, name: str, header: ShardHeader) -> np.ndarray:
    match name:
        case "vector":
            return video.vectors
        case "time":
            return np.stack([video.start_s, video.end_s], axis=1)
    return np.stack([video.quality[column] for column in header.family.quality], axis=1)


def _chunk_rows(header: ShardHeader, width: int, dtype: np.dtype) -> int:
    return min(max(CHUNK_BYTES // (width * dtype.itemsize), 1), header.rows)


def _check_structure(file: h5py.File, header: ShardHeader) -> None:
    """Check that a file has exactly the structure of a shard, before any data is read."""
    expected = {name: ((header.rows, width), dtype) for name, (width, dtype) in _layout(header).items()}
    expected |= {name: (labels.shape, labels.dtype) for name, labels in _labels(header).items()}
    if sorted(file) != sorted(expected):
        raise ValueError(f"it holds {', '.join(file)}")
    for name, (shape, dtype) in expected.items():
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"{name} is not a dataset")
        made = dataset.id.get_create_plist()
        filters = [made.get_filter(number)[0] for number in range(made.get_nfilters())]
        if made.get_layout() != h5d.CHUNKED or filters != [h5z.FILTER_FLETCHER32]:
            raise ValueError(f"{name} is not stored in plain chunks with Fletcher32")
        if (dataset.shape, dataset.dtype) != (shape, dtype):
            raise ValueError(f"{name} is {dataset.dtype} {dataset.shape}, which differs from the header")


@contextlib.contextmanager
def _opened(path: StorePath) -> Iterator[h5py.File]:
    # As a whole: HDF5 issues many small reads, and its errors do not always have the number of the system error, which
    # tells a file that cannot be reached from one that is damaged.
    image = io.BytesIO(path.read_bytes())
    try:
        with h5py.File(image, "r") as file:
            yield file
    except (RuntimeError, KeyError, TypeError, NotImplementedError) as error:  # h5py raises nearly any kind
        raise ValueError(str(error)) from error

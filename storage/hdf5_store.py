"""Feature shards as HDF5 files, for fast reading.

    header in the user block, which is whatever lies before the HDF5 part of the file:
        "traitline <size of the file in bytes>", then the two lines of `ShardHeader.to_text`, then zeros
    /vector   float32 or float16 [rows, dim]
    /time     float64 [rows, 2]: start_s, end_s
    /quality  float32 [rows, columns], in the order of the family's quality columns; absent where there are none

Rows are those of the header's videos, one video after the other. All datasets are chunked and carry HDF5's Fletcher32
checksums; all metadata carries checksums as well (file format of HDF5 1.10).

- Files are made in memory and written at once: nothing is ever appended in place, and a full disk is an ordinary error.
- A chunk of /vector holds about one video. Chunks are read as they lie, without HDF5's Fletcher32 (2 GB/s), for every
  video has a checksum of its own that is checked anyway; `check` verifies Fletcher32 too.
- float16 is converted by NumPy, not by HDF5.
- HDF5 has doors to other files and to code: external and soft links, external storage, virtual datasets, filters from
  plugins. A shard has none of them, so whatever has them is refused before any of its data is read.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5f, h5g, h5l, h5p, h5z
from h5py._hl.base import phil  # the lock around everything that h5py does

from storage.features import VideoFeatures
from storage.paths import StorePath
from storage.shard import ShardHeader

CHUNK_BYTES = (2**16, 2**20)  # least and most; in between, a chunk holds the longest video
BLOCK_BYTES = 2**20  # of vectors, for which times and quality are read at a time

_MAGIC = b"traitline"
_HEADER_LINES_LIMIT = 2**30


class Hdf5Format:
    """Writes and reads shards as HDF5 files; see `storage.shard.ShardFormat`."""

    suffix = ".h5"

    def write(self, path: Path, header: ShardHeader, videos: Sequence[VideoFeatures]) -> None:
        """Write one shard file. Raises OSError where the disk refuses."""
        columns = {name: np.concatenate([_column(video, name, header) for video in videos]) for name in _names(header)}
        text = header.to_text().encode()
        block = max(512, 1 << (len(_MAGIC) + len(text) + 24).bit_length())  # HDF5 looks at 512, 1024, 2048 ...
        image = io.BytesIO()
        with h5py.File(image, "w", libver=("v110", "v114"), userblock_size=block) as file:
            for name, values in columns.items():
                # Cast here, first: HDF5's own conversion to float16 is slow and was found inexact.
                data = values.astype(header.dtype, copy=False) if name == "vector" else values
                file.create_dataset(name, data=data, chunks=_chunk(name, header), fletcher32=True)
        with image.getbuffer() as data, path.open("wb") as stream:
            lead = b"%s %d\n%s\n" % (_MAGIC, len(data), text)
            stream.write(lead.ljust(block, b"\0"))
            stream.write(data[block:])

    def read_header(self, path: StorePath) -> ShardHeader:
        """Read the user block alone. Raises OSError, ValueError, KeyError or TypeError where it is damaged."""
        with path.open("rb") as stream:
            magic, _, size = stream.readline(64).partition(b" ")
            if magic != _MAGIC:
                raise ValueError("it has no header of a feature shard")
            beginning = stream.tell()
            if int(size) != (found := stream.seek(0, os.SEEK_END)):
                raise ValueError(f"it has {found} bytes, not {int(size)}")
            stream.seek(beginning)
            text = stream.readline(_HEADER_LINES_LIMIT) + stream.readline(128).rstrip(b"\n")
        return ShardHeader.from_text(text.decode())

    def read(self, path: StorePath, header: ShardHeader, positions: Sequence[int]) -> Iterator[VideoFeatures]:
        """Read chunk by chunk. The arrays are read-only. Raises OSError or ValueError where the file is damaged."""
        first_rows = np.cumsum([0, *(entry.tokens for entry in header.videos)]).tolist()
        with _open(path) as file:
            datasets = _datasets(file, header)
            vectors = _Vectors(datasets["vector"], header)
            for first, last, members in _blocks(positions, first_rows, BLOCK_BYTES // (4 * header.family.dim)):
                with _hdf5():
                    time = _read(datasets["time"], first, last)
                    quality = _read(datasets["quality"], first, last) if "quality" in datasets else None
                for position in members:
                    begin, end = first_rows[position], first_rows[position + 1]
                    entry, part = header.videos[position], slice(begin - first, end - first)
                    yield VideoFeatures(
                        video_id=entry.video_id,
                        video_sha256=entry.video_sha256,
                        vectors=vectors.read(begin, end),
                        start_s=time[part, 0],
                        end_s=time[part, 1],
                        quality={name: quality[part, column] for column, name in enumerate(header.family.quality)},
                    )

    def check(self, path: StorePath, header: ShardHeader) -> None:
        """Read all through HDF5, which verifies Fletcher32. Raises OSError or ValueError where that fails."""
        with _open(path) as file:
            for name, dataset in _datasets(file, header).items():
                step = _chunk(name, header)[0]
                for first in range(0, header.rows, step):
                    with _hdf5():
                        _read(dataset, first, min(first + step, header.rows))


class _Vectors:
    """Rows of /vector, a chunk at a time."""

    def __init__(self, dataset: h5d.DatasetID, header: ShardHeader) -> None:
        self._dataset = dataset
        self._chunk = _chunk("vector", header)
        self._dtype = np.dtype(header.dtype)
        self._index = -1
        self._rows = np.empty(0)

    def read(self, first: int, last: int) -> np.ndarray:
        """float32 [last - first, dim]; read-only."""
        size = self._chunk[0]
        parts = []
        for index in range(first // size, (last - 1) // size + 1):
            rows = self._read_chunk(index)
            parts.append(rows[max(first - index * size, 0) : last - index * size])
        vectors = parts[0] if len(parts) == 1 else np.concatenate(parts)
        vectors = vectors.astype(np.float32, copy=False)
        vectors.flags.writeable = False
        return vectors

    def _read_chunk(self, index: int) -> np.ndarray:
        if index != self._index:  # videos that share a chunk follow each other
            rows, dim = self._chunk
            with _hdf5():
                skipped_filters, data = self._dataset.read_direct_chunk((index * rows, 0))
            if skipped_filters or len(data) != rows * dim * self._dtype.itemsize + 4:  # 4 bytes of Fletcher32
                raise ValueError("a chunk of its vectors has another size or no checksum")
            self._rows = np.frombuffer(data, self._dtype, rows * dim).reshape(rows, dim)
            self._index = index
        return self._rows


def _names(header: ShardHeader) -> tuple[str, ...]:
    return ("vector", "time", "quality") if header.family.quality else ("vector", "time")


def _column(video: VideoFeatures, name: str, header: ShardHeader) -> np.ndarray:
    match name:
        case "vector":
            return video.vectors
        case "time":
            return np.stack([video.start_s, video.end_s], axis=1)
    return np.stack([video.quality[column] for column in header.family.quality], axis=1)


def _shape_and_dtype(name: str, header: ShardHeader) -> tuple[tuple[int, int], np.dtype]:
    match name:
        case "vector":
            return (header.rows, header.family.dim), np.dtype(header.dtype)
        case "time":
            return (header.rows, 2), np.dtype(np.float64)
    return (header.rows, len(header.family.quality)), np.dtype(np.float32)


def _chunk(name: str, header: ShardHeader) -> tuple[int, int]:
    (rows, width), dtype = _shape_and_dtype(name, header)
    least, most = (max(limit // (width * dtype.itemsize), 1) for limit in CHUNK_BYTES)
    longest = max(entry.tokens for entry in header.videos) if name == "vector" else 1
    return min(max(longest, least), most, rows), width


def _blocks(
    positions: Sequence[int], first_rows: Sequence[int], most_rows: int
) -> Iterator[tuple[int, int, list[int]]]:
    """Cut into runs of neighbours with at most so many rows, but at least a video: first row, row after, positions."""
    run: list[int] = []
    for position in positions:
        if run and (position != run[-1] + 1 or first_rows[position + 1] - first_rows[run[0]] > most_rows):
            yield first_rows[run[0]], first_rows[run[-1] + 1], run
            run = []
        run.append(position)
    if run:
        yield first_rows[run[0]], first_rows[run[-1] + 1], run


@contextlib.contextmanager
def _open(path: StorePath) -> Iterator[h5f.FileID]:
    with _hdf5():
        access = h5p.create(h5p.FILE_ACCESS)
        access.set_file_locking(False, True)  # shards never change, and some shared folders know no locks
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        if isinstance(path, Path):
            file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY, access)
        else:  # HDF5 asks for many small parts, so the whole object is fetched
            access.set_fapl_core(backing_store=False)
            access.set_file_image(path.read_bytes())
            file = h5f.open(os.fsencode(path.name), h5f.ACC_RDONLY, access)
    try:
        yield file
    finally:
        with _hdf5():
            file.close()


def _datasets(file: h5f.FileID, header: ShardHeader) -> dict[str, h5d.DatasetID]:
    """Open what a shard consists of, having made sure that it is just that."""
    datasets = {}
    with _hdf5():
        root = h5g.open(file, b"/")
        names = [name.decode() for name in root]
        if sorted(names) != sorted(_names(header)):
            raise ValueError(f"it holds {', '.join(names)}")
        for name in _names(header):
            if root.links.get_info(name.encode()).type != h5l.TYPE_HARD:
                raise ValueError(f"{name} is a link to elsewhere")
            dataset = h5d.open(root, name.encode())
            made = dataset.get_create_plist()
            filters = [made.get_filter(number)[0] for number in range(made.get_nfilters())]
            if made.get_layout() != h5d.CHUNKED or filters != [h5z.FILTER_FLETCHER32]:
                raise ValueError(f"{name} is not stored in plain chunks with Fletcher32")
            if (dataset.shape, dataset.dtype) != _shape_and_dtype(name, header):
                raise ValueError(f"{name} is {dataset.dtype} {dataset.shape}, not what its header says")
            if made.get_chunk() != _chunk(name, header):
                raise ValueError(f"{name} has chunks of {made.get_chunk()}, not what its header says")
            datasets[name] = dataset
    return datasets


def _read(dataset: h5d.DatasetID, first: int, last: int) -> np.ndarray:
    shape = (last - first, dataset.shape[1])
    values = np.empty(shape, dataset.dtype)
    chosen = dataset.get_space()
    chosen.select_hyperslab((first, 0), shape)
    dataset.read(h5py.h5s.create_simple(shape), chosen, values)
    values.flags.writeable = False
    return values


@contextlib.contextmanager
def _hdf5() -> Iterator[None]:
    # HDF5 knows no threads, and not all of h5py's inner functions take its lock themselves. Nor may it be held while a
    # video is handed out. And h5py raises nearly any kind of error for what HDF5 finds wrong in a file.
    try:
        with phil:
            yield
    except (RuntimeError, KeyError, TypeError, NotImplementedError) as error:
        raise ValueError(str(error)) from error

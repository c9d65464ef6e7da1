"""A search through all bytes of a store, as they are and as the libraries of their formats show them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator

import h5py
import numpy as np
import pyarrow.parquet as pq

from storage import VideoFeatures
from storage.files.paths import StorePath


def files_with(root: StorePath, texts: Iterable[str], videos: Iterable[VideoFeatures] = ()) -> set[str]:
    """Return the files that hold any of these texts, however they are escaped, or any row of these features."""
    texts = list(texts)
    forms = set(texts)
    for _ in range(3):
        forms |= {json.dumps(form, ensure_ascii=ascii)[1:-1] for form in forms for ascii in (False, True)}
    forms |= {repr(text)[1:-1] for text in texts}
    needles = [form.encode() for form in forms]
    needles += [row.tobytes() for video in videos for row in video.vectors]
    found = set()
    for path in root.rglob("*"):
        if path.is_file():
            parts = [str(path.relative_to(root)).encode(), *_decoded(path.read_bytes())]
            if any(needle in part for needle in needles for part in parts):
                found.add(str(path.relative_to(root)))
    return found


def _decoded(data: bytes) -> Iterator[bytes]:
    """Yield the bytes of a file, and its contents as the libraries of its format show them."""
    yield data
    yield json.dumps(data.decode(errors="replace")).encode()
    if data[:4] == b"PAR1":
        with pq.ParquetFile(io.BytesIO(data)) as file:
            yield repr(file.metadata.metadata).encode()
            for group in range(file.num_row_groups):
                for column in range(file.metadata.num_columns):
                    yield repr(file.metadata.row_group(group).column(column).statistics).encode()
            table = file.read()
            yield repr(table.drop_columns([n for n in ("vector",) if n in table.column_names]).to_pydict()).encode()
            for name in table.column_names:
                if name == "vector":
                    yield np.array(table[name].to_pylist(), np.float32).tobytes()
    elif data[1:4] == b"HDF":
        with h5py.File(io.BytesIO(data)) as file:
            found = []
            file.visititems(lambda _, item: found.append(item))
            for item in [file, *found]:
                yield repr(dict(item.attrs)).encode()
                if isinstance(item, h5py.Dataset):
                    yield np.asarray(item[()]).tobytes()
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            yield from map(file.read, file.namelist())

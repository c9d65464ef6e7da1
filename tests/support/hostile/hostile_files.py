"""Files that attack whoever reads them, for each kind that this program parses.

Each would write a canary, read a secret, remove a treasure or call a listener on this machine, if it were trusted.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from file_parsers import Parser
from hostile_pickles import Attacks, Box, Calls, hostile_npy, hostile_npz, hostile_pickles, pickles_of_some


def hostile_files(parsers: dict[str, Parser], box: Box) -> dict[str, Attacks]:
    """Name of parser -> name of attack -> the file."""
    pickles = hostile_pickles(box)
    tables = {
        name: hostile_parquet(parsers[name].seeds[0], box)
        for name in ("labels, Parquet", "groups, Parquet", "failures", "scores", "digests", "shard, parquet")
    }
    return {
        "labels, pickle": pickles,
        **tables,
        "labels, CSV": _foreign(parsers),
        "shard, hdf5": {**hostile_hdf5(parsers["shard, hdf5"].seeds[0], box), **pickles_of_some(pickles)},
        "settings, YAML": hostile_yaml(box),
        "settings, --set": {name: b"seed=" + text for name, text in hostile_yaml(box).items()},
        "checkpoint": hostile_npz(pickles, box),
        "optical flow, .npz": hostile_npz(pickles, box),
        "optical flow, .npy": {**hostile_npy(pickles), **pickles_of_some(pickles)},
        "assets.toml": hostile_toml(box),
        "bundle": hostile_bundles(parsers["bundle"].seeds[0], box),
        **hostile_json(box),
    }  # fmt: skip


def hostile_parquet(good: bytes, box: Box) -> Attacks:
    """Doors of Parquet and Arrow: pickled types, foreign schemas, columns that lie in other files."""
    table = pq.read_table(io.BytesIO(good))
    call = pickle.dumps(Calls(open, str(box.canary), "w"), 0)

    def written(changed: pa.Table, **options: object) -> bytes:
        sink = io.BytesIO()
        pq.write_table(changed, sink, **options)
        return sink.getvalue()

    def typed(name: bytes, payload: bytes) -> bytes:
        about = {b"ARROW:extension:name": name, b"ARROW:extension:metadata": payload}
        fields = [field.with_metadata(about) for field in table.schema]
        return written(pa.Table.from_arrays(table.columns, schema=pa.schema(fields, table.schema.metadata)))

    def told(**metadata: bytes) -> bytes:
        about = {**(table.schema.metadata or {}), **{name.encode(): text for name, text in metadata.items()}}
        return written(table.replace_schema_metadata(about))

    def elsewhere(place: str) -> bytes:
        metadata = pq.read_metadata(io.BytesIO(good))
        metadata.set_file_path(place)
        sink = io.BytesIO()
        metadata.write_metadata_file(sink)
        return sink.getvalue()

    pandas = {
        "index_columns": ["../../x"],
        "columns": [{"name": "a", "pandas_type": "object", "metadata": call.decode("latin-1")}],
    }
    opaque = pa.table({name: pa.array([call] * len(table), pa.binary()) for name in table.column_names})
    return {
        "pickled type": typed(b"arrow.py_extension_type", call),
        "pickled type of another name": typed(b"pandas.extension", call),
        "unknown type": typed(b"arrow.opaque", b'{"type_name": "x", "vendor_name": "y"}'),
        "JSON type": typed(b"arrow.json", b""),
        "tensor type": typed(b"arrow.fixed_shape_tensor", b'{"shape": [2147483647, 2147483647]}'),
        "schema of junk": told(**{"ARROW:schema": b"/////" + b"A" * 400}),
        "schema of a pickle": told(**{"ARROW:schema": call}),
        "pandas' metadata": told(pandas=json.dumps(pandas).encode()),
        "pandas' metadata of junk": told(pandas=b"\x80\x04."),
        "columns of pickles": written(opaque),
        "columns in another file": elsewhere(str(box.secret / "secret.parquet")),
        "columns in a file above": elsewhere("../secret/secret.parquet"),
        "columns at an address": elsewhere(f"{box.url}secret.parquet"),
        "nested without end": written(pa.table({name: _nested(len(table)) for name in table.column_names})),
        "a column by an odd name": written(table.rename_columns([f"../../{name}" for name in table.column_names])),
        "encrypted": good[:-4] + b"PARE",
        "claims a footer of 4 GB": good[:-8] + b"\xff\xff\xff\xffPAR1",
        "Feather": _feather(table),
        "pickle": call,
    }  # fmt: skip


def _nested(rows: int) -> pa.Array:
    array = pa.array([1] * rows)
    for _ in range(40):
        array = pa.StructArray.from_arrays([array], ["a"])
    return array


def _feather(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def hostile_hdf5(good: bytes, box: Box) -> Attacks:
    """Doors of HDF5, each in place of one array of a shard whose header is left right."""
    secret = str(box.secret / "secret.h5")

    def external(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        file.create_dataset(name, shape, dtype, external=[(secret, 0, h5py.h5f.UNLIMITED)])

    def virtual(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(secret, "data", shape)
        file.create_virtual_dataset(name, layout)

    def filtered(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk(shape)
        # 32000 is looked for among plugins, which are libraries that get loaded
        made.set_filter(32000, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), made)

    changes = {
        "external link": lambda file, name, shape, dtype: file.__setitem__(name, h5py.ExternalLink(secret, "data")),
        "link to an address": lambda file, name, *_: file.__setitem__(name, h5py.ExternalLink(box.url, "data")),
        "soft link": lambda file, name, *_: file.__setitem__(name, h5py.SoftLink("/time")),
        "external storage": external,
        "virtual array": virtual,
        "filter of a plugin": filtered,
        "objects of Python": lambda file, name, shape, dtype: file.create_dataset(
            name, (1,), h5py.special_dtype(vlen=bytes)
        ),
        "references": lambda file, name, shape, dtype: file.create_dataset(name, (1,), h5py.ref_dtype),
        "claimed and never written": lambda file, name, shape, dtype: file.create_dataset(
            name, (10**11,), dtype, chunks=(1000,), fletcher32=True
        ),
    }
    made = {}
    for title, change in changes.items():
        for name in ("vector", "time", "quality"):
            made[f"{title} as {name}"] = _changed_shard(good, name, change)
    return made


def _changed_shard(good: bytes, name: str, change: Callable[..., object]) -> bytes:
    image = io.BytesIO(good)
    with h5py.File(image, "r+") as file:
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        change(file, name, shape, dtype)
    data = image.getvalue()
    block = data.index(b"\x89HDF")
    _, _, text = data[:block].partition(b"\n")
    return (b"traitline %d\n%s" % (len(data), text.rstrip(b"\0"))).ljust(block, b"\0") + data[block:]


def hostile_yaml(box: Box) -> Attacks:
    """Tags with which PyYAML's other loaders would build and call anything; and texts that stand for far too much."""
    touch = f"touch {box.canary}"
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    texts = {
        "apply": f"!!python/object/apply:os.system ['{touch}']",
        "new": f"!!python/object/new:os.system ['{touch}']",
        "object": "!!python/object:evil.Anything {}",
        "module": "!!python/module:evil",
        "name": "!!python/name:evil.anything",
        "tuple": "!!python/tuple [1, 2]",
        "in a map": f"videos: !!python/object/apply:subprocess.check_output [['touch', '{box.canary}']]",
        "other tag": f"!include {box.secret / 'secret.csv'}",
        "tag of Ruby": "!ruby/object:Gem::Installer {i: x}",
        "a billion laughs": laughs + "videos: *a59\n",
        "a list of itself": "videos: &a [*a]",
        "a map of itself": "&a {videos: *a}",
        "merged with itself": "a: &a {<<: *a}",
        "very deep": "[" * 50_000,
        "a very long number": "9" * 1_000_000,
        "colons in base 60": "seed: " + ":".join(["59"] * 10_000),
    }
    return {name: text.encode() for name, text in texts.items()}


def hostile_toml(box: Box) -> Attacks:
    """Tables of assets that name files elsewhere."""
    good = (
        '[net]\ntitle = "t"\nversion = "1"\npurpose = "p"\nlicence = "l"\nlicence_file = "{licence}"\n'
        '[[net.files]]\nname = "{name}"\nsize = 7\ndigest = "md5:00"\nsources = ["{url}"]\n'
    )
    above = "../" * 20

    def table(licence: str = "free.txt", name: str = "w.bin") -> bytes:
        return good.format(licence=licence, name=name, url=box.url).encode()

    return {
        "licence above": table(licence=f"{above}{box.secret / 'secret.csv'}"),
        "absolute licence": table(licence=str(box.secret / "secret.csv")),
        "file above": table(name=f"{above}{box.canary}"),
        "absolute file": table(name=str(box.canary)),
        "asset above": table().replace(b"net", b'"../../x"'),
        "very deep": b"a = " + b"[" * 50_000,
    }


def hostile_bundles(good: bytes, box: Box) -> Attacks:
    """Archives with members that would land elsewhere, or be links to there."""

    def with_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", form: int = tarfile.GNU_FORMAT) -> bytes:
        made = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(good)) as source, tarfile.open(fileobj=made, mode="w", format=form) as tar:
            for member in source.getmembers():
                tar.addfile(member, source.extractfile(member))
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            tar.addfile(member)
        return made.getvalue()

    return {
        "member above": with_member(f"../{box.canary.name}"),
        "absolute member": with_member(str(box.canary)),
        "link to a secret": with_member("net/w.bin", tarfile.SYMTYPE, str(box.secret / "secret.csv")),
        "hard link to a secret": with_member("net/w.bin", tarfile.LNKTYPE, str(box.secret / "secret.csv")),
        "folder as a link": with_member("net", tarfile.SYMTYPE, str(box.secret)),
        "pipe": with_member("net/w.bin", tarfile.FIFOTYPE),
        "device": with_member("net/w.bin", tarfile.CHRTYPE),
        "long name": with_member("net/" + "n" * 5000),
        "long name, pax": with_member("net/" + "n" * 5000, form=tarfile.PAX_FORMAT),
        "zip": b"PK\x03\x04" + good,
        "gzip": gzip.compress(good),
    }


def hostile_json(box: Box) -> dict[str, Attacks]:
    """Small files of a store that name other files, processes or versions than they may."""
    here = {"host": "", "kernel": "", "namespace": "", "pid": -1, "started": 0}
    deep = {"very deep": b"[" * 100_000, "pickle": b"\x80\x04cos\nsystem\n."}

    def encoded(trees: dict[str, object]) -> Attacks:
        return {name: json.dumps(tree).encode() for name, tree in trees.items()} | deep

    def claim(**changes: object) -> dict[str, object]:
        return {"holder": "h", "process": here, "since": "", "videos": ["a"], **changes}

    own = {"name": "faces-1", "base": "random", "size": 1, "digest": "sha256:" + "0" * 64, "training": {}}
    return {
        "claim": encoded(
            {
                "all processes": claim(),
                "a text for a number": claim(process={**here, "pid": "1/../../x"}),
                "far too large": claim(process={**here, "pid": 10**30}),
                "no list": claim(videos="a"),
                "lists as ids": claim(videos=[["a"]]),
            }
        ),
        "alias of a model": encoded(
            {"above": {"version": "../../../secret"}, "absolute": {"version": str(box.secret)}}
        ),
        "metadata of a model": encoded(
            {"files above": {"files": {f"../../../{box.secret.name}/secret.csv": "0" * 64}}, "no files": {"files": 3}}
        ),
        "own asset": encoded(
            {"name above": {**own, "name": "../faces-1"}, "digest of none": {**own, "digest": "none:"}}
        ),
        "_family.json": encoded({"name above": {"key": "0", "name": "../../x", "dim": 3, "settings": {}}}),
        "evaluation": encoded({"a list": [], "another schema": {"schema": [], "labels_only": {}}}),
    }


def _foreign(parsers: dict[str, Parser]) -> Attacks:
    """Files of other kinds under a name that says CSV."""
    return {f"a {name} file": parsers[name].seeds[0] for name in ("labels, pickle", "bundle", "shard, hdf5", "digests")}

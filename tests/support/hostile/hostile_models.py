"""Makes files that attack whoever loads them as a model; each is given a canary to create and a secret to read."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Members = dict[str, bytes]


def members_of(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def function(module: str, name: str) -> dict[str, Any]:
    """How a config.json names a function of any module."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


def functional(*layers: dict[str, Any]) -> dict[str, Any]:
    """A config.json of an ordinary Keras model with these layers, the first an input."""
    start = {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, 3], "dtype": "float32", "name": "first"},
        "registered_name": None,
        "name": "first",
        "inbound_nodes": [],
    }
    config = {
        "name": "m",
        "trainable": True,
        "layers": [start, *layers],
        "input_layers": [["first", 0, 0]],
        "output_layers": [["first", 0, 0]],
    }
    return {"module": "keras", "class_name": "Functional", "config": config, "registered_name": "Functional"}


def layer(class_name: str, module: str = "keras.layers", inputs: Any = None, **config: Any) -> dict[str, Any]:
    nodes = [{"args": [], "kwargs": {"inputs": inputs}}] if inputs is not None else []
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": "attack", **config},
        "registered_name": None,
        "name": "attack",
        "inbound_nodes": nodes,
    }


def lambda_config(canary: Path) -> dict[str, Any]:
    """Marshalled bytecode, as Keras itself writes it, that creates the canary when the model is built."""
    import keras

    code = f"lambda x: (open({str(canary)!r}, 'w').close(), x)[1]"
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Lambda(eval(code))(inputs))
    canary.unlink(missing_ok=True)  # building it ran it
    return json.loads(model.to_json())


def hostile_configs(good: dict[str, Any], canary: Path, secret: Path) -> dict[str, Any]:
    """Name of the attack -> config.json; `good` is that of a model of this program's own."""
    command = f"touch {canary}"

    def own(**settings: Any) -> dict[str, Any]:
        return {**good, "config": {**good["config"], **settings}}

    return {
        "lambda": lambda_config(canary),
        "os.system as a layer": functional(layer("system", "os", command=command)),
        "os.system as a function": functional(layer("Lambda", function=function("os", "system"), inputs=command)),
        "subprocess as the model": {**function("subprocess", "call"), "config": ["touch", str(canary)]},
        "builtins.exec as an initialiser": functional(
            layer("Dense", units=1, kernel_initializer={**function("builtins", "exec"), "arguments": command})
        ),
        "os.system as an activation": functional(layer("Dense", units=1, activation=function("os", "system"))),
        "safe mode switched off": functional(
            layer("Lambda", function=function("keras.config", "enable_unsafe_deserialization"), inputs=[])
        ),
        "get_file": functional(
            layer(
                "Lambda",
                function=function("keras.utils", "get_file"),
                arguments={"origin": f"file://{secret}", "cache_dir": str(canary.parent), "force_download": True},
                inputs=canary.name,
            )
        ),
        "load_model within": functional(
            layer("Lambda", function=function("keras.models", "load_model"), arguments={"safe_mode": False})
        ),
        "StringLookup of a file": functional(layer("StringLookup", vocabulary=str(secret))),
        "TextVectorization of a file": functional(layer("TextVectorization", vocabulary=str(secret))),
        "TFSMLayer": functional(layer("TFSMLayer", filepath=str(secret.parent), call_endpoint="serve")),
        "TorchModuleWrapper": functional(layer("TorchModuleWrapper", module=str(secret))),
        "own layer as the model": {**good, "registered_name": "traitline>CrossAttention"},
        "own class that nobody knows": {**good, "registered_name": "traitline>Nobody"},
        "class of another package": {**good, "registered_name": "os>system"},
        "object as a setting": own(form=function("os", "system")),
        "object as dtype": own(dtype={"class_name": "QuantizedDTypePolicy", "config": function("os", "system")}),
        "setting that is not known": own(function=command),
        "setting that is no number": own(dropout_rate=float("nan")),
        "setting of another type": own(num_heads="4"),
        "settings out of range": own(num_heads=-1),
        "settings for terabytes": own(fusion_dim=100_000),
        "settings for more than terabytes": own(static_dim=10**12),
        "no settings": {**good, "config": None},
        "a list": [good],
    }


def hostile_weights(good: bytes, secret: Path) -> dict[str, bytes]:
    """Name of the attack -> model.weights.h5, each with one change to an array of a good one."""
    path = "head/scores/vars/1"
    raw = h5py.h5s.create_simple((5,))

    def external(file: h5py.File) -> None:
        file.create_dataset(path, (5,), "float32", external=[(str(secret), 0, 20)])

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((5,), "float32")
        layout[:] = h5py.VirtualSource(str(secret), "data", (5,))
        file.create_virtual_dataset(path, layout)

    def endless(file: h5py.File) -> None:
        source = h5py.VirtualSource(str(secret), "data", (5,), maxshape=(None,))
        layout = h5py.VirtualLayout((5,), "float32", maxshape=(None,))
        layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        file.create_virtual_dataset(path, layout)

    def unwritten(file: h5py.File) -> None:
        h5py.h5d.create(file["head/scores/vars"].id, b"1", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((10**11,)))

    def put(value: Any, **options: Any) -> Callable[[h5py.File], None]:
        return lambda file: file.create_dataset(path, data=value, **options) and None

    def link(target: Any) -> Callable[[h5py.File], None]:
        return lambda file: file.__setitem__(path, target)

    changes: dict[str, Callable[[h5py.File], None]] = {
        "external link": link(h5py.ExternalLink(str(secret), "data")),
        "soft link": link(h5py.SoftLink("/head/hidden/vars/1")),
        "external storage": external,
        "virtual array": virtual,
        "virtual array without end": endless,
        "pickle as text of any length": put(
            np.array([b"cos\nsystem\n"] * 5, object), dtype=h5py.special_dtype(vlen=bytes)
        ),
        "pickle as opaque bytes": put(np.array([b"cos\nsystem\n"] * 5, "V16")),
        "compressed bomb": put(np.zeros(10**7, np.float32), compression="gzip"),
        "claimed and never written": unwritten,
        "group in place of an array": lambda file: file.create_group(path) and None,
        "groups without end": lambda file: file.__setitem__(path, file["head"]),
        "type in place of an array": lambda file: file.__setitem__(path, np.dtype("f8")),
        "missing array": lambda file: None,
        "other shape": put(np.zeros(6, np.float32)),
        "other dtype": put(np.zeros(5, np.float64)),
        "additional array": lambda file: (put(np.zeros(5, np.float32))(file), file.__setitem__("more", np.zeros(3)))[0],
    }
    del raw
    made = {}
    for name, change in changes.items():
        buffer = io.BytesIO(good)
        with h5py.File(buffer, "r+") as file:
            del file[path]
            change(file)
        made[name] = buffer.getvalue()
    buffer = io.BytesIO(good)
    with h5py.File(buffer, "r+") as file:
        file["cross_attention/static_standardisation/vars/std"][:] = -1
    return {**made, "statistics below zero": buffer.getvalue(), "no HDF5 at all": b"cos\nsystem\n"}


def hostile_archives(good: Members, canary: Path) -> dict[str, bytes]:
    """Name of the attack -> a whole file in place of model.keras."""
    whole = packed(good)
    weights = "model.weights.h5"
    claims = bytearray(whole)
    entry = claims.rindex(b"PK\x01\x02", 0, claims.rindex(weights.encode()))
    claims[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    doubled = io.BytesIO(whole)
    with zipfile.ZipFile(doubled, "a") as archive, _quiet():
        archive.writestr("config.json", b"{}")
    return {
        "member outside": packed({**good, f"../../../{canary.name}": b""}),
        "absolute member": packed({**good, str(canary): b""}),
        "assets": packed({**good, "assets/vocabulary.txt": b""}),
        "two of one name": doubled.getvalue(),
        "no weights": packed({name: data for name, data in good.items() if name != weights}),
        "zip bomb": packed({**good, weights: bytes(300 * 2**20)}, zipfile.ZIP_DEFLATED),
        "bomb of configuration": packed({**good, "config.json": b" " * 2**20}),
        "claims two gigabytes": bytes(claims),
        "deep JSON": packed({**good, "config.json": b"[" * 60_000}),
        "no JSON": packed({**good, "config.json": b"\x80\x04."}),
        "cut short": whole[:-30],
        "pickle": b"\x80\x04cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.",
        "nothing": b"",
    }


def _quiet() -> Any:
    import warnings

    context = warnings.catch_warnings()
    warnings.simplefilter("ignore")
    return context

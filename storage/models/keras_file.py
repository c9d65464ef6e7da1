"""Models as .keras files, read without running any code in them.

Keras' own loader builds any object that the file's config.json names, and a series of flaws let such a file run code or
read other files: CVE-2024-3660 (Lambda), CVE-2025-1550 (any function by its module's name), CVE-2025-8747 (Keras' own
download function as a layer's function), CVE-2025-9905 (.h5, which ignores safe mode), CVE-2025-9906 (config that
disables safe mode), CVE-2025-12058 (lookup layers that read files), CVE-2025-12060 (unpacking outside the folder),
CVE-2026-1669 (weights stored in other files). A list of forbidden features would have to grow with Keras.

Therefore nothing from the file is deserialised. The file may only name one of this program's own model classes and its
plain settings; the model is built here from those. Its weights must be exactly the arrays, by name, shape and dtype,
that this program writes for such a model, stored as plain bytes within the file.
"""

from __future__ import annotations

import inspect
import io
import json
import math
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from storage.errors import StoreError

if TYPE_CHECKING:
    import keras

PACKAGE = "traitline"
"""The name under which this program registers its classes with Keras."""

MAX_FILE_BYTES = 2**30  # bytes; a model of full size has 3 MB
_MAX_TEXT_BYTES = 2**16
_WEIGHTS = "model.weights.h5"
_MEMBERS = {"config.json": _MAX_TEXT_BYTES, "metadata.json": _MAX_TEXT_BYTES, _WEIGHTS: MAX_FILE_BYTES}
_OWN_NAME = re.compile(rf"{PACKAGE}>(\w+)", re.ASCII)
_CLASS = re.compile(rb'"class_name": *"([^"]*)"')
_DTYPES = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")
_HDF5 = b"\x89HDF"
_MAX_DEPTH = 16  # nested groups; a link from a group to one above it would never end

Layout = dict[str, tuple[tuple[int, ...], str]]


class _RefusedError(Exception):
    """The reason why a file is not loaded."""


def write_model(model: keras.Model, path: Path) -> None:
    """Write a model's settings and weights, without the optimiser's state, as a .keras file for `read_model`.

    Raises:
        ValueError: the model's class is not one of this program's own, or has settings other than plain values.
        OSError: the operating system refused.
    """
    import keras

    config = {"registered_name": keras.saving.get_registered_name(type(model)), "config": model.get_config()}
    try:
        model_class, settings = _recipe(json.dumps(config).encode())
    except _RefusedError as refused:
        raise ValueError(f"a {type(model).__name__} cannot be saved: {refused}") from refused
    # A copy that was never compiled, because the optimiser's state would take twice the bytes of the weights.
    copy = model_class(**settings)
    with tempfile.TemporaryDirectory(prefix="traitline-") as folder:
        weights = Path(folder, _WEIGHTS)
        model.save_weights(weights)
        copy.load_weights(weights)
    copy.save(path)


def read_model(data: bytes, name: object) -> keras.Model:
    """Build an uncompiled model from a .keras file. Runs nothing in the file and reads no other file.

    The package that registers the model's class must have been imported.

    Args:
        data: the file's bytes.
        name: of the file, for messages.

    Raises:
        StoreError: the file has another format, is damaged, or differs from the files that this program writes.
    """
    try:
        members = _unpack(data)
        model_class, settings = _recipe(members["config.json"])
        return _build(model_class, settings, members[_WEIGHTS])
    except _RefusedError as refused:
        advice = "nothing in it was run; load only models that `traitline train` has saved"
        raise StoreError(f"cannot load {name}: {refused}; {advice}") from refused


def _unpack(data: bytes) -> dict[str, bytes]:
    """Return the archive's members after checking their declared sizes; writes nothing to disk."""
    if data.startswith(_HDF5):
        raise _RefusedError("it is an HDF5 model (.h5), a format that can hold code; only .keras files are read")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = sorted(member.filename for member in members)
            if names != sorted(_MEMBERS):
                raise _RefusedError(f"it must hold {', '.join(_MEMBERS)} and nothing else, not {_some(names)}")
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise _RefusedError(f"its {member.filename} is compressed or encrypted, which Keras never does")
                if member.file_size > min(_MEMBERS[member.filename], len(data)):
                    raise _RefusedError(f"its {member.filename} claims {member.file_size:,} bytes, which is impossible")
            return {member.filename: archive.read(member) for member in members}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError) as error:
        raise _RefusedError(f"it is not a .keras file, or it is damaged ({_one_line(error)})") from error


def _recipe(config: bytes) -> tuple[type[keras.Model], dict[str, Any]]:
    """Return one of this program's own classes and its settings; ignores everything else in the text."""
    import keras

    try:
        tree = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(f"its config.json is not JSON ({_one_line(error)})") from error
    if not isinstance(tree, dict):
        raise _RefusedError("its config.json must hold one JSON object")
    registered = str(tree.get("registered_name"))
    own = _OWN_NAME.fullmatch(registered)
    model_class = keras.saving.get_registered_object(registered) if own else None
    if own and model_class is None:
        raise _RefusedError(f"its class {own[1]} is unknown; import the package that registers it first")
    if not (isinstance(model_class, type) and issubclass(model_class, keras.Model)):
        named = {value.decode(errors="replace") for value in _CLASS.findall(config)}
        classes = _some(sorted(named or {registered}))
        raise _RefusedError(f"it is made of {classes}, not of a model class of this program")
    return model_class, _settings(model_class, tree.get("config"))


def _settings(model_class: type[keras.Model], config: Any) -> dict[str, Any]:
    """Return the arguments of the class's constructor, each checked against the type of its default."""
    if not isinstance(config, dict):
        raise _RefusedError("its config.json has no settings")
    defaults: dict[str, Any] = {"name": "", "trainable": True, "dtype": ""}
    for parameter in inspect.signature(model_class).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            defaults[parameter.name] = parameter.default
    settings = {**config, "dtype": _dtype_name(config.get("dtype", "float32"))}
    for name, value in settings.items():
        if name not in defaults:
            raise _RefusedError(f"its setting {name[:80]!r} is unknown")
        kinds = {type(defaults[name]), int} if type(defaults[name]) is float else {type(defaults[name])}
        if type(value) not in kinds or (isinstance(value, float) and not math.isfinite(value)):
            raise _RefusedError(f"its setting {name!r} must be like {defaults[name]!r}, not {_one_line(value)}")
    return settings


def _dtype_name(dtype: Any) -> str:
    if isinstance(dtype, dict) and dtype.get("class_name") == "DTypePolicy" and isinstance(dtype.get("config"), dict):
        dtype = dtype["config"].get("name")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _RefusedError(f"its dtype must be one of {', '.join(_DTYPES)}, not {_one_line(dtype)}")
    return dtype


def _build(model_class: type[keras.Model], settings: Mapping[str, Any], weights: bytes) -> keras.Model:
    import keras
    import tensorflow as tf

    found = _layout(weights)
    held = sum(math.prod(shape) for shape, _ in found.values())
    for name, value in settings.items():
        if type(value) is int and value > held:
            raise _RefusedError(f"its setting {name!r} is {value:,}, and it holds {held:,} numbers in all")
    try:
        # First as a graph that is never run, because a hostile file's settings may require terabytes.
        with tf.Graph().as_default(), keras.StatelessScope(initialize_variables=False):
            numbers = sum(math.prod(variable.shape) for variable in model_class(**settings).weights)
        if numbers > held:
            raise _RefusedError(f"its settings describe a model with {numbers:,} weights, but it holds {held:,}")
        model = model_class(**settings)
        with tempfile.TemporaryDirectory(prefix="traitline-") as folder:
            path = Path(folder, _WEIGHTS)
            model.save_weights(path)
            _compare(found, _layout(path.read_bytes()))
            path.write_bytes(weights)
            model.load_weights(path)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise _RefusedError(f"its settings or weights do not fit ({_one_line(error)})") from error
    return model


def _compare(found: Layout, expected: Layout) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            texts = [
                f"{array[1]} {list(array[0])}" if array is not None else "absent"
                for array in (found.get(name), expected.get(name))
            ]
            raise _RefusedError(f"its array {name[:200]!r} is {texts[0]}, but in this model it is {texts[1]}")


def _layout(weights: bytes) -> Layout:
    """Return name, shape and dtype of every array, all of which lie within these bytes."""
    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            layout = dict(_arrays(file, "", len(weights)))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _RefusedError(f"its weights are not an HDF5 file, or are damaged ({_one_line(error)})") from error
    return layout


def _arrays(group: h5py.Group, prefix: str, file_bytes: int) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
    if prefix.count("/") > _MAX_DEPTH:
        raise _RefusedError("its weights are nested too deeply in groups")
    for name in group:
        path = f"{prefix}{name}"
        # Refuse a soft or external link before anything behind it is opened.
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _RefusedError(f"its weights hold a link, {path[:200]!r}, which could lead to other files")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _arrays(item, f"{path}/", file_bytes)
        elif isinstance(item, h5py.Dataset):
            yield path, _plain(item, path[:200], file_bytes)
        else:
            raise _RefusedError(f"its weights hold {path[:200]!r}, which is not an array")


def _plain(array: h5py.Dataset, path: str, file_bytes: int) -> tuple[tuple[int, ...], str]:
    # The creation list first: asking a virtual array for its shape may open the files behind it.
    created = array.id.get_create_plist()
    if created.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or created.get_external_count() > 0:
        raise _RefusedError(f"its array {path!r} is not stored as plain bytes within the file")
    if array.dtype.kind not in "fiub" or array.dtype.subdtype is not None:
        raise _RefusedError(f"its array {path!r} does not consist of numbers")
    size = math.prod(array.shape) * array.dtype.itemsize
    if size > file_bytes or array.id.get_storage_size() != size:
        raise _RefusedError(f"its array {path!r} claims {size:,} bytes, which it does not hold")
    return array.shape, array.dtype.str


def _some(names: list[str]) -> str:
    shown = [_one_line(name) for name in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _one_line(value: object) -> str:
    text = str(value) if isinstance(value, str | BaseException) else repr(value)
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200]

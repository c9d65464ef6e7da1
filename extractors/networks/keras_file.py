"""Networks from .keras files, built of plain layers only.

Keras' own loader builds any object that the file names, and a series of flaws let files run code or read other files
(see SECURITY.md). Here every object that the file names must be one of the layers, initializers and the like listed
below, none of which holds code or opens files; only then is it built. The file's weights are loaded by Keras, which
refuses weights in other files (3.15).
"""

from __future__ import annotations

import copy
import io
import json
import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from extractors.errors import first_line
from extractors.networks.precision import settle_precision
from extractors.networks.signature import FileRefusedError, Run, Shape, Signature

if TYPE_CHECKING:
    import keras

_WEIGHTS = "model.weights.h5"
_MAX_CONFIG_BYTES = 2**24

_LAYERS = frozenset(
    """
    InputLayer Activation ReLU LeakyReLU PReLU ELU Softmax Identity Dropout SpatialDropout1D SpatialDropout2D
    SpatialDropout3D GaussianNoise GaussianDropout AlphaDropout
    Dense EinsumDense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose DepthwiseConv1D
    DepthwiseConv2D SeparableConv1D SeparableConv2D
    BatchNormalization LayerNormalization GroupNormalization UnitNormalization RMSNormalization
    MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    Add Subtract Multiply Average Maximum Minimum Concatenate Dot
    Flatten Reshape Permute RepeatVector ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D
    UpSampling1D UpSampling2D UpSampling3D
    Rescaling Normalization Resizing CenterCrop
    MultiHeadAttention GroupQueryAttention Attention AdditiveAttention
    LSTM GRU SimpleRNN LSTMCell GRUCell SimpleRNNCell ConvLSTM2D ConvLSTM3D Bidirectional TimeDistributed
    """.split()  # noqa: SIM905 - a list literal would take 80 lines
)
# By module as Keras writes it. All classes of the second kind hold only numbers.
_MODELS = {("keras.src.models.functional", "Functional"), ("keras", "Functional"), ("keras", "Model")}
_MODELS |= {("keras", "Sequential"), ("keras.models", "Sequential"), ("keras.src.models.sequential", "Sequential")}
_VALUES = ("keras.initializers", "keras.regularizers", "keras.constraints", "keras.dtype_policies", "keras")
_OPERATIONS = ("keras.src.ops.numpy", "keras.src.ops.nn", "keras.src.ops.math", "keras.src.ops.core")
_NOT_OPERATIONS = frozenset({"Map", "Scan", "Cond", "WhileLoop", "ForiLoop", "SwitchOp", "CustomGradient", "While"})


def read_signature(data: bytes) -> Signature:
    """Build the network, and return its input and outputs.

    Raises:
        FileRefusedError: it is damaged, has other parts than plain layers, or does not have one float32 input.
    """
    model = _load(data)
    if len(model.inputs) != 1:
        names = ", ".join(given.name for given in model.inputs) or "none"
        raise FileRefusedError(f"it must have one input, and has {len(model.inputs)}: {names}")
    outputs = dict(zip(_output_names(model), model.outputs, strict=True))
    for name, tensor in (("its input", model.inputs[0]), *outputs.items()):
        if tensor.dtype != "float32":
            raise FileRefusedError(f"{name} is {tensor.dtype}, not float32: cast it within the network")
    return Signature(_shape(model.inputs[0]), {name: _shape(tensor) for name, tensor in outputs.items()})


def open_network(data: bytes, output: str) -> Run:
    """Return a function that runs one output of the network."""
    import keras

    settle_precision("float32")
    model = _load(data)
    chosen = model.outputs[_output_names(model).index(output)]
    network = keras.Model(model.inputs[0], chosen)
    network.jit_compile = False

    def run(batch: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(network.predict_on_batch(batch))
        except Exception as error:  # Keras raises whatever a layer's settings lead to
            raise FileRefusedError(f"it cannot be run ({first_line(error)})") from error

    return run


def _output_names(model: keras.Model) -> list[str]:
    # Layers may give two outputs or be used twice; Keras names outputs by layers.
    names: list[str] = []
    for name in model.output_names:
        names.append(name if name not in names else f"{name}:{names.count(name)}:{len(names)}")
    return names


def _shape(tensor: keras.KerasTensor) -> Shape:
    return tuple(tensor.shape)


def _load(data: bytes) -> keras.Model:
    config, weights = _unpack(data)
    try:
        tree = json.loads(config)
        _check(tree)
    except (ValueError, RecursionError) as error:
        raise FileRefusedError(f"its config.json is not JSON that Keras writes ({first_line(error)})") from error
    try:
        # In a thread of its own: Keras would later initialise the variables that it has listed for this one.
        with ThreadPoolExecutor(1) as thread:
            held = thread.submit(_count_weights, tree).result()
        if held > len(weights):  # half-precision numbers have two bytes
            raise FileRefusedError(f"it describes {held:,} weights, and holds {len(weights):,} bytes")
        model = _built(tree)
        with tempfile.TemporaryDirectory(prefix="traitline-") as folder:
            path = Path(folder, _WEIGHTS)
            path.write_bytes(weights)
            model.load_weights(path)
            again = Path(folder, f"again-{_WEIGHTS}")
            model.save_weights(again)
            # Keras leaves layers that it finds no weights for as they were drawn.
            if (lacking := _lacking(path, again)) is not None:
                raise FileRefusedError(f"it lacks the weights {lacking}")
    except FileRefusedError:
        raise
    except Exception as error:  # Keras raises whatever a layer's settings lead to
        raise FileRefusedError(f"Keras does not accept it ({first_line(error)})") from error
    return model


def _count_weights(tree: dict[str, Any]) -> int:
    """Count the weights in a graph that is never run, because a hostile file's settings may require terabytes."""
    import keras
    import tensorflow as tf

    with tf.Graph().as_default(), keras.StatelessScope(initialize_variables=False):
        return sum(math.prod(variable.shape) for variable in _built(tree).weights)


def _built(tree: dict[str, Any]) -> keras.Model:
    import keras

    model = keras.saving.deserialize_keras_object(copy.deepcopy(tree), safe_mode=True)  # Keras changes what it reads
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        raise FileRefusedError("it is not a functional or sequential model whose input has a shape")
    return model


def _lacking(given: Path, loaded: Path) -> str | None:
    """Return the name of a loaded array that is not in the given file, with these numbers; None without any."""
    with h5py.File(given, "r") as before, h5py.File(loaded, "r") as after:
        names: list[str] = []
        after.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            numbers = after[name][()]
            if name not in before or not np.array_equal(
                before[name][()].astype(numbers.dtype), numbers, equal_nan=True
            ):
                return name
    return None


def _unpack(data: bytes) -> tuple[bytes, bytes]:
    """Return config.json and the weights, which Keras does not compress; reads nothing else, and no more than that."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _member(archive, "config.json", _MAX_CONFIG_BYTES), _member(archive, _WEIGHTS, len(data))
    except KeyError as error:
        raise FileRefusedError(f"it must hold config.json and {_WEIGHTS}, as Keras 3 writes them") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        raise FileRefusedError(f"it is not a .keras file, or it is damaged ({first_line(error)})") from error


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as stream:
        found = stream.read(most + 1)
    if len(found) > most:
        raise FileRefusedError(f"its {name} has more than {most:,} bytes")
    return found


def _check(tree: Any) -> None:
    """Refuse every object but plain layers, their plain values, and what would compile the model."""
    if not isinstance(tree, dict) or (str(tree.get("module")), str(tree.get("class_name"))) not in _MODELS:
        raise FileRefusedError("it is not a functional or sequential model: save one, with all its layers built in")
    for part in _parts(tree):
        part.pop("compile_config", None)
        if {"class_name", "module", "registered_name"} & part.keys():
            name, module = part.get("class_name"), part.get("module")
            if not (isinstance(name, str) and _is_plain(str(module), name)):
                raise FileRefusedError(
                    f"it has a part that is not a plain layer of Keras: {name!r:.80} of {module!r:.80}"
                )
            if part.get("registered_name") not in (None, name):
                raise FileRefusedError(f"it has a part that is registered elsewhere: {part['registered_name']!r:.80}")


def _is_plain(module: str, name: str) -> bool:
    import importlib

    import keras

    if name == "__keras_tensor__" or (module, name) in _MODELS:
        return True
    if module == "keras.layers":
        return name in _LAYERS
    if module in _VALUES:
        found = getattr(keras if module == "keras" else getattr(keras, module.split(".")[1]), name, None)
        bases = (keras.Initializer, keras.Regularizer, keras.constraints.Constraint, keras.DTypePolicy)
        return isinstance(found, type) and issubclass(found, bases)
    if module in _OPERATIONS and name not in _NOT_OPERATIONS:
        found = getattr(importlib.import_module(module), name, None)
        return isinstance(found, type) and issubclass(found, keras.Operation)
    return False


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a tree."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part

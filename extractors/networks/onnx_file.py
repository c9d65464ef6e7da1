"""Networks from ONNX files, run by ONNX Runtime.

A file can only name operators that ONNX Runtime itself knows, and holds no code. It could name other files for its
weights, however; such a file is refused, also because its digest would not stand for its weights.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extractors.assets.files import AssetError
from extractors.devices import usable_cores
from extractors.errors import first_line
from extractors.networks.signature import FileRefusedError, Run, Shape, Signature

if TYPE_CHECKING:
    import onnx


def check_runtime(path: Path) -> None:
    """Raise AssetError unless ONNX Runtime is installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise AssetError(f"{path} needs ONNX Runtime, which is not installed: pip install 'traitline[onnx]'")


def read_signature(data: bytes) -> Signature:
    """Return the input and the outputs of an ONNX file, without running anything.

    Raises:
        FileRefusedError: it is damaged, keeps weights in other files, or does not have one float32 input.
    """
    import onnx
    from google.protobuf.message import DecodeError, EncodeError

    try:
        model = onnx.load_model_from_string(data)
        # Before any library looks at it, because some follow these names.
        for tensor in _tensors(model):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
                raise FileRefusedError(
                    f"it keeps weights in another file ({place!r:.80}); save it as one file, with "
                    "onnx.save(model, path, save_as_external_data=False)"
                )
        onnx.checker.check_model(model)
        model = onnx.shape_inference.infer_shapes(model)
    except (
        DecodeError,
        EncodeError,
        ValueError,
        RecursionError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise FileRefusedError(f"it is not an ONNX model, or it is damaged ({first_line(error)})") from error
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise FileRefusedError(f"it must have one input, and has {len(inputs)}: {names}")
    for value in (*inputs, *model.graph.output):
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise FileRefusedError(f"{value.name} is {kind.lower()}, not float32: cast it within the network")
    return Signature(_shape(inputs[0]), {value.name: _shape(value) for value in model.graph.output})


def open_network(data: bytes, output: str) -> Run:
    """Return a function that runs one output of the network. Raises FileRefusedError if ONNX Runtime refuses it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = usable_cores()
    # Float32 means float32 on a GPU, too.
    wanted: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}
    providers = [(name, wanted[name]) for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:  # its exceptions have no common class
        raise FileRefusedError(f"ONNX Runtime does not accept it ({first_line(error)})") from error
    (name,) = (given.name for given in session.get_inputs())

    def run(batch: np.ndarray) -> np.ndarray:
        try:
            (found,) = session.run([output], {name: np.ascontiguousarray(batch)})
        except Exception as error:  # its exceptions have no common class
            raise FileRefusedError(f"it cannot be run ({first_line(error)})") from error
        return np.asarray(found)

    return run


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of a model, wherever they are: in graphs within nodes, functions, sparse tensors."""
    import onnx

    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else list(value):
            if isinstance(part, onnx.TensorProto):
                yield part
            elif hasattr(part, "ListFields"):
                yield from _tensors(part)


def _shape(value: onnx.ValueInfoProto) -> Shape:
    dimensions = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.dim_value > 0 else None for size in dimensions)

"""Small networks in files, as users bring them, with their numbers worked out in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PATCH = 16


def onnx_model(nodes, inputs, outputs, weights) -> onnx.ModelProto:
    """Make a model: inputs and outputs are name -> shape, weights are name -> array."""
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def patch_network(path: Path, *, side: int | str = 112, channels: str = "first", dim: int = 8, seed: int = 0):
    """Write a network whose vector is the mean over patches of 16 x 16 of the ReLU of a linear function of the patch.

    Returns:
        The linear function, [dim, 3, 16, 16], and its offsets, [dim].
    """
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(dim, 3, PATCH, PATCH)).astype(np.float32) / 28
    offset = rng.normal(size=dim).astype(np.float32)
    last = [helper.make_node("Transpose", ["picture"], ["first"], perm=[0, 3, 1, 2])] if channels == "last" else []
    nodes = [
        *last,
        helper.make_node("Conv", ["first" if last else "picture", "kernel", "offset"], ["a"], strides=[PATCH, PATCH]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["map"]),
        helper.make_node("Flatten", ["map"], ["vector"]),
    ]
    shape = ["N", side, side, 3] if last else ["N", 3, side, side]
    weights = {"kernel": kernel, "offset": offset}
    onnx.save(onnx_model(nodes, {"picture": shape}, {"vector": ["N", dim]}, weights), path)
    return kernel, offset


def patch_vectors(pictures: np.ndarray, kernel: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """What `patch_network` gives for prepared pictures, float [N, H, W, 3], in double precision."""
    count, height, width, _ = pictures.shape
    across = pictures.reshape(count, height // PATCH, PATCH, width // PATCH, PATCH, 3).astype(np.float64)
    linear = np.einsum("nyixjc,dcij->nyxd", across, kernel.astype(np.float64)) + offset
    return np.maximum(linear, 0).mean(axis=(1, 2))


def motion_network(path: Path, *, components: str = "last", fields: int | str = "T", sides: int | str = 224) -> None:
    """Write a network that gives mean dx, mean dy, and their mean squares, over a window."""
    axes = [1, 2, 3] if components == "last" else [2, 3, 4]
    nodes = [
        helper.make_node("ReduceMean", ["window", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["window", "window"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["power"], keepdims=0),
        helper.make_node("Concat", ["mean", "power"], ["vector"], axis=1),
    ]
    space = [fields, sides, sides]
    shape = ["N", *space, 2] if components == "last" else ["N", 2, *space]
    weights = {"axes": np.array(axes, np.int64)}
    onnx.save(onnx_model(nodes, {"window": shape}, {"vector": ["N", 4]}, weights), path)

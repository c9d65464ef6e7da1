"""The parts of a network, read from the graph of operations that TensorFlow runs: parameters, work and wiring.

No number is maintained by hand: all come from the operations of one forward pass and the layers that contain them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

CONSTANTS = ("Const", "Placeholder", "ReadVariableOp", "NoOp")  # operations that compute nothing

Path = tuple[str, ...]
"""Names of nested layers, outermost first; () is the model."""


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer in one forward pass.

    Attributes:
        name: path of the layer's name, as in "cross_attention/attention/query".
        output_shape: shape of its last operation's output, including the batch axis.
        parameters: number of weights that the layer itself reads, excluding those of nested layers.
        trainable: number of trainable ones among them.
        macs: multiply-adds in convolutions and matrix products only, as He et al. count.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int
    macs: int


@dataclass(frozen=True, slots=True)
class Block:
    """Layers that a picture shows as one box."""

    name: str
    layers: int
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network, layer by layer and as a graph of blocks.

    Attributes:
        layers: in the order of computation; only layers that compute something at inference.
        parameters: of the whole network, including those that no pass reads.
        trainable: number of trainable ones among them.
        blocks: in the order of computation; inputs are blocks too.
        edges: pairs of positions in `blocks`, from source to destination.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    trainable: int
    blocks: tuple[Block, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass."""
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        """Floating-point operations, two per multiply-add. Norms, ReLUs and pools are not counted."""
        return 2 * self.macs


def describe(model: keras.Model, *shapes: Sequence[int]) -> Architecture:
    """Trace one forward pass at inference and read the network from it.

    Args:
        model: takes one float32 array, or a tuple of as many arrays as there are shapes.
        shapes: of the inputs, including the batch axis; all sizes known.

    Raises:
        ValueError: the graph does not show the work of an operation.

    Sources:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1, counts in the same way.
    """
    import tensorflow as tf

    names = _names(model)
    inputs = [tf.TensorSpec(shape, tf.float32, f"input_{at + 1}") for at, shape in enumerate(shapes)]
    forward = tf.function(lambda *x: model(x if len(x) > 1 else x[0], training=False), jit_compile=False)
    graph = forward.get_concrete_function(*inputs).graph
    operations = graph.get_operations()
    layer_of = {operation.name: _layer_path(operation.name, names) for operation in operations}
    layers = _layers(graph, operations, layer_of, names, model)
    blocks, edges = _blocks(operations, layer_of, layers)
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return Architecture(layers, model.count_params(), trainable, blocks, edges)


def _names(model: keras.Model) -> dict[Path, keras.Layer]:
    """Return every layer by its path of names; the model itself is ()."""
    found: dict[Path, keras.Layer] = {(): model}

    def add(layer: keras.Layer, path: Path) -> None:
        # layers nested in a layer, unlike those of a model, have no public list
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            if (*path, inner.name) not in found:
                found[*path, inner.name] = inner
                add(inner, (*path, inner.name))

    add(model, ())
    return found


def _layer_path(operation: str, names: dict[Path, keras.Layer]) -> Path | None:
    """Return the innermost layer whose name scope contains an operation; None outside the model."""
    first, *scopes = operation.split("/")
    if not scopes or names[()].name not in (first, re.sub(r"_\d+$", "", first)):
        return None
    path: Path = ()
    for scope in scopes:
        # TensorFlow numbers repeated scopes
        inner = next((p for p in ((*path, scope), (*path, re.sub(r"_\d+$", "", scope))) if p in names), None)
        if inner is None:
            break
        path = inner
    return path


def _layers(
    graph: Any, operations: Sequence[Any], layer_of: dict[str, Path | None], names: dict[Path, Any], model: keras.Model
) -> tuple[LayerCost, ...]:
    macs: Counter[Path] = Counter()
    shapes: dict[Path, tuple[int, ...]] = {}
    for operation in operations:
        path = layer_of[operation.name]
        if path is None or not operation.outputs or operation.type in CONSTANTS:
            continue
        macs[path] += _macs(operation)
        shapes[path] = tuple(operation.outputs[0].shape)
    parameters: Counter[Path] = Counter()
    trainable: Counter[Path] = Counter()
    learned = {id(weight) for weight in model.trainable_weights}
    weights = {id(weight.value.handle): weight for weight in model.weights}
    for outside, inside in graph.captures:
        path = layer_of[inside.consumers()[0].name] if inside.consumers() else None
        weight = weights.get(id(outside))
        if weight is not None and path is not None:
            parameters[path] += math.prod(weight.shape)
            trainable[path] += math.prod(weight.shape) * (id(weight) in learned)
    return tuple(
        LayerCost("/".join(p), type(names[p]).__name__, shapes[p], parameters[p], trainable[p], macs[p])
        for p in shapes
        if p
    )


def _macs(operation: Any) -> int:
    """Return the multiply-adds of one operation; 0 for all but convolutions and matrix products."""
    if operation.type in ("Conv2D", "Conv3D"):
        return _size(operation.outputs[0]) * int(math.prod(operation.inputs[1].shape[:-1]))
    if operation.type in ("MatMul", "BatchMatMulV2"):
        transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
        return _size(operation.outputs[0]) * int(operation.inputs[0].shape[-2 if transposed else -1])
    if operation.type == "Einsum":
        terms = operation.get_attr("equation").decode().split("->")[0].split(",")
        sizes = {
            letter: size
            for term, tensor in zip(terms, operation.inputs, strict=True)
            for letter, size in zip(term, tensor.shape, strict=True)
        }
        return math.prod(sizes.values())
    if operation.type.endswith("PartitionedCall"):
        raise ValueError(f"cannot count {operation.name}: it calls another function, like a grouped convolution")
    return 0


def _size(tensor: Any) -> int:
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{tensor.name} has a size that is unknown before the pass: {tensor.shape}")
    return int(tensor.shape.num_elements())


def block_name(layer: str) -> str:
    """Return the box of a picture that a layer belongs to.

    This keeps two levels of nested layers, and cuts names such as conv2_block1_1_conv or Mixed_3b.Branch_0 before the
    block or branch.
    """
    outer, *inner = layer.split("/")
    if inner:
        return f"{outer}/{inner[0]}"
    return re.split(r"_block\d|\.", outer)[0]


def _blocks(
    operations: Sequence[Any], layer_of: dict[str, Path | None], layers: Sequence[LayerCost]
) -> tuple[tuple[Block, ...], tuple[tuple[int, int], ...]]:
    holders = {name.rpartition("/")[0] for name in (layer.name for layer in layers)}
    place: dict[str, int] = {}
    edges: dict[tuple[int, int], None] = {}
    reached: dict[str, frozenset[int]] = {}  # the blocks from which an operation's numbers ultimately come
    for operation in operations:
        sources = frozenset().union(*(reached[tensor.op.name] for tensor in operation.inputs))
        name = _block_of(operation, layer_of[operation.name], holders, len(sources))
        if name is None:
            reached[operation.name] = sources
            continue
        at = place.setdefault(name, len(place))
        edges.update(dict.fromkeys((source, at) for source in sources if source != at))
        reached[operation.name] = frozenset({at})
    layers_of = {name: [layer for layer in layers if block_name(layer.name) == name] for name in place}
    blocks = tuple(
        Block(name, len(inside), sum(layer.parameters for layer in inside), sum(layer.macs for layer in inside))
        for name, inside in layers_of.items()
    )
    return blocks, tuple(edges)


def _block_of(operation: Any, path: Path | None, holders: set[str], sources: int) -> str | None:
    """Return the block that an operation starts or belongs to; None if it only passes numbers on."""
    if path is None:
        return _input_name(operation) if operation.type == "Placeholder" and operation.outputs[0].shape else None
    if not sources:
        return None  # weights and constants
    layer = "/".join(path)
    if (layer and layer not in holders) or len(path) > 1:
        return block_name(layer)
    return f"{layer}/{operation.type.removesuffix('V2').lower()}".lstrip("/") if sources > 1 else None


def _input_name(placeholder: Any) -> str:
    sizes = " x ".join(map(str, placeholder.outputs[0].shape[1:]))
    return f"{placeholder.name.replace('_', ' ')}: {sizes}"

"""Exporting a trained model as TensorFlow SavedModel or ONNX, for programs without this package and Keras.

An exported model takes a batch of any number of clips with any number of tokens, as stored in the feature store, and
does the rest itself: standardisation, time encoding, masks.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from fusion.model.inputs import KINDS
from fusion.model.kinds import PersonalityModel

OUTPUT = "traits"

# The newest version that tf2onnx writes without a warning; ONNX Runtime has read it since 1.14.
ONNX_OPSET = 18


def export_savedmodel(model: PersonalityModel, folder: Path) -> None:
    """Write a TensorFlow SavedModel: `serving_default` takes `model.input_signature()` and returns `traits`."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", _scores(model))
    archive.write_out(str(folder), verbose=False)


def export_onnx(model: PersonalityModel, path: Path) -> None:
    """Write an ONNX file that takes `model.input_signature()` and returns `traits`, float32 [B, 5]."""
    import onnx

    graph = _to_onnx(model)
    _clear_padding(graph.graph)
    for value in (*graph.graph.input, *graph.graph.output):
        kind = value.name.partition("_")[0]
        axes = ("batch", f"{kind}_tokens") if value.name != OUTPUT else ("batch",)
        for dimension, axis in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            dimension.dim_param = axis
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def _to_onnx(model: PersonalityModel) -> Any:
    # The conversion writes a lot of noise to standard error, and importing it makes two modules warn.
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf2onnx

        try:
            logger.setLevel(logging.ERROR)
            signature = list(model.input_signature().values())
            graph, _ = tf2onnx.convert.from_function(_scores(model), input_signature=signature, opset=ONNX_OPSET)
        finally:
            logger.setLevel(level)
    return graph


def _clear_padding(graph: Any) -> None:
    """Zero the padding first: tf2onnx turns the model's own `where` into products, and 0 * NaN is NaN."""
    from onnx import TensorProto, helper

    nodes = []
    for kind in KINDS:
        for node in graph.node:
            node.input[:] = [f"{kind}_real" if name == kind else name for name in node.input]
        nodes += [
            helper.make_node("Unsqueeze", [f"{kind}_mask", "last_axis"], [f"{kind}_mask_3d"]),
            helper.make_node("Where", [f"{kind}_mask_3d", kind, "zero"], [f"{kind}_real"]),
        ]
    graph.initializer.append(helper.make_tensor("last_axis", TensorProto.INT64, [1], [-1]))
    graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _scores(model: PersonalityModel) -> Callable[..., dict[str, tf.Tensor]]:
    inputs = model.input_signature()

    def scores(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: model(dict(zip(inputs, values, strict=True)), training=False)}

    compiled: Callable[..., dict[str, tf.Tensor]] = tf.function(scores, input_signature=list(inputs.values()))
    return compiled

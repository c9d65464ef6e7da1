"""Networks for inference: each BatchNorm folded into its convolution, in the requested precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from extractors.networks import Precision
from extractors.networks.precision import settle_precision

if TYPE_CHECKING:
    import keras


def for_inference(model: keras.Model, precision: Precision = "float32") -> keras.Model:
    """Copy a network into a faster form that cannot be trained.

    At inference, BatchNorm scales and shifts each channel. Folding both into the preceding convolution saves a pass
    over its output. With "bfloat16", weights and activations are rounded to 8 bits of precision; averages and the
    output remain float32. With "tf32", run the copy within `extractors.networks.precision.computing_in`.

    Args:
        model: functional; not changed. Each of its BatchNorms directly follows a convolution that has no activation and
            whose output no other layer reads.

    Returns:
        A model with the same layer names, except for the BatchNorms, and the same input and output (float32).

    Raises:
        ValueError: a BatchNorm cannot be folded, or the precision is unknown.
        extractors.errors.DeviceError: see `extractors.networks.precision.settle_precision`.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
    settle_precision(precision)
    norm_of = _norm_of_convolutions(model)
    folded = _without_norms(model, precision, norm_of)
    for layer in folded.layers:
        if layer.weights:
            convolution = model.get_layer(layer.name)
            if layer.name in norm_of:
                _fill(layer, convolution, model.get_layer(norm_of[layer.name]))
            else:
                layer.set_weights(convolution.get_weights())
    folded.jit_compile = False  # XLA makes both networks slower on a CPU
    return folded


def _norm_of_convolutions(model: keras.Model) -> dict[str, str]:
    """Map each convolution with a BatchNorm to that BatchNorm, both by name."""
    import keras
    from keras import layers

    convolution_of = {id(layer.output): layer for layer in model.layers if isinstance(layer, _convolutions())}
    # A layer's own `input` is that of its first call only; operations that are no layers, such as "+", read as well.
    calls = [call for operation in model.operations for call in operation._inbound_nodes]
    readers = Counter(id(tensor) for tensor in [*model.outputs, *(x for call in calls for x in call.input_tensors)])
    norm_of = {}
    for norm in model.layers:
        if not isinstance(norm, layers.BatchNormalization):
            continue
        convolution, rank = convolution_of.get(id(norm.input)), norm.input.ndim
        if (
            convolution is None
            or convolution.activation is not keras.activations.linear
            or readers[id(norm.input)] > 1
            or norm.axis % rank != (rank - 1 if convolution.data_format == "channels_last" else 1)
        ):
            raise ValueError(
                f"{norm.name} cannot be folded: it must directly follow a convolution without an activation, "
                "normalize that convolution's channels, and be the only layer that reads its output"
            )
        norm_of[convolution.name] = norm.name
    return norm_of


def _without_norms(model: keras.Model, precision: Precision, norm_of: Mapping[str, str]) -> keras.Model:
    """Copy a network without its BatchNorms and without its weights."""
    import keras
    from keras import layers

    averages = (layers.AveragePooling3D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D)
    folding = {*norm_of, *norm_of.values()}
    called_before: set[str] = set()

    def copied(layer: keras.Layer) -> keras.Layer:
        settings = layer.get_config()
        if isinstance(layer, _convolutions()):
            settings["kernel_initializer"] = "zeros"  # drawing weights takes time
            settings["use_bias"] = layer.use_bias or layer.name in norm_of
        # Operations that are no layers, such as "+", compute in the precision of what they read.
        if isinstance(layer, keras.Layer) and not isinstance(layer, layers.InputLayer):
            rounded = precision == "bfloat16" and not isinstance(layer, averages)
            settings["dtype"] = "bfloat16" if rounded else "float32"
        return type(layer).from_config(settings)

    def called(layer: keras.Layer, *inputs: Any, **options: Any) -> Any:
        if layer.name in folding & called_before:
            raise ValueError(f"{layer.name} is used more than once and cannot be folded")
        called_before.add(layer.name)
        return inputs[0] if isinstance(layer, layers.BatchNormalization) else layer(*inputs, **options)

    return keras.models.clone_model(model, clone_function=copied, call_function=called)


def _convolutions() -> tuple[type[keras.Layer], ...]:
    from keras import layers

    return layers.Conv2D, layers.Conv3D


def _fill(folded: keras.Layer, convolution: keras.Layer, norm: keras.layers.BatchNormalization) -> None:
    from keras.ops import convert_to_numpy as numbers

    factor = 1 / np.sqrt(numbers(norm.moving_variance).astype(np.float64) + norm.epsilon)
    if norm.scale:
        factor *= numbers(norm.gamma)
    offset = numbers(norm.beta) if norm.center else 0.0
    bias = numbers(convolution.bias) if convolution.use_bias else 0.0
    folded.kernel.assign((numbers(convolution.kernel) * factor).astype(np.float32))
    folded.bias.assign((offset + (bias - numbers(norm.moving_mean)) * factor).astype(np.float32))

"""Networks as extraction runs them: BatchNorm folded into the convolutions, in the precision asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extractors.errors import DeviceError
from extractors.networks import Precision

if TYPE_CHECKING:
    import keras

CPU_FLAGS = Path("/proc/cpuinfo")  # Linux; elsewhere a CPU does not tell
# x86 by Intel and AMD, and ARM.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def for_inference(model: keras.Model, precision: Precision = "float32") -> keras.Model:
    """Copy a network into the form in which it runs fastest and cannot be trained.

    At inference BatchNorm multiplies each channel by a number and adds another one. Both go into the convolution
    before it, which saves a pass over its output. With "bfloat16" weights and activations are rounded to 8 bits of
    precision; averages and the output stay float32.

    Args:
        model: functional, and each of its BatchNorms follows a convolution; not changed.
        precision: of weights and activations.

    Returns:
        A model with the same layer names, less the BatchNorms, and the same input and output (float32).

    Raises:
        ValueError: a BatchNorm does not follow a convolution, or an unknown precision.
        extractors.errors.DeviceError: bfloat16 where neither CPU nor GPU computes with it.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32' or 'bfloat16'; got {precision!r}")
    if precision == "bfloat16":
        check_bfloat16()
    folded, norm_of = _without_norms(model, precision)
    for layer in folded.layers:
        if layer.weights:
            convolution = model.get_layer(layer.name)
            if layer.name in norm_of:
                _fill(layer, convolution, model.get_layer(norm_of[layer.name]))
            else:
                layer.set_weights(convolution.get_weights())
    folded.jit_compile = False  # XLA makes both networks slower on a CPU
    return folded


def check_bfloat16() -> None:
    """Make sure that this machine computes with bfloat16 and gives the numbers that others give.

    Without hardware for it TensorFlow falls back to emulation, 4 times slower than float32, or to sums that are kept in
    bfloat16 themselves, 30 times slower and 1.4 % off (measured on I3D).

    Raises:
        extractors.errors.DeviceError: it does not.
    """
    from extractors.devices import has_gpu

    if has_gpu():
        return
    flags = set(CPU_FLAGS.read_text().split()) if CPU_FLAGS.is_file() else set()
    if not flags & BFLOAT16_FLAGS:
        raise DeviceError("this CPU has no bfloat16 (AVX512_BF16, AMX or ARM's BF16): set precision to float32")
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        raise DeviceError("bfloat16 needs oneDNN, which TF_ENABLE_ONEDNN_OPTS=0 turns off: unset it, or take float32")


def _without_norms(model: keras.Model, precision: Precision) -> tuple[keras.Model, dict[str, str]]:
    """Return the copy, not yet filled, and the name of each convolution's BatchNorm."""
    import keras
    from keras import layers

    convolutions = (layers.Conv2D, layers.Conv3D)
    averages = (layers.AveragePooling3D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D)
    source: dict[int, str] = {}  # id of a convolution's output -> the convolution's name
    norm_of: dict[str, str] = {}

    def copied(layer: keras.Layer) -> keras.Layer:
        settings = layer.get_config()
        if isinstance(layer, convolutions):
            settings |= {"use_bias": True, "kernel_initializer": "zeros"}  # drawing weights takes time
        if not isinstance(layer, layers.InputLayer):
            settings["dtype"] = "float32" if isinstance(layer, averages) else precision
        return type(layer).from_config(settings)

    def called(layer: keras.Layer, *inputs: Any, **options: Any) -> Any:
        if isinstance(layer, layers.BatchNormalization):
            if id(inputs[0]) not in source:
                raise ValueError(f"{layer.name} does not follow a convolution and cannot be folded into one")
            norm_of[source[id(inputs[0])]] = layer.name
            return inputs[0]
        output = layer(*inputs, **options)
        if isinstance(layer, convolutions):
            source[id(output)] = layer.name
        return output

    return keras.models.clone_model(model, clone_function=copied, call_function=called), norm_of


def _fill(folded: keras.Layer, convolution: keras.Layer, norm: keras.layers.BatchNormalization) -> None:
    from keras.ops import convert_to_numpy as numbers

    factor = 1 / np.sqrt(numbers(norm.moving_variance).astype(np.float64) + norm.epsilon)
    if norm.scale:
        factor *= numbers(norm.gamma)
    bias = numbers(convolution.bias) if convolution.use_bias else 0.0
    folded.kernel.assign((numbers(convolution.kernel) * factor).astype(np.float32))
    folded.bias.assign((numbers(norm.beta) + (bias - numbers(norm.moving_mean)) * factor).astype(np.float32))

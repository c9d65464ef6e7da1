"""Activations of a network's layers, class activation maps and Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from extractors.errors import LayerError

if TYPE_CHECKING:
    import keras


def map_layers(network: keras.Model) -> list[str]:
    """Return the names of the layers that output feature maps ([N, h, w, C] or [N, t, h, w, C]), input first."""
    from keras import layers

    return [
        layer.name
        for layer in network.layers
        if len(layer.output.shape) == len(network.input.shape) and not isinstance(layer, layers.InputLayer)
    ]


def find_layer(network: keras.Model, name: str) -> keras.Layer:
    """Return a layer that outputs feature maps. Raises LayerError, with similar names, if there is no such layer."""
    known = map_layers(network)
    if name not in known:
        like = get_close_matches(name, known)
        cure = f"did you mean {' or '.join(like)}?" if like else f"known: {', '.join(known)}"
        raise LayerError(f"{network.name} has no layer {name!r} with feature maps; {cure}")
    return network.get_layer(name)


def layer_activations(network: keras.Model, inputs: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute the feature maps of some layers in one pass.

    Args:
        network: functional, with one input.
        inputs: [N, ...].
        names: layers from `map_layers`.

    Returns:
        Name -> float32 [N, h, w, C], or [N, t, h, w, C] if the network has a time axis, in the order of the names.

    Raises:
        LayerError: a layer is unknown.
    """
    import keras

    outputs = {name: find_layer(network, name).output for name in names}
    found = keras.Model(network.input, outputs)(inputs, training=False)
    return {name: np.asarray(found[name], np.float32) for name in names}


def class_activation_map(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Show which positions contribute to a linear output: weight the maps before the global average by its weights.

    Args:
        maps: float [..., h, w, C], input of the global average.
        weights: float [C], of one output.

    Returns:
        float32 [..., h, w]; its mean over h and w is the output without its bias.

    Raises:
        ValueError: the number of weights differs from the number of maps.

    Sources:
        Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
    """
    if weights.shape != maps.shape[-1:]:
        raise ValueError(f"{maps.shape[-1]} maps need as many weights, got {weights.shape}")
    return np.asarray(maps @ weights, np.float32)


def grad_cam(network: keras.Model, inputs: np.ndarray, direction: np.ndarray, layer: str) -> np.ndarray:
    """Show which positions of a layer increase an output: sum its maps, weighted by their mean gradients.

    Args:
        network: from inputs to features [N, D].
        inputs: [N, ...].
        direction: float [D] or [N, D]. The output is the dot product of the features with it: a one-hot vector selects
            one feature; the gradient of a later output with respect to the features stands for that output.
        layer: one of `map_layers`.

    Returns:
        float32 [N, h, w] or [N, t, h, w]; negative sums are set to 0.

    Raises:
        LayerError: the layer is unknown.

    Sources:
        Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
    """
    import keras
    import tensorflow as tf

    both = keras.Model(network.input, [find_layer(network, layer).output, network.output])
    with tf.GradientTape() as tape:
        maps, features = both(inputs, training=False)
        output = tf.reduce_sum(features * tf.cast(direction, features.dtype))
    gradient = tape.gradient(output, maps).numpy()
    places = tuple(range(1, gradient.ndim - 1))
    weights = gradient.mean(axis=places, keepdims=True)
    return np.asarray(np.maximum((maps.numpy() * weights).sum(axis=-1), 0), np.float32)


def strongest(maps: np.ndarray, count: int) -> list[int]:
    """Return the channels with the largest mean activation, largest first: maps [..., C]."""
    means = maps.reshape(-1, maps.shape[-1]).mean(axis=0)
    return list(map(int, np.argsort(-means, kind="stable")[:count]))


def liveliest(maps: np.ndarray, count: int) -> list[int]:
    """Return the channels whose mean over space varies most over time, largest first: maps [t, h, w, C]."""
    change = maps.mean(axis=(1, 2)).std(axis=0)
    return list(map(int, np.argsort(-change, kind="stable")[:count]))


def check_channels(channels: Sequence[int], maps: np.ndarray | keras.KerasTensor, layer: str) -> None:
    """Raise LayerError unless maps [..., C] have these channels."""
    for channel in channels:
        if not 0 <= channel < maps.shape[-1]:
            raise LayerError(f"{layer} has no feature {channel}; known: 0 to {maps.shape[-1] - 1}")

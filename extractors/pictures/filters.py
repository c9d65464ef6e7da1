"""The input that activates a filter most, found by gradient ascent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from extractors.errors import LayerError
from extractors.pictures.layers import check_channels, find_layer

if TYPE_CHECKING:
    import keras

LENGTH = 100.0  # of the input, in the units of the network's input
STEPS = 40
STARTS = 4  # noise inputs to try: on some, the ReLU after the unit outputs 0, which has no gradient
START_LENGTH = 0.1 * LENGTH


def maximise_filters(
    network: keras.Model, layer: str, filters: Sequence[int], *, side_px: int = 96
) -> list[np.ndarray]:
    """Find the input of length `LENGTH` (root of the sum of squares) that activates a filter's middle unit most.

    Each step adds the normalised gradient and scales the input back to its length. The target is one unit rather than
    the mean of the filter's map, whose gradient is constant on the first layer. There, the result is the filter's own
    kernel.

    Args:
        network: accepts inputs [N, side, side, C] of any side.
        layer: one of `extractors.pictures.layers.map_layers`.
        filters: channels of the layer.
        side_px: width and height of the input, at least those of the unit's receptive field.

    Returns:
        One float32 [s, s, C] per filter, cropped to the unit's receptive field; 0 is the input's zero.

    Raises:
        LayerError: the layer or filter is unknown, or the unit has no gradient on any of the noise inputs.

    Sources:
        Erhan et al., "Visualizing Higher-Layer Features of a Deep Network", 2009.
    """
    import keras

    head = keras.Model(network.input, find_layer(network, layer).output)
    check_channels(filters, head.output, layer)
    rng = np.random.default_rng(0)
    noises = rng.normal(size=(STARTS, side_px, side_px, network.input.shape[-1])).astype(np.float32)
    return [_ascend(head, layer, number, _of_length(noises, START_LENGTH)) for number in filters]


def _ascend(head: keras.Model, layer: str, number: int, noises: np.ndarray) -> np.ndarray:
    values, gradients = _climb(head, noises, number)
    if not gradients.any():
        raise LayerError(f"filter {number} of {layer} is silent on all {len(noises)} noise inputs; choose another")
    best = int(np.argmax(np.where(gradients.any(axis=(1, 2, 3)), values, -np.inf)))
    # The noise has activated the unit; at full strength it would remain visible in the result.
    picture = _of_length(noises[best : best + 1] * 0.1 + _of_length(gradients[best : best + 1], LENGTH), LENGTH)
    seen = gradients[best].any(axis=-1)
    for _ in range(STEPS):
        _, gradient = _climb(head, picture, number)
        if not gradient.any():
            break
        seen |= gradient[0].any(axis=-1)
        picture = _of_length(picture + _of_length(gradient, LENGTH), LENGTH)
    return _cut_to(picture[0] * seen[..., None], seen)


def _climb(head: keras.Model, pictures: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the activations [N] of the middle unit, and their gradients with respect to the pictures."""
    import tensorflow as tf

    inputs = tf.constant(pictures)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        maps = head(inputs, training=False)
        values = maps[:, maps.shape[1] // 2, maps.shape[2] // 2, number]
        total = tf.reduce_sum(values)
    return values.numpy(), tape.gradient(total, inputs).numpy()


def _of_length(pictures: np.ndarray, length: float) -> np.ndarray:
    norms = np.sqrt(np.square(pictures).sum(axis=(1, 2, 3), keepdims=True))
    return pictures * (length / np.where(norms > 0, norms, 1))


def _cut_to(picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    top, left = min(rows[0], len(seen) - side), min(columns[0], len(seen) - side)
    return picture[top : top + side, left : left + side].astype(np.float32)

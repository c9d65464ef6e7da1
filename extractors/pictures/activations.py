"""Statistics of a network's layers on real inputs: strength, share of zeros, and channels that are never active."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

MAX_NAMES = 40  # of blocks that fit along the axis


@dataclass(frozen=True, slots=True)
class LayerActivations:
    """Statistics of one layer's output over all inputs.

    Attributes:
        mean, std, lowest, highest: over all channels, positions and inputs.
        zeros: share of outputs that are 0.
        dead_channels: number of channels that were 0 at every position of every input.
    """

    layer: str
    channels: int
    mean: float
    std: float
    lowest: float
    highest: float
    zeros: float
    dead_channels: int


def rectified_layers(model: keras.Model) -> list[str]:
    """Return the names of the layers that end in a ReLU, the only ones whose channels can be dead."""
    return [
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.ReLU) or getattr(layer, "activation", None) is keras.activations.relu
    ]


def activation_statistics(model: keras.Model, batches: Iterable[np.ndarray]) -> list[LayerActivations]:
    """Measure the outputs of `rectified_layers`, keeping five numbers per input and channel.

    Args:
        model: functional, with one input.
        batches: the model's inputs, float32 [n, ...] each.

    Raises:
        ValueError: there are no batches.
    """
    names = rectified_layers(model)
    probe = keras.Model(model.inputs, {name: _channel_numbers(model.get_layer(name).output) for name in names})
    seen = [probe.predict_on_batch(batch) for batch in batches]
    if not seen:
        raise ValueError("no inputs to measure activations on")
    return [_summary(name, np.concatenate([numbers[name] for numbers in seen])) for name in names]


def plot_layer_statistics(layers: list[LayerActivations], title: str) -> Figure:
    """Draw mean activation and share of zeros by layer, from the first on the left; ticks name blocks of layers."""
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 4.2), layout="constrained")
    figure.suptitle(title)
    strength, silence = figure.subplots(2, 1, sharex=True)
    at = np.arange(len(layers))
    mean, std = np.array([(layer.mean, layer.std) for layer in layers]).T
    spread = {"color": "#CFE3F1", "lw": 0, "label": "± standard deviation"}
    strength.fill_between(at, np.maximum(mean - std, 0), mean + std, **spread)
    strength.plot(at, mean, "o-", color="C0", ms=3, lw=1, label="mean")
    strength.set_ylabel("activation")
    zeros = [layer.zeros for layer in layers]
    silence.plot(at, zeros, "s-", color="C1", ms=3, lw=1, label="outputs that are 0")
    dead = [layer.dead_channels / layer.channels for layer in layers]
    silence.plot(at, dead, "^--", color="black", ms=3, lw=1, label="dead channels")
    silence.set_ylabel("share")
    silence.set_ylim(-0.02, 1.25)  # room for the legend
    silence.set_yticks([0, 0.5, 1])
    blocks = [re.split(r"_block\d|\.", layer.layer)[0] for layer in layers]
    shown: list[int] = []
    for place in range(len(layers)):
        begins = place == 0 or blocks[place] != blocks[place - 1]
        if begins and (not shown or place - shown[-1] >= len(layers) / MAX_NAMES):
            shown.append(place)
    silence.set_xticks(shown, [blocks[place] for place in shown], rotation=90)
    for axes in (strength, silence):
        axes.legend(ncols=2, loc="upper left")
        axes.grid(axis="x", color="0.85")
        axes.set_axisbelow(True)
    return figure


def _channel_numbers(output: keras.KerasTensor) -> keras.KerasTensor:
    """Reduce [N, ..., C] to [N, 5, C]: mean, mean square, lowest, highest, share of zeros."""
    from keras import ops

    positions = tuple(range(1, len(output.shape) - 1))
    numbers = [
        ops.mean(output, axis=positions),
        ops.mean(ops.square(output), axis=positions),
        ops.min(output, axis=positions),
        ops.max(output, axis=positions),
        ops.mean(ops.cast(ops.equal(output, 0), "float32"), axis=positions),
    ]
    return ops.stack(numbers, axis=1)


def _summary(name: str, numbers: np.ndarray) -> LayerActivations:
    mean, square, lowest, highest, zeros = np.moveaxis(numbers.astype(np.float64), 1, 0)
    return LayerActivations(
        layer=name,
        channels=numbers.shape[2],
        mean=float(mean.mean()),
        std=float(np.sqrt(max(square.mean() - mean.mean() ** 2, 0))),
        lowest=float(lowest.min()),
        highest=float(highest.max()),
        zeros=float(zeros.mean()),
        dead_channels=int(((lowest == 0) & (highest == 0)).all(axis=0).sum()),
    )

"""Every picture of the feature networks can be printed, whatever the video is called and however much is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from printable import faults_of

from extractors.pictures.activations import LayerActivations, plot_layer_statistics
from extractors.pictures.dynamic import (
    WindowMaps,
    animate_features,
    plot_comparison,
    plot_evolution,
    plot_layers_over_time,
    plot_volume,
)
from extractors.pictures.static import plot_activations, plot_filters, plot_overlays

NAME = "Features: $\\frac{1}$ " + 25 * "Weather8" + ".mp4"
RNG = np.random.default_rng(0)
WINDOW = WindowMaps(
    RNG.uniform(0, 900, (8, 7, 7, 40)),
    *(120.0, 122.56),
    RNG.integers(0, 256, (33, 56, 56)).astype(np.uint8),
    RNG.normal(0, 20, (32, 56, 56, 2)),
)
LAYERS = [f"Mixed_{block}.Branch_{way}.Conv3d_0b_3x3.relu" for block in ("3b", "4f", "5c") for way in (0, 1)]
FIRST = [f"Conv3d_{block}.relu" for block in ("1a_7x7", "2b_1x1", "2c_3x3")]


def activations(features):
    maps = {f"conv{n}_block12_3_out": RNG.uniform(0, 1e5, (7, 7, 2048)) for n in (4, 5)}
    return plot_activations(np.zeros((224, 224, 3), np.uint8), maps, {name: features for name in maps}, heading=NAME)


def overlays(height, width, count):
    pictures = [np.full((height, width, 3), 90, np.uint8)] * count
    maps = list(RNG.uniform(0, 1e-5, (count, 7, 7)))
    return plot_overlays(pictures, maps, ["1234.5 s, raises it"] * count, heading=NAME, unit="Grad-CAM")


def statistics():
    layers = [LayerActivations(name, 64, 1e-3, 2e-3, 0, 0.1, 0.5, 3) for name in [*FIRST, *8 * LAYERS]]
    resnet = [f"conv{n}_block{m}_out" for n in (2, 3, 4, 5) for m in (1, 2, 3)]
    return plot_layer_statistics(layers + [LayerActivations(name, 64, 1, 2, 0, 9, 0.9, 0) for name in resnet], NAME)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: activations([2047, 3]),
        lambda: activations(list(range(2000, 2014))),
        lambda: overlays(72, 128, 4),
        lambda: overlays(128, 72, 5),
        lambda: overlays(72, 128, 1),
        lambda: plot_filters([RNG.normal(size=(7, 7, 3))] * 20, ["filter 511\n95 px"] * 20, heading=NAME),
        lambda: plot_filters([RNG.normal(size=(7, 7, 3))], ["filter 511\n95 px"], heading=NAME),
        lambda: plot_layers_over_time(dict.fromkeys(LAYERS[:3], WINDOW), dict.fromkeys(LAYERS, 39), heading=NAME),
        lambda: plot_evolution([WINDOW], range(20), heading=NAME),
        lambda: plot_comparison(WINDOW, [0, 39], heading=NAME),
        lambda: plot_volume(WINDOW, 0, heading=NAME),
        lambda: animate_features([WINDOW], range(6), heading=NAME),
        statistics,
    ],
)
def test_every_text_is_of_8_pt_whole_and_by_itself(draw):
    assert faults_of(draw) == []


def test_a_fault_would_be_found():
    def draw():
        figure = plot_volume(WINDOW, 0, heading="")
        figure.text(0.99, 0.5, "too far to the right")
        figure.text(0.2, 0.5, "one", fontsize=7)
        figure.text(0.2, 0.5, "another")
        return figure

    found = faults_of(draw)
    assert [fault for fault in found if "leaves" in fault] == ["'too far to the right' leaves the picture"]
    assert "'one' has 7.0 pt" in found
    assert "'one' lies over 'another'" in found

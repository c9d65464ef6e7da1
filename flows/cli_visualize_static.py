"""The commands `traitline visualize layers | cam | filters`: what ResNet-50 sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from flows.config import RunConfig
from flows.options import ASSIGNMENTS, CONFIG, WEIGHTS
from flows.visualize_command import (
    COUNT,
    FEATURES,
    FILE,
    LAYER,
    LAYERS,
    OUT,
    STORE,
    draw,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

static_app = typer.Typer()

STATIC_LAYERS = ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]


@static_app.command(epilog="Example: `traitline visualize layers clip.mp4 --layer conv2_block3_out --out l.png`")
def layers(
    file: FILE,
    out: OUT,
    layer: LAYERS = STATIC_LAYERS,
    count: COUNT = 6,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Activations of layers of ResNet-50 on the middle face of a video, or on a picture."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_networks import draw_static_layers

        return draw_static_layers(settings, file, layer, count)

    draw("layers", out, body, {"store.path": store, "weights": weights}, config, assignments)


@static_app.command(epilog="Example: `traitline visualize cam clip.mp4 --feature 120 --out cam.png`")
def cam(
    file: FILE,
    out: OUT,
    feature: FEATURES = None,
    count: COUNT = 4,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Where in the frame static features come from: class activation maps over the original picture."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_networks import draw_cam

        return draw_cam(settings, file, feature, count)

    draw("cam", out, body, {"store.path": store, "weights": weights}, config, assignments)


@static_app.command(epilog="Example: `traitline visualize filters --layer conv1_conv --out filters.png`")
def filters(
    out: OUT,
    layer: LAYER = "conv1_conv",
    feature: FEATURES = None,
    count: COUNT = 16,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """What filters of ResNet-50 look for: the input that excites each most; without --feature, the first ones."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_networks import draw_filters

        return draw_filters(settings, layer, feature, count)

    draw("filters", out, body, {"store.path": store, "weights": weights}, config, assignments)

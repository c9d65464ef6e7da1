"""The commands `traitline visualize layers | cam | filters`: what ResNet-50 sees."""

from __future__ import annotations

import typer

from flows.config import RunConfig
from flows.visualize_command import COUNT, FEATURES, FILE, LAYER, LAYERS, Drawn, picture

static_app = typer.Typer()

STATIC_LAYERS = ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]


@picture(static_app, "layers", "clip.mp4 --layer conv2_block3_out --out layers.png", needs=("faces", "static"))
def layers(settings: RunConfig, file: FILE, layer: LAYERS = STATIC_LAYERS, count: COUNT = 6) -> Drawn:
    """Activations of layers of ResNet-50 on the middle face of a video, or on a picture."""
    from flows.visualize_networks import draw_static_layers

    return draw_static_layers(settings, file, layer, count)


@picture(static_app, "cam", "clip.mp4 --feature 120 --out cam.png", needs=("faces", "static"))
def cam(settings: RunConfig, file: FILE, feature: FEATURES = None, count: COUNT = 4) -> Drawn:
    """Where in the frame static features come from: class activation maps over the original picture."""
    from flows.visualize_networks import draw_cam

    return draw_cam(settings, file, feature, count)


@picture(static_app, "filters", "--layer conv1_conv --out filters.png", needs=("static",))
def filters(settings: RunConfig, layer: LAYER = "conv1_conv", feature: FEATURES = None, count: COUNT = 16) -> Drawn:
    """What filters of ResNet-50 look for: the input that excites each most; without --feature, the first ones."""
    from flows.visualize_networks import draw_filters

    return draw_filters(settings, layer, feature, count)

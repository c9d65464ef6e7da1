"""The commands `traitline visualize motion-layers | evolution | ...`: what I3D sees."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.config import RunConfig
from flows.visualize_command import COUNT, FEATURES, LAYER, LAYERS, VIDEO, Drawn, picture

motion_app = typer.Typer()

MOTION_LAYERS = ["Conv3d_1a_7x7.relu", "Conv3d_2c_3x3.relu", "Mixed_3c", "Mixed_4f", "Mixed_5c"]
NEEDS = ("faces", "dynamic")
FEATURE = Annotated[int | None, typer.Option("--feature", min=0, help="Of the layer; by default the liveliest.")]
WINDOW = Annotated[int, typer.Option("--window", min=1, help="Which window of motion, from 1 on.")]
WINDOWS = Annotated[int, typer.Option("--windows", min=1, help="Windows of motion to look at, from the first.")]


@picture(motion_app, "motion-layers", "clip.mp4 --layer Mixed_4f --out layers.png", needs=NEEDS)
def motion_layers(settings: RunConfig, video: VIDEO, layer: LAYERS = MOTION_LAYERS) -> Drawn:
    """Activations of layers of I3D through the first window of motion, the liveliest feature of each."""
    from flows.visualize_networks import draw_motion_layers

    return draw_motion_layers(settings, video, layer)


@picture(motion_app, "evolution", "clip.mp4 --feature 3 --feature 20 --out evolution.gif", needs=NEEDS)
def evolution(
    settings: RunConfig,
    video: VIDEO,
    moving: bool,
    layer: LAYER = "Mixed_4f",
    feature: FEATURES = None,
    count: COUNT = 3,
    windows: WINDOWS = 2,
) -> Drawn:
    """Features of I3D over time, with the speed of the optical flow; as a GIF, with their heat maps running."""
    from flows.visualize_networks import draw_evolution

    return draw_evolution(settings, video, layer, feature, count, windows, moving=moving)


@picture(motion_app, "heat-maps", "clip.mp4 --layer Mixed_4f --feature 3 --out heat.png", needs=NEEDS)
def heat_maps(
    settings: RunConfig, video: VIDEO, layer: LAYER = "Mixed_4f", feature: FEATURE = None, window: WINDOW = 1
) -> Drawn:
    """Where in the face a feature of I3D is active, over time."""
    from flows.visualize_networks import draw_comparison

    return draw_comparison(settings, video, layer, None if feature is None else [feature], 1, window)


@picture(motion_app, "compare-features", "clip.mp4 --feature 3 --feature 20 --out compare.png", needs=NEEDS)
def compare_features(
    settings: RunConfig,
    video: VIDEO,
    moving: bool,
    layer: LAYER = "Mixed_4f",
    feature: FEATURES = None,
    count: COUNT = 3,
    window: WINDOW = 1,
) -> Drawn:
    """Several features of I3D side by side over time, with the optical flow in colours and arrows; or as a GIF."""
    from flows.visualize_networks import draw_comparison

    return draw_comparison(settings, video, layer, feature, count, window, moving=moving)


@picture(motion_app, "volume", "clip.mp4 --feature 3 --out volume.png", needs=NEEDS)
def volume(
    settings: RunConfig, video: VIDEO, layer: LAYER = "Mixed_4f", feature: FEATURE = None, window: WINDOW = 1
) -> Drawn:
    """A feature of I3D in space and time, as a cloud in three dimensions."""
    from flows.visualize_networks import draw_volume

    return draw_volume(settings, video, layer, feature, window)

"""The commands `traitline visualize motion-layers | evolution | ...`: what I3D sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.config import RunConfig
from flows.options import ASSIGNMENTS, CONFIG, WEIGHTS
from flows.visualize_command import (
    COUNT,
    FEATURES,
    LAYER,
    LAYERS,
    MOVING_OUT,
    OUT,
    STORE,
    VIDEO,
    draw,
)

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

motion_app = typer.Typer()

MOTION_LAYERS = ["Conv3d_1a_7x7.relu", "Conv3d_2c_3x3.relu", "Mixed_3c", "Mixed_4f", "Mixed_5c"]
FEATURE = Annotated[int | None, typer.Option("--feature", min=0, help="Of the layer; by default the liveliest.")]
WINDOW = Annotated[int, typer.Option("--window", min=1, help="Which window of motion, from 1 on.")]
WINDOWS = Annotated[int, typer.Option("--windows", min=1, help="Windows of motion to look at, from the first.")]


@motion_app.command(
    "motion-layers", epilog="Example: `traitline visualize motion-layers clip.mp4 --layer Mixed_4f --out m.png`"
)
def motion_layers(
    video: VIDEO,
    out: OUT,
    layer: LAYERS = MOTION_LAYERS,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Activations of layers of I3D through the first window of motion, the liveliest feature of each."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_networks import draw_motion_layers

        return draw_motion_layers(settings, video, layer)

    draw("motion-layers", out, body, {"store.path": store, "weights": weights}, config, assignments)


@motion_app.command(
    "evolution", epilog="Example: `traitline visualize evolution clip.mp4 --feature 3 --feature 20 --out evolution.gif`"
)
def evolution(
    video: VIDEO,
    out: MOVING_OUT,
    layer: LAYER = "Mixed_4f",
    feature: FEATURES = None,
    count: COUNT = 3,
    windows: WINDOWS = 2,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Features of I3D over time, with the speed of the optical flow; as a GIF, with their heat maps running."""

    def body(settings: RunConfig) -> Figure | FuncAnimation:
        from flows.visualize_files import is_moving
        from flows.visualize_networks import draw_evolution

        return draw_evolution(settings, video, layer, feature, count, windows, moving=is_moving(out))

    draw("evolution", out, body, {"store.path": store, "weights": weights}, config, assignments, moving=True)


@motion_app.command(
    "heat-maps", epilog="Example: `traitline visualize heat-maps clip.mp4 --layer Mixed_4f --feature 3 --out heat.png`"
)
def heat_maps(
    video: VIDEO,
    out: OUT,
    layer: LAYER = "Mixed_4f",
    feature: FEATURE = None,
    window: WINDOW = 1,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Where in the face a feature of I3D is active, over time."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_networks import draw_comparison

        return draw_comparison(settings, video, layer, None if feature is None else [feature], 1, window)

    draw("heat-maps", out, body, {"store.path": store, "weights": weights}, config, assignments)


@motion_app.command(
    "compare-features",
    epilog="Example: `traitline visualize compare-features clip.mp4 --feature 3 --feature 20 --out compare.png`",
)
def compare_features(
    video: VIDEO,
    out: MOVING_OUT,
    layer: LAYER = "Mixed_4f",
    feature: FEATURES = None,
    count: COUNT = 3,
    window: WINDOW = 1,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Several features of I3D side by side over time, with the optical flow in colours and arrows; or as a GIF."""

    def body(settings: RunConfig) -> Figure | FuncAnimation:
        from flows.visualize_files import is_moving
        from flows.visualize_networks import draw_comparison

        return draw_comparison(settings, video, layer, feature, count, window, moving=is_moving(out))

    draw("compare-features", out, body, {"store.path": store, "weights": weights}, config, assignments, moving=True)


@motion_app.command("volume", epilog="Example: `traitline visualize volume clip.mp4 --feature 3 --out volume.png`")
def volume(
    video: VIDEO,
    out: OUT,
    layer: LAYER = "Mixed_4f",
    feature: FEATURE = None,
    window: WINDOW = 1,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """A feature of I3D in space and time, as a cloud in three dimensions."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_networks import draw_volume

        return draw_volume(settings, video, layer, feature, window)

    draw("volume", out, body, {"store.path": store, "weights": weights}, config, assignments)

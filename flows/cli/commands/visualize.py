"""The commands `traitline visualize ...`: pictures of what the networks and the model see."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from flows.cli.picture import COUNT, FEATURES, FILE, LAYER, LAYERS, VIDEO, VIDEO_ID, Drawn, picture
from flows.config.settings import RunConfig
from fusion.traits import TRAITS

visualize_app = typer.Typer(
    no_args_is_help=True, help="Draw what the networks and the model see, as PNG or SVG, and what moves as GIF."
)


STATIC_LAYERS = ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]


@picture(visualize_app, "layers", "clip.mp4 --layer conv2_block3_out --out layers.png", needs=("faces", "static"))
def layers(settings: RunConfig, file: FILE, layer: LAYERS = STATIC_LAYERS, count: COUNT = 6) -> Drawn:
    """Activations of layers of ResNet-50 on the middle face of a video, or on a picture."""
    from flows.visualize.networks import draw_static_layers

    return draw_static_layers(settings, file, layer, count)


@picture(visualize_app, "cam", "clip.mp4 --feature 120 --out cam.png", needs=("faces", "static"))
def cam(settings: RunConfig, file: FILE, feature: FEATURES = None, count: COUNT = 4) -> Drawn:
    """Where in the frame static features come from: class activation maps over the original picture."""
    from flows.visualize.networks import draw_cam

    return draw_cam(settings, file, feature, count)


@picture(visualize_app, "filters", "--layer conv1_conv --out filters.png", needs=("static",))
def filters(settings: RunConfig, layer: LAYER = "conv1_conv", feature: FEATURES = None, count: COUNT = 16) -> Drawn:
    """What filters of ResNet-50 look for: the input that excites each most; without --feature, the first ones."""
    from flows.visualize.networks import draw_filters

    return draw_filters(settings, layer, feature, count)


MOTION_LAYERS = ["Conv3d_1a_7x7.relu", "Conv3d_2c_3x3.relu", "Mixed_3c", "Mixed_4f", "Mixed_5c"]
MOTION_NEEDS = ("faces", "dynamic")
FEATURE = Annotated[int | None, typer.Option("--feature", min=0, help="Of the layer; by default the liveliest.")]
WINDOW = Annotated[int, typer.Option("--window", min=1, help="Which window of motion, from 1 on.")]
WINDOWS = Annotated[int, typer.Option("--windows", min=1, help="Windows of motion to look at, from the first.")]


@picture(visualize_app, "motion-layers", "clip.mp4 --layer Mixed_4f --out layers.png", needs=MOTION_NEEDS)
def motion_layers(settings: RunConfig, video: VIDEO, layer: LAYERS = MOTION_LAYERS) -> Drawn:
    """Activations of layers of I3D through the first window of motion, the liveliest feature of each."""
    from flows.visualize.networks import draw_motion_layers

    return draw_motion_layers(settings, video, layer)


@picture(visualize_app, "evolution", "clip.mp4 --feature 3 --feature 20 --out evolution.gif", needs=MOTION_NEEDS)
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
    from flows.visualize.networks import draw_evolution

    return draw_evolution(settings, video, layer, feature, count, windows, moving=moving)


@picture(visualize_app, "heat-maps", "clip.mp4 --layer Mixed_4f --feature 3 --out heat.png", needs=MOTION_NEEDS)
def heat_maps(
    settings: RunConfig, video: VIDEO, layer: LAYER = "Mixed_4f", feature: FEATURE = None, window: WINDOW = 1
) -> Drawn:
    """Where in the face a feature of I3D is active, over time."""
    from flows.visualize.networks import draw_comparison

    return draw_comparison(settings, video, layer, None if feature is None else [feature], 1, window)


@picture(visualize_app, "compare-features", "clip.mp4 --feature 3 --feature 20 --out compare.png", needs=MOTION_NEEDS)
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
    from flows.visualize.networks import draw_comparison

    return draw_comparison(settings, video, layer, feature, count, window, moving=moving)


@picture(visualize_app, "volume", "clip.mp4 --feature 3 --out volume.png", needs=MOTION_NEEDS)
def volume(
    settings: RunConfig, video: VIDEO, layer: LAYER = "Mixed_4f", feature: FEATURE = None, window: WINDOW = 1
) -> Drawn:
    """A feature of I3D in space and time, as a cloud in three dimensions."""
    from flows.visualize.networks import draw_volume

    return draw_volume(settings, video, layer, feature, window)


Trait = StrEnum("Trait", {trait: trait for trait in TRAITS})
TRAIT = Annotated[Trait, typer.Option("--trait", help="The trait in question.")]
FACES = Annotated[int, typer.Option("--count", min=1, max=32, help="Faces to draw.")]


@picture(
    *(visualize_app, "grad-cam", "clip.mp4 --videos clips --trait extraversion --out cam.png", "videos", "model"),
    needs=("faces", "static"),
)
def grad_cam(
    settings: RunConfig, video: VIDEO_ID, trait: TRAIT, layer: LAYER = "conv5_block3_out", count: FACES = 4
) -> Drawn:
    """What in the faces raises and what lowers a trait's score: Grad-CAM through the model and ResNet-50."""
    from flows.visualize.model import draw_trait_grad_cam

    return draw_trait_grad_cam(settings, video, trait.value, layer, count)


@picture(visualize_app, "attention", "clip.mp4 --store store --out map.png", "model", needs=())
def attention(settings: RunConfig, video: VIDEO_ID) -> Drawn:
    """Attention of each head, and their mean: faces down, motion across."""
    from flows.visualize.model import draw_attention_map

    return draw_attention_map(settings, video)


@picture(visualize_app, "heads", "clip.mp4 --store store --out heads.png", "model", needs=())
def heads(settings: RunConfig, video: VIDEO_ID) -> Drawn:
    """How sharp each head is, and how far in time it looks."""
    from flows.visualize.model import draw_heads

    return draw_heads(settings, video)


@picture(visualize_app, "relations", "clip.mp4 --store store --out relations.png", "model", needs=())
def relations(settings: RunConfig, video: VIDEO_ID) -> Drawn:
    """Which motion each face looks at, head by head, as lines in time."""
    from flows.visualize.model import draw_relations

    return draw_relations(settings, video)


@picture(
    visualize_app, "timeline", "clip.mp4 --videos clips --trait openness --out line.gif", "videos", "model", needs=()
)
def timeline(settings: RunConfig, video: VIDEO_ID, trait: TRAIT, moving: bool) -> Drawn:
    """Which moments spoke for a trait: attention over the frames of the clip; a GIF plays it."""
    from flows.visualize.model import draw_time_line

    return draw_time_line(settings, video, trait.value, moving=moving)

"""The commands `traitline visualize grad-cam | attention | ...`: what a trained model looks at."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from flows.config import RunConfig
from flows.options import ASSIGNMENTS, CONFIG, WEIGHTS
from flows.visualize_command import (
    LAYER,
    MODEL,
    MOVING_OUT,
    OUT,
    STORE,
    VIDEO_ID,
    VIDEOS,
    draw,
)
from fusion.traits import TRAITS

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

model_app = typer.Typer()

Trait = StrEnum("Trait", {trait: trait for trait in TRAITS})
TRAIT = Annotated[Trait, typer.Option("--trait", help="The trait in question.")]


@model_app.command(
    epilog="Example: `traitline visualize grad-cam clip.mp4 --videos clips --trait extraversion --out cam.png`"
)
def grad_cam(
    video: VIDEO_ID,
    trait: TRAIT,
    out: OUT,
    videos: VIDEOS = None,
    model: MODEL = None,
    layer: LAYER = "conv5_block3_out",
    count: Annotated[int, typer.Option("--count", min=1, max=32, help="Faces to draw.")] = 4,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Where in the faces a trait's score comes from: Grad-CAM through the model and ResNet-50."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_model import draw_trait_grad_cam

        return draw_trait_grad_cam(settings, video, trait.value, layer, count)

    flags = {"store.path": store, "weights": weights, "videos": videos, "model": model}
    draw("grad-cam", out, body, flags, config, assignments)


@model_app.command("attention", epilog="Example: `traitline visualize attention clip.mp4 --store store --out map.png`")
def attention(
    video: VIDEO_ID,
    out: OUT,
    model: MODEL = None,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Attention of each head, and their mean: faces down, motion across."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_model import draw_attention_map

        return draw_attention_map(settings, video)

    flags = {"store.path": store, "weights": weights, "model": model}
    draw("attention", out, body, flags, config, assignments)


@model_app.command("heads", epilog="Example: `traitline visualize heads clip.mp4 --store store --out heads.png`")
def heads(
    video: VIDEO_ID,
    out: OUT,
    model: MODEL = None,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """How sharp each head is, and how far in time it looks."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_model import draw_heads

        return draw_heads(settings, video)

    flags = {"store.path": store, "weights": weights, "model": model}
    draw("heads", out, body, flags, config, assignments)


@model_app.command(
    "relations", epilog="Example: `traitline visualize relations clip.mp4 --store store --out relations.png`"
)
def relations(
    video: VIDEO_ID,
    out: OUT,
    model: MODEL = None,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Which motion each face looks at, head by head, as lines in time."""

    def body(settings: RunConfig) -> Figure:
        from flows.visualize_model import draw_relations

        return draw_relations(settings, video)

    flags = {"store.path": store, "weights": weights, "model": model}
    draw("relations", out, body, flags, config, assignments)


@model_app.command(
    "timeline", epilog="Example: `traitline visualize timeline clip.mp4 --videos clips --trait openness --out line.gif`"
)
def timeline(
    video: VIDEO_ID,
    trait: TRAIT,
    out: MOVING_OUT,
    videos: VIDEOS = None,
    model: MODEL = None,
    store: STORE = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Which moments spoke for a trait: attention over the frames of the clip; a GIF plays it."""

    def body(settings: RunConfig) -> Figure | FuncAnimation:
        from flows.visualize_files import is_moving
        from flows.visualize_model import draw_time_line

        return draw_time_line(settings, video, trait.value, moving=is_moving(out))

    flags = {"store.path": store, "weights": weights, "model": model, "videos": videos}
    draw("timeline", out, body, flags, config, assignments, moving=True)

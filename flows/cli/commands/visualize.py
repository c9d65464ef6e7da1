"""The commands `traitline visualize grad-cam | attention | ...`: what a trained model looks at."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from flows.config import RunConfig
from flows.visualize_command import LAYER, VIDEO_ID, Drawn, picture
from fusion.traits import TRAITS

model_app = typer.Typer()

Trait = StrEnum("Trait", {trait: trait for trait in TRAITS})
TRAIT = Annotated[Trait, typer.Option("--trait", help="The trait in question.")]
FACES = Annotated[int, typer.Option("--count", min=1, max=32, help="Faces to draw.")]


@picture(
    *(model_app, "grad-cam", "clip.mp4 --videos clips --trait extraversion --out cam.png", "videos", "model"),
    needs=("faces", "static"),
)
def grad_cam(
    settings: RunConfig, video: VIDEO_ID, trait: TRAIT, layer: LAYER = "conv5_block3_out", count: FACES = 4
) -> Drawn:
    """What in the faces raises and what lowers a trait's score: Grad-CAM through the model and ResNet-50."""
    from flows.visualize_model import draw_trait_grad_cam

    return draw_trait_grad_cam(settings, video, trait.value, layer, count)


@picture(model_app, "attention", "clip.mp4 --store store --out map.png", "model", needs=())
def attention(settings: RunConfig, video: VIDEO_ID) -> Drawn:
    """Attention of each head, and their mean: faces down, motion across."""
    from flows.visualize_model import draw_attention_map

    return draw_attention_map(settings, video)


@picture(model_app, "heads", "clip.mp4 --store store --out heads.png", "model", needs=())
def heads(settings: RunConfig, video: VIDEO_ID) -> Drawn:
    """How sharp each head is, and how far in time it looks."""
    from flows.visualize_model import draw_heads

    return draw_heads(settings, video)


@picture(model_app, "relations", "clip.mp4 --store store --out relations.png", "model", needs=())
def relations(settings: RunConfig, video: VIDEO_ID) -> Drawn:
    """Which motion each face looks at, head by head, as lines in time."""
    from flows.visualize_model import draw_relations

    return draw_relations(settings, video)


@picture(model_app, "timeline", "clip.mp4 --videos clips --trait openness --out line.gif", "videos", "model", needs=())
def timeline(settings: RunConfig, video: VIDEO_ID, trait: TRAIT, moving: bool) -> Drawn:
    """Which moments spoke for a trait: attention over the frames of the clip; a GIF plays it."""
    from flows.visualize_model import draw_time_line

    return draw_time_line(settings, video, trait.value, moving=moving)

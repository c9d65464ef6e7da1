"""The commands `traitline visualize ...`: pictures of what the networks and the model see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.command import command, given
from flows.cli.options import ASSIGNMENTS, CONFIG, MODEL, STORE_PATH, VIDEOS, WEIGHTS, CommandOnFiles
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError
from fusion.traits import TRAITS
from storage.files.commit import check_writable

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

    from flows.archive.families import Part

visualize_app = typer.Typer(
    no_args_is_help=True,
    help="Visualize what the networks and the model respond to, as PNG or SVG (animations: GIF or MP4).",
)

FILE = Annotated[Path, typer.Argument(metavar="FILE", help="A video, or a picture (its middle square is taken).")]
VIDEO = Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.")]
VIDEO_ID = Annotated[str, typer.Argument(metavar="VIDEO_ID", help="A video of the store: its path in the folder.")]
PICTURE_FILE = Annotated[Path, typer.Option("--out", help="File to write: .png or .svg.")]
MOVING_FILE = Annotated[Path, typer.Option("--out", help="File to write: .png, .svg, or an animated .gif.")]
LAYER = Annotated[str, typer.Option("--layer", help="Layer of the network; an unknown name lists them all.")]
LAYERS = Annotated[
    list[str], typer.Option("--layer", help="Layer of the network, can be repeated; an unknown name lists them all.")
]
FEATURE = Annotated[
    int | None, typer.Option("--feature", min=0, help="Feature of the layer; by default the one that varies most.")
]
FEATURES = Annotated[
    list[int] | None,
    typer.Option("--feature", min=0, help="Feature of the layer, can be repeated; by default the most active ones."),
]
COUNT = Annotated[int, typer.Option("--count", min=1, max=32, help="Features to draw if none is named.")]
FACES = Annotated[int, typer.Option("--count", min=1, max=32, help="Faces to draw.")]
WINDOW = Annotated[int, typer.Option("--window", min=1, help="Window of motion, counted from 1.")]
WINDOWS = Annotated[int, typer.Option("--windows", min=1, help="Windows of motion to draw, from the first.")]
Trait = StrEnum("Trait", {trait: trait for trait in TRAITS})  # type: ignore[misc]  # members are known at run time
TRAIT = Annotated[Trait, typer.Option("--trait", help="The trait in question.")]

_command = partial(visualize_app.command, cls=CommandOnFiles)
MOVING = (".png", ".svg", ".gif")
STATIC_LAYERS = ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]
MOTION_LAYERS = ["Conv3d_1a_7x7.relu", "Conv3d_2c_3x3.relu", "Mixed_3c", "Mixed_4f", "Mixed_5c"]


@contextmanager
def _drawing(
    ctx: typer.Context,
    out: Path,
    *,
    needs: Sequence[Part] = (),
    file: Path | None = None,
    endings: Sequence[str] = (".png", ".svg"),
) -> Iterator[RunConfig]:
    """Check the arguments and run the block, which draws and saves, with settled weights.

    Commands that take a model need an existing store; the others only keep their log in it.

    Args:
        needs: networks whose weights must be available.
        file: to draw, if it is not a video of the store.
        endings: that `out` may have.
    """

    def check(settings: RunConfig) -> None:
        if out.suffix.lower() not in endings:
            raise UserError(f"--out must end in {' or '.join(endings)}; got {out.name!r}")
        if file is not None and not file.is_file():
            raise UserError(f"there is no file {file}")
        check_writable(out)
        if "videos" in ctx.params:
            from flows.archive.videos import check_videos, named_videos

            named_videos(settings)
            check_videos(settings)

    makes_store, if_stopped = "model" not in ctx.params, f"{out} is not written"
    with command(
        f"visualize-{ctx.info_name}", **given(ctx), makes_store=makes_store, check=check, if_stopped=if_stopped
    ) as settings:
        from flows.archive.families import settle_weights
        from flows.visualize.files import picture_style

        with console.console.status("Drawing"), picture_style():
            yield settle_weights(settings, needs)
        console.say(f"{'Video' if out.suffix.lower() == '.mp4' else 'Picture'}: {out}")


def _save(picture: Figure | FuncAnimation, out: Path) -> None:
    from flows.visualize.files import save_picture

    save_picture(picture, out)


def _is_gif(out: Path) -> bool:
    return out.suffix.lower() == ".gif"


@_command(epilog="Example: `traitline visualize faces clip.mp4 --out faces.png`")
def faces(
    ctx: typer.Context,
    video: VIDEO,
    picture: PICTURE_FILE,
    store: STORE_PATH = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Contact sheet of a video: the face's box and eyes, the motion crops, the static tokens, scores and cuts."""
    with _drawing(ctx, picture, needs=("faces",), file=video) as settings:
        from flows.visualize.faces import draw_faces

        _save(draw_faces(settings, video), picture)


@_command(epilog="Example: `traitline visualize layers clip.mp4 --layer conv2_block3_out --out layers.png`")
def layers(
    ctx: typer.Context,
    file: FILE,
    picture: PICTURE_FILE,
    layer: LAYERS = STATIC_LAYERS,
    count: COUNT = 6,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Activations of layers of ResNet-50 on the middle face of a video, or on a picture."""
    with _drawing(ctx, picture, needs=("faces", "static"), file=file) as settings:
        from flows.visualize.networks import draw_static_layers

        _save(draw_static_layers(settings, file, layer, count), picture)


@_command(epilog="Example: `traitline visualize cam clip.mp4 --feature 120 --out cam.png`")
def cam(
    ctx: typer.Context,
    file: FILE,
    picture: PICTURE_FILE,
    feature: FEATURES = None,
    count: COUNT = 4,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Where in the frame static features come from: class activation maps over the original picture."""
    with _drawing(ctx, picture, needs=("faces", "static"), file=file) as settings:
        from flows.visualize.networks import draw_cam

        _save(draw_cam(settings, file, feature, count), picture)


@_command(epilog="Example: `traitline visualize filters --layer conv1_conv --out filters.png`")
def filters(
    ctx: typer.Context,
    picture: PICTURE_FILE,
    layer: LAYER = "conv1_conv",
    feature: FEATURES = None,
    count: COUNT = 16,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """What filters of ResNet-50 look for: the input that excites each most; without --feature, the first ones."""
    with _drawing(ctx, picture, needs=("static",)) as settings:
        from flows.visualize.networks import draw_filters

        _save(draw_filters(settings, layer, feature, count), picture)


@_command(epilog="Example: `traitline visualize motion-layers clip.mp4 --layer Mixed_4f --out layers.png`")
def motion_layers(
    ctx: typer.Context,
    video: VIDEO,
    picture: PICTURE_FILE,
    layer: LAYERS = MOTION_LAYERS,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Activations of layers of I3D through the first window of motion, in each the feature that varies most."""
    with _drawing(ctx, picture, needs=("faces", "dynamic"), file=video) as settings:
        from flows.visualize.networks import draw_motion_layers

        _save(draw_motion_layers(settings, video, layer), picture)


@_command(epilog="Example: `traitline visualize evolution clip.mp4 --feature 3 --feature 20 --out evolution.gif`")
def evolution(
    ctx: typer.Context,
    video: VIDEO,
    picture: MOVING_FILE,
    layer: LAYER = "Mixed_4f",
    feature: FEATURES = None,
    count: COUNT = 3,
    windows: WINDOWS = 2,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Features of I3D over time, with the speed of the optical flow; a GIF also plays their heat maps."""
    with _drawing(ctx, picture, needs=("faces", "dynamic"), file=video, endings=MOVING) as settings:
        from flows.visualize.networks import draw_evolution

        _save(draw_evolution(settings, video, layer, feature, count, windows, moving=_is_gif(picture)), picture)


@_command(epilog="Example: `traitline visualize heat-maps clip.mp4 --layer Mixed_4f --feature 3 --out heat.png`")
def heat_maps(
    ctx: typer.Context,
    video: VIDEO,
    picture: PICTURE_FILE,
    layer: LAYER = "Mixed_4f",
    feature: FEATURE = None,
    window: WINDOW = 1,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Where in the face a feature of I3D is active, over time."""
    with _drawing(ctx, picture, needs=("faces", "dynamic"), file=video) as settings:
        from flows.visualize.networks import draw_comparison

        _save(draw_comparison(settings, video, layer, None if feature is None else [feature], 1, window), picture)


@_command(epilog="Example: `traitline visualize compare-features clip.mp4 --feature 3 --feature 20 --out compare.png`")
def compare_features(
    ctx: typer.Context,
    video: VIDEO,
    picture: MOVING_FILE,
    layer: LAYER = "Mixed_4f",
    feature: FEATURES = None,
    count: COUNT = 3,
    window: WINDOW = 1,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Several features of I3D side by side over time, with the optical flow in colours and arrows; or as a GIF."""
    with _drawing(ctx, picture, needs=("faces", "dynamic"), file=video, endings=MOVING) as settings:
        from flows.visualize.networks import draw_comparison

        _save(draw_comparison(settings, video, layer, feature, count, window, moving=_is_gif(picture)), picture)


@_command(epilog="Example: `traitline visualize volume clip.mp4 --feature 3 --out volume.png`")
def volume(
    ctx: typer.Context,
    video: VIDEO,
    picture: PICTURE_FILE,
    layer: LAYER = "Mixed_4f",
    feature: FEATURE = None,
    window: WINDOW = 1,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """A feature of I3D in space and time, as a cloud in three dimensions."""
    with _drawing(ctx, picture, needs=("faces", "dynamic"), file=video) as settings:
        from flows.visualize.networks import draw_volume

        _save(draw_volume(settings, video, layer, feature, window), picture)


@_command(epilog="Example: `traitline visualize grad-cam clip.mp4 --videos clips --trait extraversion --out cam.png`")
def grad_cam(
    ctx: typer.Context,
    video: VIDEO_ID,
    trait: TRAIT,
    picture: PICTURE_FILE,
    layer: LAYER = "conv5_block3_out",
    count: FACES = 4,
    videos: VIDEOS = None,
    model: MODEL = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """What in the faces raises and what lowers a trait's score: Grad-CAM through the model and ResNet-50."""
    with _drawing(ctx, picture, needs=("faces", "static")) as settings:
        from flows.visualize.model import draw_trait_grad_cam

        _save(draw_trait_grad_cam(settings, video, trait.value, layer, count), picture)


@_command(epilog="Example: `traitline visualize attention clip.mp4 --store store --out map.png`")
def attention(
    ctx: typer.Context,
    video: VIDEO_ID,
    picture: PICTURE_FILE,
    model: MODEL = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Attention of each head, and their mean: faces down, motion across."""
    with _drawing(ctx, picture) as settings:
        from flows.visualize.model import draw_attention_map

        _save(draw_attention_map(settings, video), picture)


@_command(epilog="Example: `traitline visualize heads clip.mp4 --store store --out heads.png`")
def heads(
    ctx: typer.Context,
    video: VIDEO_ID,
    picture: PICTURE_FILE,
    model: MODEL = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """How sharp each head is, and how far in time it looks."""
    with _drawing(ctx, picture) as settings:
        from flows.visualize.model import draw_heads

        _save(draw_heads(settings, video), picture)


@_command(epilog="Example: `traitline visualize relations clip.mp4 --store store --out relations.png`")
def relations(
    ctx: typer.Context,
    video: VIDEO_ID,
    picture: PICTURE_FILE,
    model: MODEL = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Which motion each face looks at, head by head, as lines in time."""
    with _drawing(ctx, picture) as settings:
        from flows.visualize.model import draw_relations

        _save(draw_relations(settings, video), picture)


@_command(epilog="Example: `traitline visualize timeline clip.mp4 --videos clips --trait openness --out line.gif`")
def timeline(
    ctx: typer.Context,
    video: VIDEO_ID,
    trait: TRAIT,
    picture: MOVING_FILE,
    videos: VIDEOS = None,
    model: MODEL = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Which moments raised or lowered a trait: attention over the frames of the clip; a GIF plays it."""
    with _drawing(ctx, picture, endings=MOVING) as settings:
        from flows.visualize.model import draw_time_line

        _save(draw_time_line(settings, video, trait.value, moving=_is_gif(picture)), picture)


@_command(epilog="Example: `traitline visualize annotated clip.mp4 --videos clips --store store --out annotated.mp4`")
def annotated(
    ctx: typer.Context,
    video: VIDEO_ID,
    film: Annotated[Path, typer.Option("--out", help="File to write: .mp4.")],
    videos: VIDEOS = None,
    model: MODEL = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """The video itself with the face's box and eyes, cuts, and the model's attention over time, as an MP4."""
    with _drawing(ctx, film, endings=(".mp4",)) as settings:
        from flows.visualize.annotated import write_annotated

        write_annotated(settings, video, film)

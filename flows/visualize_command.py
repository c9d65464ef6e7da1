"""What the commands `traitline visualize ...` have in common: their options, and how a picture is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import console
from flows.config import RunConfig, load_config
from flows.errors import UserError
from flows.families import settle_weights
from flows.session import run_command
from storage.commit import check_writable

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

FILE = Annotated[Path, typer.Argument(metavar="FILE", help="A video, or a picture (its middle square is taken).")]
VIDEO = Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.")]
VIDEO_ID = Annotated[str, typer.Argument(metavar="VIDEO_ID", help="A video of the store: its path in the folder.")]
OUT = Annotated[Path, typer.Option("--out", help="File to write: .png or .svg.")]
MOVING_OUT = Annotated[Path, typer.Option("--out", help="File to write: .png, .svg, or .gif, which moves.")]
LAYER = Annotated[str, typer.Option("--layer", help="Layer of the network; a wrong name lists them all.")]
LAYERS = Annotated[list[str], typer.Option("--layer", help="A layer, any number of times; a wrong name lists them.")]
FEATURES = Annotated[
    list[int] | None,
    typer.Option("--feature", min=0, help="A feature of the layer, any number of times; by default those most active."),
]
COUNT = Annotated[int, typer.Option("--count", min=1, max=32, help="Features to draw, where none is named.")]
VIDEOS = Annotated[Path | None, typer.Option("--videos", help="Folder of videos.")]
MODEL = Annotated[str | None, typer.Option("--model", help="NAME, NAME/VERSION or NAME/ALIAS.")]
STORE = Annotated[str | None, typer.Option("--store", help="The store, also s3://bucket/folder.")]


def draw(
    name: str,
    out: Path,
    body: Callable[[RunConfig], Figure | FuncAnimation],
    flags: Mapping[str, Any],
    config: Path | None,
    assignments: list[str] | None,
    *,
    moving: bool = False,
) -> None:
    """Run one command that draws.

    Args:
        name: of the command.
        out: file to write.
        body: makes the picture; the settings' weights are settled.
        flags: options that are settings.
        config: settings file.
        assignments: of --set.
        moving: whether it can be a GIF.
    """

    def load() -> RunConfig:
        allowed = (".png", ".svg", ".gif") if moving else (".png", ".svg")
        if out.suffix.lower() not in allowed:
            raise UserError(f"--out must end in {' or '.join(allowed)}; got {out.name!r}")
        settings = load_config(config, flags=flags, assignments=assignments)
        check_writable(out)
        return settings

    def make(settings: RunConfig) -> None:
        from flows.visualize_files import save_picture  # matplotlib takes a while to import

        with console.console.status("Drawing"):
            save_picture(body(settle_weights(settings)), out)
        console.say(f"Picture: {out}")

    run_command(f"visualize-{name}", load, make)

"""How the commands `traitline visualize ...` are made: of a function that draws, with the options that all share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.archive.families import Part, settle_weights
from flows.cli.command import run_command
from flows.cli.options import ASSIGNMENTS, CONFIG, WEIGHTS, CommandOnFiles
from flows.config.load import load_config, load_for_store
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError
from storage.files.commit import check_writable

Drawn = Any
"""A `matplotlib` Figure or, of what moves, a FuncAnimation; matplotlib takes a while to import."""

FILE = Annotated[Path, typer.Argument(metavar="FILE", help="A video, or a picture (its middle square is taken).")]
VIDEO = Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.")]
VIDEO_ID = Annotated[
    str,
    typer.Argument(metavar="VIDEO_ID", help="A video of the store: its path in the folder."),
]
LAYER = Annotated[str, typer.Option("--layer", help="Layer of the network; a name unlike any lists them all.")]
LAYERS = Annotated[
    list[str], typer.Option("--layer", help="A layer, any number of times; a name unlike any lists them.")
]
FEATURES = Annotated[
    list[int] | None,
    typer.Option("--feature", min=0, help="A feature of the layer, any number of times; by default those most active."),
]
COUNT = Annotated[int, typer.Option("--count", min=1, max=32, help="Features to draw, where none is named.")]

OUT = Annotated[Path, typer.Option("--out", help="File to write: .png or .svg.")]
MOVING_OUT = Annotated[Path, typer.Option("--out", help="File to write: .png, .svg, or .gif, which moves.")]

# Parameter -> the setting that it overrides, and the option.
SETTINGS: dict[str, tuple[str, Any]] = {
    "videos": ("videos", Annotated[Path | None, typer.Option("--videos", help="Folder of videos, or a list of them.")]),
    "model": ("model", Annotated[str | None, typer.Option("--model", help="NAME, NAME/VERSION or NAME/ALIAS.")]),
    "store": ("store.path", Annotated[str | None, typer.Option("--store", help="The store, also s3://bucket/folder.")]),
    "weights": ("weights", WEIGHTS),
}


def picture(
    app: typer.Typer, name: str, example: str, *options: str, needs: Sequence[Part]
) -> Callable[[Callable[..., Drawn]], Callable[..., Drawn]]:
    """Make a command of a function that takes settled settings, and arguments and options of its own, and draws.

    With a parameter `moving` it can draw a GIF, and is told whether it has to.

    Args:
        app: to add the command to.
        name: of the command.
        example: its arguments, shown below the help.
        options: settings from `SETTINGS` that the command takes beside `store` and `weights`.
        needs: whose weights must be at hand.
    """
    shared = (*options, "store", "weights")

    def register(body: Callable[..., Drawn]) -> Callable[..., Drawn]:
        _, *own = inspect.signature(body, eval_str=True).parameters.values()
        moves = any(parameter.name == "moving" for parameter in own)

        def call(out: Path, config: Path | None, assignments: list[str] | None, **values: Any) -> None:
            flags = {SETTINGS[option][0]: values.pop(option) for option in shared}

            def load() -> RunConfig:
                allowed = (".png", ".svg", ".gif") if moves else (".png", ".svg")
                if out.suffix.lower() not in allowed:
                    raise UserError(f"--out must end in {' or '.join(allowed)}; got {out.name!r}")
                for value in values.values():  # said before any network is built
                    if isinstance(value, Path) and not value.is_file():
                        raise UserError(f"there is no file {value}")
                # a model lies in a store that must be there; what networks see of a file needs one for the log alone
                read = load_for_store if "model" in options else load_config
                settings = read(config, flags=flags, assignments=assignments)
                check_writable(out)
                return settings

            def draw(settings: RunConfig) -> None:
                from flows.visualize.files import is_moving, save_picture

                if moves:
                    values["moving"] = is_moving(out)
                with console.console.status("Drawing"):
                    save_picture(body(settle_weights(settings, needs), **values), out)
                console.say(f"Picture: {out}")

            run_command(f"visualize-{name}", load, draw, if_stopped=f"{out} is not written")

        kinds = {"out": MOVING_OUT if moves else OUT, **{option: SETTINGS[option][1] for option in shared}}
        kinds |= {"config": CONFIG, "assignments": ASSIGNMENTS}
        call.__signature__ = inspect.Signature(  # what Typer makes arguments and options from
            [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own if parameter.name != "moving"]
            + [
                inspect.Parameter(
                    option,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if option == "out" else None,
                    annotation=kind,
                )
                for option, kind in kinds.items()
            ]
        )
        epilog = f"Example: `traitline visualize {name} {example}`"
        app.command(name, cls=CommandOnFiles, help=inspect.getdoc(body), epilog=epilog)(call)
        return body

    return register

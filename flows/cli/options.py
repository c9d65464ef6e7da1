"""Options that several commands share, and a command class for arguments that are names of files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperOption

CONFIG = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file in YAML.")]
ASSIGNMENTS = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any single setting, as in video.fps=25.")
]

# Each of these overrides one setting.
VIDEOS = Annotated[
    Path | None,
    typer.Option(help="Folder of videos, with its subfolders; or a list of them: .txt, .csv, .tsv or .parquet."),
]
VIDEOS_ROOT = Annotated[
    Path | None, typer.Option(help="Folder that the paths in a list are relative to; by default the list's own.")
]
LABELS = Annotated[
    Path | None, typer.Option(help="Labels: .csv, .parquet, .pkl, or the folder of First Impressions' pickles.")
]
STORE_PATH = Annotated[
    str | None, typer.Option("--store", help="Folder of the store, or s3://bucket/folder.", show_default="store")
]
OUT = Annotated[str | None, typer.Option(help="File to write, .csv or .parquet; by default a CSV in STORE/exports.")]
MODEL = Annotated[str | None, typer.Option(help="The model: NAME (its latest version), NAME/VERSION or NAME/ALIAS.")]
WEIGHTS = Annotated[
    str | None, typer.Option(help="pretrained, random (for trials only) or auto.", show_default="pretrained")
]

SEARCH = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Search for better training settings with N trials, evaluated on people not used for the choice; "
        "search.only limits the settings searched.",
    ),
]

SETTING_OF = {
    "videos": "videos",
    "videos_root": "videos_root",
    "labels": "labels",
    "store": "store.path",
    "out": "out",
    "model": "model",
    "weights": "weights",
    "search": "search.trials",
    "columns": "export.columns",
    "since": "export.since",
    "until": "export.until",
    "clips": "report.clips",
    "frames": "report.frames",
}
"""Parameters of commands that override a setting, with its name."""

# For commands that read no settings.
STORE = Annotated[str, typer.Option(help="Folder of the store, or s3://bucket/folder.")]


PICTURE = Annotated[Literal["png", "svg"], typer.Option("--format", help="Format of the pictures.")]


class CommandOnFiles(TyperCommand):
    """A command whose arguments are names of files, which may begin with a dash like options.

    A word with one dash and several letters is a name, and so is a word with two dashes and a dot, such as "--a0.mp4".
    Options have no dots in their names, so a mistyped option is still an error.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move arguments behind `--`, so that none of them is read as an option."""
        options = {word: option for option in self.params if isinstance(option, TyperOption) for word in option.opts}
        chosen: list[str] = []
        arguments: list[str] = []
        words = iter(args)
        for word in words:
            name, equals, _ = word.partition("=")
            if word == "--":
                arguments += words
            elif name in options:
                chosen.append(word)
                if not equals and not options[name].is_flag:
                    value = next(words, None)
                    if value is None:  # an option without its value: Typer reports it
                        return super().parse_args(ctx, chosen)
                    chosen.append(value)
            elif _looks_like_option(word):
                chosen.append(word)
            else:
                arguments.append(word)
        return super().parse_args(ctx, [*chosen, "--", *arguments])


def _looks_like_option(word: str) -> bool:
    if word.startswith("--"):
        return "." not in word.partition("=")[0]
    return word.startswith("-") and len(word) == 2

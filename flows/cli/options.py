"""Options that many commands take, and how a command on an existing store reads its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from flows.cli_store import existing_store
from flows.config import RunConfig, load_config

WEIGHTS = Annotated[str | None, typer.Option("--weights", help="pretrained, random (for trials only) or auto.")]
CONFIG = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file in YAML.")]
ASSIGNMENTS = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any single setting, as in video.fps=25.")
]


def load_for_store(
    config: Path | None, *, flags: Mapping[str, Any] | None = None, assignments: list[str] | None = None
) -> RunConfig:
    """Read the settings of a command that works on a store which must be there.

    Raises:
        UserError: a setting is wrong, or there is no such store.
    """
    settings = load_config(config, flags=flags, assignments=assignments)
    existing_store(settings.store.path)
    return settings


class CommandOnFiles(TyperCommand):
    """A command whose arguments are names of videos or files, which can begin with a dash as options do.

    A word with one dash and more than one letter behind it is a name, and so is one with two dashes and a dot, as in
    "--a0.mp4", unless it is an option; names of real options have no dots, so that a mistyped one is still refused.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put arguments behind `--`, where nothing is taken for an option."""
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
                    if value is None:  # which is said now
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

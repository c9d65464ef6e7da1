"""Options that many commands take, and how a command on an existing store reads its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

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

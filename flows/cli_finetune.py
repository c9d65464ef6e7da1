"""The command `traitline finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows import console
from flows.config import RunConfig
from flows.families import settle_weights
from flows.manifest import videos_of
from flows.options import ASSIGNMENTS, CONFIG, WEIGHTS, load_for_store
from flows.session import run_command


def finetune(
    videos: Annotated[Path, typer.Option(help="Folder of videos, with its subfolders; or a list of them.")],
    labels: Annotated[Path, typer.Option(help="Labels: .csv, .parquet, or .pkl.")],
    store: Annotated[
        str | None, typer.Option(help="Folder of the store, or s3://bucket/folder; it has the videos' faces.")
    ] = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Train the unfrozen layers of the static network on your videos, and keep them as an asset for static.weights."""
    flags = {"videos": videos, "labels": labels, "store.path": store, "weights": weights}

    def body(settings: RunConfig) -> None:
        from flows.finetune import finetune as train  # TensorFlow takes seconds to import

        settings = settle_weights(settings)
        with console.console.status("Looking at the videos"):
            files = videos_of(settings)
        made = train(settings, files)
        console.say(f"Asset: {made.name}; --set static.weights={made.name} makes features with it, under their own key")
        files.check_whole()

    run_command("finetune", lambda: load_for_store(config, flags=flags, assignments=assignments), body)

"""The command `traitline evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows import console
from flows.cli_store import show_table
from flows.config import RunConfig, load_config
from flows.families import settle_weights
from flows.labels import labels_of
from flows.options import ASSIGNMENTS, CONFIG
from flows.prefect_server import check_server
from flows.session import run_command


def evaluate(
    labels: Annotated[Path | None, typer.Option(help="Labels, or the folder of First Impressions' files.")] = None,
    store: Annotated[str | None, typer.Option(help="The store with the features, also s3://bucket/folder.")] = None,
    groups: Annotated[
        Path | None, typer.Option(help="Table of groups (.csv, .parquet): video_id or subject, and any columns.")
    ] = None,
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Only the baselines that need no features.")
    ] = False,
    weights: Annotated[str | None, typer.Option(help="Those of the features: pretrained, random or auto.")] = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Compare the model with baselines, ablations and controls, on the official split and on unseen people.

    Trains anew for every seed and fold; nothing that is in the store is changed. Results go to STORE/reports as JSON.
    """
    flags = {"labels": labels, "store.path": store, "weights": weights}

    def body(settings: RunConfig) -> None:
        labels_of(settings)  # what is wrong with them is said before anything heavy is imported
        if labels_only:
            from flows.evaluation import evaluate_clips

            evaluation = evaluate_clips(settings, groups, labels_only=True)
        else:
            if settings.weights == "auto":
                settings = settle_weights(settings)
            check_server()
            from flows.evaluate import evaluate as evaluate_flow

            evaluation = evaluate_flow(settings, groups)
        from flows.evaluation_tables import evaluation_tables

        for table in evaluation_tables(evaluation.results):
            show_table(table)
        console.say(f"Evaluate: {evaluation.results['seconds']:.1f} s; all figures are in {evaluation.path}")

    run_command("evaluate", lambda: load_config(config, flags=flags, assignments=assignments), body)

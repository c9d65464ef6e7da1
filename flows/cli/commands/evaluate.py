"""The commands `traitline evaluate` and `traitline evaluate-features`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.cli.command import command, given
from flows.cli.options import ASSIGNMENTS, CONFIG, LABELS, PICTURE, STORE_PATH, WEIGHTS
from flows.cli.output import numbers, show_table
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.server import check_server

if TYPE_CHECKING:
    from extractors.pictures.activations import LayerActivations
    from flows.evaluation.features import FamilyEvaluation, Kind


def evaluate(
    ctx: typer.Context,
    labels: LABELS = None,
    store: STORE_PATH = None,
    groups: Annotated[
        Path | None, typer.Option(help="Table of groups (.csv, .parquet): video_id or subject, and any columns.")
    ] = None,
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Only the baselines that need no features.")
    ] = False,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Compare the model with baselines, ablations and controls, on the official split and on unseen people.

    Trains new models for every seed and fold; the models in the store do not change. Results go to STORE/reports as
    JSON.
    """
    with command("evaluate", **given(ctx), makes_store=True, check=_check) as settings:
        from flows.archive.families import settle_weights
        from flows.evaluation.evaluate import evaluate_clips

        if labels_only:
            evaluation = evaluate_clips(settings, groups, labels_only=True)
        else:
            if settings.weights == "auto":
                settings = settle_weights(settings)
            check_server()
            from flows.pipeline.steps import step

            evaluation = step("evaluate")(evaluate_clips)(settings, groups, labels_only=False)
        from flows.evaluation.tables import evaluation_tables

        for table in evaluation_tables(evaluation.results):
            show_table(table)
        console.say(f"Evaluate: {evaluation.results['seconds']:.1f} s; all figures are in {evaluation.path}")


NAMED = 20  # maximum number of dead, constant or saturated dimensions to list


def evaluate_features(
    ctx: typer.Context,
    labels: Annotated[Path | None, typer.Option(help="Labels with a column subject, the person.")] = None,
    store: STORE_PATH = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the videos, to run the networks on some and examine every layer.")
    ] = None,
    count: Annotated[int, typer.Option("--clips", min=1, help="Number of videos to examine every layer with.")] = 4,
    weights: WEIGHTS = None,
    picture: PICTURE = "png",
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Measure whether cached features tell people apart, and which of their dimensions or layers are useless.

    Tables are printed; all figures and the pictures go to STORE/reports/features-TIME.
    """
    with command("evaluate-features", **given(ctx), check=_check) as settings:
        from flows.archive.families import settle_weights

        if settings.weights == "auto" or settings.videos is not None:
            settings = settle_weights(settings)
        from flows.evaluation import features
        from flows.visualize.files import picture_style

        evaluated = features.evaluate_families(settings)
        with picture_style():
            figures = dict(features.figures_of(settings.weights, evaluated))
            layers = {} if settings.videos is None else _layers(settings, count, figures)
            show_table(_identity_table(evaluated))
            show_table(_dimension_table(evaluated))
            for kind, found in layers.items():
                show_table(_layer_table(kind, found))
            plain = {kind: [asdict(layer) for layer in layers[kind]] for kind in evaluated if kind in layers}
            results = features.results_of(settings, evaluated, plain)
            folder = features.keep(settings.store.path, results, figures, picture)
        console.say(f"Evaluate features: all figures and {console.counted(len(figures), 'picture')} are in {folder}")


def _check(settings: RunConfig) -> None:
    from flows.archive.labels import labels_of
    from flows.archive.videos import check_videos

    labels_of(settings)
    check_videos(settings)


def _layers(settings: RunConfig, count: int, figures: dict[str, Any]) -> dict[str, list[LayerActivations]]:
    from extractors.pictures.activations import plot_layer_statistics
    from flows.archive.videos import videos_of
    from flows.evaluation.features import TITLES
    from flows.evaluation.layers import layer_activations
    from flows.visualize.files import heading_of

    found = layer_activations(settings, videos_of(settings), count)
    for kind, layers in found.items():
        figures[f"{kind}-layers"] = plot_layer_statistics(
            layers, heading_of(settings.weights, f"Layers behind {TITLES[kind]}")
        )
    return found


def _identity_table(evaluated: Mapping[Kind, FamilyEvaluation]) -> Table:
    caption = (
        "cosine similarities of tokens of different clips; consistency: of one person, each person counting once; "
        "discriminability: mean cosine distance of different people; AUC: same or different person, over all pairs of "
        "a sample"
    )
    facts = numbers("people", "with 2+ clips", "clips", "tokens")
    measured = numbers("in one clip", "consistency", "discriminability", "AUC", "pairs, same", "different")
    table = Table("features", *facts, *measured, title="People", caption=caption)
    for kind, one in evaluated.items():
        found, tokens = one.identity, f"{one.dimensions.tokens:,}"
        if found is None:
            table.add_row(kind, "not known", "", f"{one.clips:,}", tokens)
            continue
        counts = (f"{found.people:,}", f"{found.people_of_several_clips:,}", f"{one.clips:,}", tokens)
        measures = (found.within_clip, found.consistency, found.discriminability, found.auc)
        pairs = (f"{len(found.same):,}", f"{len(found.different):,}")
        table.add_row(kind, *counts, *("-" if value is None else f"{value:.4f}" for value in measures), *pairs)
    return table


def _dimension_table(evaluated: Mapping[Kind, FamilyEvaluation]) -> Table:
    table = Table("features", "dimensions", "what", "how many", "which", title="Dimensions")
    for kind, one in evaluated.items():
        size = f"{len(one.dimensions.mean):,}"
        for what in ("dead", "constant", "saturated"):
            found = getattr(one.dimensions, what)
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            table.add_row(kind, size, what, f"{len(found):,}", ", ".join(map(str, found[:NAMED])) + more)
        table.add_row(kind, size, "components with 90% of variance", f"{one.components.needed(0.9):,}", "")
        left_out = one.dimensions.left_out
        if left_out:
            table.add_row(kind, size, "tokens with a number that is not finite", f"{left_out:,}", "left out")
    return table


def _layer_table(kind: str, layers: list[LayerActivations]) -> Table:
    figures = numbers("channels", "dead", "zeros", "mean", "std", "highest")
    table = Table("layer", *figures, title=f"Layers that end in a ReLU, {kind}")
    for layer in layers:
        values = (f"{value:.4g}" for value in (layer.mean, layer.std, layer.highest))
        table.add_row(layer.layer, f"{layer.channels:,}", f"{layer.dead_channels:,}", f"{layer.zeros:.1%}", *values)
    return table

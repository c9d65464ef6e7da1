"""The commands that do the steps of a run: `run`, `extract`, `train`, `score`, `export`, `report` and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.archive.families import settle_weights
from flows.archive.labels import check_labels_meet
from flows.archive.models import chosen_model, trains
from flows.archive.refusals import model_for
from flows.archive.videos import videos_of
from flows.cli.command import command, run_command
from flows.cli.options import ASSIGNMENTS, CONFIG, WEIGHTS
from flows.cli.output import show_extraction, show_run, show_table
from flows.config.load import load_config, load_for_store
from flows.config.settings import RunConfig
from flows.pipeline.prepare import prepare
from flows.session import console
from flows.session.server import check_server

pipeline_app = typer.Typer()


@command(
    pipeline_app,
    "traitline run --videos clips --labels labels.csv --store store --out traits.csv",
    *("videos", "videos_root", "labels", "store", "out", "model", "weights"),
    makes_store=True,
)
def run(settings: RunConfig) -> None:
    """Do it all: extract features, train if there are labels, score, write the CSV and a report.

    Without labels, or with a model named, nothing is trained. What is in the store already is not done again.
    """
    settings, files = prepare(settings, with_files=True)
    if trains(settings):
        check_labels_meet(settings, files)
    else:
        model_for(settings, files)
    from flows.pipeline.run import run as run_flow

    show_run(settings, run_flow(settings, files), files)
    files.check_whole()


@command(
    pipeline_app,
    "traitline extract --videos clips --store store",
    *("videos", "videos_root", "store", "weights"),
    makes_store=True,
)
def extract(settings: RunConfig) -> None:
    """Extract the features of all videos that the store lacks."""
    settings, files = prepare(settings, with_files=True)
    from flows.pipeline.extract import extract as extract_flow

    show_extraction(extract_flow(settings, files), files)
    files.check_whole()


@command(
    pipeline_app,
    "traitline train --labels labels.csv --store store",
    "labels",
    "videos",
    "videos_root",
    "store",
    "weights",
)
def train(settings: RunConfig) -> None:
    """Train a model on cached features; without --videos, on all that the store holds."""
    settings, files = prepare(settings)
    from flows.pipeline.train import train as train_flow

    console.say(f"Model: {train_flow(settings, files)}")
    files.check_whole()


@command(
    pipeline_app, "traitline score --store store --model traits/1", "model", "videos", "videos_root", "store", "weights"
)
def score(settings: RunConfig) -> None:
    """Score cached features that the model has not scored yet; without --videos, all that the store holds."""
    settings, files = prepare(settings)
    model = model_for(settings, files)
    from flows.pipeline.score import score as score_flow

    console.say(f"Score: {console.counted(score_flow(settings, files, model), 'video')} scored with {model}")
    files.check_whole()


@command(pipeline_app, "traitline rescore --store store --model traits/2", "model", "store")
def rescore(settings: RunConfig) -> None:
    """Score all that the store holds with a model, from the cache, and say how the scores moved.

    Only what this version has not scored is scored; other versions' scores stay. No video is opened, no network's
    weights are needed, and the features are those that the model was trained on, whatever the settings are today.
    """
    model = chosen_model(settings)
    from flows.archive.drift import drift_table
    from flows.pipeline.score import rescore as rescore_flow

    done = rescore_flow(settings, model)
    console.say(f"Score: {console.counted(done.scored_now, 'video')} scored with {model}")
    for drift in done.drifts:
        show_table(drift_table(drift))


@command(
    pipeline_app,
    "traitline export --store store --out scores.parquet --columns video_id,openness --since 2026-01-31T00:00+01:00",
    *("out", "model", "columns", "since", "until", "videos", "videos_root", "store", "weights"),
)
def export(settings: RunConfig) -> None:
    """Write the scores, one row per video; without --videos, for all that the store knows.

    The ending of --out says what: .csv or .parquet. Beside it, FILE.datapackage.json says what each column means and
    where the scores came from. With --since or --until only scored videos are rows; times need their zone.
    """
    settings, files = prepare(settings)
    model = model_for(settings, files)
    from flows.pipeline.export import export as export_flow

    console.say(f"Scores: {export_flow(settings, files, model).path}")
    files.check_whole()


@command(
    pipeline_app,
    "traitline report --store store --clips a/1.mp4",
    *("model", "videos", "videos_root", "store", "weights", "clips", "frames"),
)
def report(settings: RunConfig) -> None:
    """Write one HTML page about the scores of one model; it needs nothing else, and no network.

    What ran, what was refused and why, how scores are spread, how far to trust them, the last evaluation, and which
    moments of a few clips spoke for a trait. Pictures of people are put in only with --frames.
    """
    settings, files = prepare(settings)
    model = model_for(settings, files)
    from flows.pipeline.report import report as report_flow

    console.say(f"Report: {report_flow(settings, files, model)}")
    files.check_whole()


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for the clips, the store, the CSV and the report.")] = Path(
        "demo"
    ),
) -> None:
    """Render a small corpus and do the whole job on it: a first look, nothing to prepare.

    Pretrained weights are used where they can be had, else random ones; every output says which.
    """
    flags = {
        "videos": folder / "videos",
        "labels": folder / "labels.csv",
        "store.path": folder / "store",
        "out": folder / "traits.csv",
        "weights": "auto",
    }

    def body(settings: RunConfig) -> None:
        check_server()
        from flows.demo.corpus import render_demo_corpus

        with console.console.status("Rendering 8 clips"):
            render_demo_corpus(folder)
        run(settings)

    run_command("demo", lambda: load_config(flags=flags), body)


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
        from flows.pipeline.finetune import finetune as train  # TensorFlow takes seconds to import

        settings = settle_weights(settings)
        with console.console.status("Looking at the videos"):
            files = videos_of(settings)
        made = train(settings, files)
        console.say(f"Asset: {made.name}; --set static.weights={made.name} makes features with it, under their own key")
        files.check_whole()

    run_command(
        "finetune",
        lambda: load_for_store(config, flags=flags, assignments=assignments),
        body,
        if_stopped="no asset is made, and the same command starts from the beginning",
    )

"""The commands that do the steps of a run: `run`, `extract`, `train`, `score`, `export`, `report` and so on.

The steps are imported only once the settings have been found good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import (
    ASSIGNMENTS,
    CONFIG,
    LABELS,
    MODEL,
    OUT,
    STORE_PATH,
    VIDEOS,
    VIDEOS_ROOT,
    WEIGHTS,
)
from flows.cli.output import show_extraction, show_run, show_table
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.server import check_server

pipeline_app = typer.Typer()


@contextmanager
def _step(
    name: str,
    config: Path | None,
    assignments: Sequence[str] | None,
    flags: Mapping[str, Any],
    *,
    makes_store: bool = False,
) -> Iterator[RunConfig]:
    """Run the block as a command that may need Prefect's server, and check the server before anything slow."""
    with command(name, config, assignments, flags, makes_store=makes_store, checks_videos=True) as settings:
        check_server()
        yield settings


@pipeline_app.command(
    epilog="Example: `traitline run --videos clips --labels labels.csv --store store --out traits.csv`"
)
def run(
    config: CONFIG = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    labels: LABELS = None,
    store: STORE_PATH = None,
    out: OUT = None,
    model: MODEL = None,
    weights: WEIGHTS = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Do it all: extract features, train if there are labels, score, write the CSV and a report.

    Without labels, or with --model, nothing is trained. Whatever the store already holds is not computed again.
    """
    flags = {
        "videos": videos,
        "videos_root": videos_root,
        "labels": labels,
        "store.path": store,
        "out": out,
        "model": model,
        "weights": weights,
    }
    with _step("run", config, assignments, flags, makes_store=True) as settings:
        _run(settings)


def _run(settings: RunConfig) -> None:
    from flows.archive.labels import check_labels_meet
    from flows.archive.models import trains
    from flows.archive.refusals import model_for
    from flows.pipeline.prepare import prepare

    settings, files = prepare(settings, with_files=True)
    if trains(settings):
        check_labels_meet(settings, files)
    else:
        model_for(settings, files)
    from flows.pipeline.run import run as run_flow

    show_run(settings, run_flow(settings, files), files)
    files.check_whole()


@pipeline_app.command(epilog="Example: `traitline extract --videos clips --store store`")
def extract(
    config: CONFIG = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Extract the features of all videos that the store lacks."""
    flags = {"videos": videos, "videos_root": videos_root, "store.path": store, "weights": weights}
    with _step("extract", config, assignments, flags, makes_store=True) as settings:
        from flows.pipeline.prepare import prepare

        settings, files = prepare(settings, with_files=True)
        from flows.pipeline.extract import extract as extract_flow

        show_extraction(extract_flow(settings, files), files)
        files.check_whole()


@pipeline_app.command(epilog="Example: `traitline train --labels labels.csv --store store`")
def train(
    config: CONFIG = None,
    labels: LABELS = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Train a model on cached features; without --videos, on all that the store holds."""
    flags = {"labels": labels, "videos": videos, "videos_root": videos_root, "store.path": store, "weights": weights}
    with _step("train", config, assignments, flags) as settings:
        from flows.pipeline.prepare import prepare

        settings, files = prepare(settings)
        from flows.pipeline.train import train as train_flow

        console.say(f"Model: {train_flow(settings, files)}")
        files.check_whole()


@pipeline_app.command(epilog="Example: `traitline score --store store --model traits/1`")
def score(
    config: CONFIG = None,
    model: MODEL = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Score cached features that the model has not scored yet; without --videos, all that the store holds."""
    flags = {"model": model, "videos": videos, "videos_root": videos_root, "store.path": store, "weights": weights}
    with _step("score", config, assignments, flags) as settings:
        from flows.archive.refusals import model_for
        from flows.pipeline.prepare import prepare

        settings, files = prepare(settings)
        chosen = model_for(settings, files)
        from flows.pipeline.score import score as score_flow

        console.say(f"Score: {console.counted(score_flow(settings, files, chosen), 'video')} scored with {chosen}")
        files.check_whole()


@pipeline_app.command(epilog="Example: `traitline rescore --store store --model traits/2`")
def rescore(
    config: CONFIG = None, model: MODEL = None, store: STORE_PATH = None, assignments: ASSIGNMENTS = None
) -> None:
    """Score all that the store holds with a model, from the cache, and say how the scores moved.

    Only videos that this version has not scored are scored; the scores of other versions stay. No video is opened and
    no network weights are needed. The features are those that the model was trained on, whatever the settings say now.
    """
    with _step("rescore", config, assignments, {"model": model, "store.path": store}) as settings:
        from flows.archive.models import chosen_model

        chosen = chosen_model(settings)
        from flows.archive.drift import drift_table
        from flows.pipeline.score import rescore as rescore_flow

        done = rescore_flow(settings, chosen)
        console.say(f"Score: {console.counted(done.scored_now, 'video')} scored with {chosen}")
        for drift in done.drifts:
            show_table(drift_table(drift))


@pipeline_app.command(
    epilog="Example: `traitline export --store store --out scores.parquet --columns video_id,openness "
    "--since 2026-01-31T00:00+01:00`"
)
def export(
    config: CONFIG = None,
    out: OUT = None,
    model: MODEL = None,
    columns: Annotated[str | None, typer.Option(metavar="A,B", help="Only these columns, in this order.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only scores from this time on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only scores from before this time.")] = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Write the scores, one row per video; without --videos, for all that the store knows.

    The extension of --out chooses the format: .csv or .parquet. FILE.datapackage.json beside it says what each column
    means and where the scores came from. With --since or --until, only scored videos have rows; times need a zone.
    """
    flags = {
        "out": out,
        "model": model,
        "export.columns": columns,
        "export.since": since,
        "export.until": until,
        "videos": videos,
        "videos_root": videos_root,
        "store.path": store,
        "weights": weights,
    }
    with _step("export", config, assignments, flags) as settings:
        from flows.archive.refusals import model_for
        from flows.pipeline.prepare import prepare

        settings, files = prepare(settings)
        chosen = model_for(settings, files)
        from flows.pipeline.export import export as export_flow

        console.say(f"Scores: {export_flow(settings, files, chosen).path}")
        files.check_whole()


@pipeline_app.command(epilog="Example: `traitline report --store store --clips a/1.mp4`")
def report(
    config: CONFIG = None,
    model: MODEL = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    clips: Annotated[
        list[str] | None,
        typer.Option(metavar="VIDEO_ID", help="Clip whose attention is drawn over time; can be repeated."),
    ] = None,
    frames: Annotated[
        bool | None, typer.Option("--frames", help="Put small pictures of these clips, faces, into the page.")
    ] = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Write one self-contained HTML page about the scores of one model; it loads nothing from the network.

    It shows what ran, which videos were refused and why, how the scores are spread, how far to trust them, the last
    evaluation, and which moments of a few clips spoke for a trait. Pictures of people need --frames.
    """
    flags = {
        "model": model,
        "videos": videos,
        "videos_root": videos_root,
        "store.path": store,
        "weights": weights,
        "report.clips": clips,
        "report.frames": frames,
    }
    with _step("report", config, assignments, flags) as settings:
        from flows.archive.refusals import model_for
        from flows.pipeline.prepare import prepare

        settings, files = prepare(settings)
        chosen = model_for(settings, files)
        from flows.pipeline.report import report as report_flow

        console.say(f"Report: {report_flow(settings, files, chosen)}")
        files.check_whole()


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for the clips, the store, the CSV and the report.")] = Path(
        "demo"
    ),
) -> None:
    """Render a small corpus and run the whole pipeline on it: a first look that needs no data.

    Pretrained weights are used if they can be had, otherwise random ones; every output says which.
    """
    flags = {
        "videos": folder / "videos",
        "labels": folder / "labels.csv",
        "store.path": folder / "store",
        "out": folder / "traits.csv",
        "weights": "auto",
    }
    with command("demo", flags=flags, makes_store=True) as settings:
        check_server()
        from flows.demo.corpus import render_demo_corpus

        with console.console.status("Rendering 8 clips"):
            render_demo_corpus(folder)
        _run(settings)


def finetune(
    videos: VIDEOS,
    labels: LABELS,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Train the unfrozen layers of the static network on your videos, and keep them as an asset for static.weights.

    The store must hold the faces of the videos.
    """
    flags = {"videos": videos, "labels": labels, "store.path": store, "weights": weights}
    if_stopped = "no asset is made, and the same command starts from the beginning"
    with command("finetune", config, assignments, flags, if_stopped=if_stopped) as settings:
        from flows.archive.families import settle_weights
        from flows.archive.videos import videos_of
        from flows.pipeline.finetune import finetune as finetune_static

        settings = settle_weights(settings)
        with console.console.status("Looking at the videos"):
            files = videos_of(settings)
        made = finetune_static(settings, files)
        console.say(f"Asset: {made.name}; --set static.weights={made.name} makes features with it, under their own key")
        files.check_whole()

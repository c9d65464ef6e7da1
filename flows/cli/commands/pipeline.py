"""The commands for the steps of a run: `run`, `extract`, `train`, `score`, `export`, `report` and so on.

The steps are imported only after the settings have been checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.command import command, given
from flows.cli.options import ASSIGNMENTS, CONFIG, LABELS, MODEL, OUT, SEARCH, STORE_PATH, VIDEOS, VIDEOS_ROOT, WEIGHTS
from flows.cli.output import show_extraction, show_run, show_table
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError
from flows.session.server import check_server
from storage.files.commit import check_writable
from storage.files.paths import store_path

if TYPE_CHECKING:
    from flows.archive.videos import Archive

pipeline_app = typer.Typer()


@contextmanager
def _step(
    ctx: typer.Context, *, with_files: bool = False, with_labels: bool = False
) -> Iterator[tuple[RunConfig, Archive]]:
    """Check the settings and Prefect's server, list the videos, and run the block as a command.

    Args:
        with_files: whether the step needs the videos' files; otherwise those that the store knows will do.
        with_labels: whether the step needs labels.
    """

    def check(settings: RunConfig) -> None:
        from flows.pipeline.prepare import check_settings

        check_settings(settings, with_files=with_files, with_labels=with_labels)

    with command(str(ctx.info_name), **given(ctx), makes_store=with_files, check=check) as settings:
        check_server()
        from flows.pipeline.prepare import prepare

        settings, files = prepare(settings, with_files=with_files)
        yield settings, files
        files.check_whole()


@pipeline_app.command(
    epilog="Example: `traitline run --videos clips --labels labels.csv --store store --out traits.csv`"
)
def run(
    ctx: typer.Context,
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
    """Run all steps: extract features, train if there are labels, score, and write the CSV and a report.

    Without labels, or with --model, nothing is trained. Whatever the store already holds is not computed again.
    """
    with _step(ctx, with_files=True) as (settings, files):
        _run(settings, files)


def _run(settings: RunConfig, files: Archive) -> None:
    from flows.archive.labels import check_labels_meet
    from flows.archive.models import trains
    from flows.archive.outcomes import model_for

    if trains(settings):
        check_labels_meet(settings, files)
    else:
        model_for(settings, files)
    from flows.pipeline.run import run as run_flow

    show_run(settings.weights, run_flow(settings, files), files)


@pipeline_app.command(epilog="Example: `traitline extract --videos clips --store store`")
def extract(
    ctx: typer.Context,
    config: CONFIG = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Extract the features of all videos that are not in the store yet."""
    with _step(ctx, with_files=True) as (settings, files):
        from flows.pipeline.extract import extract as extract_flow

        show_extraction(extract_flow(settings, files), files)


@pipeline_app.command(
    epilog="Examples: `traitline train --labels labels.csv --store store`; "
    "`traitline train --labels labels.csv --store store --search 20`"
)
def train(
    ctx: typer.Context,
    config: CONFIG = None,
    labels: LABELS = None,
    search: SEARCH = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Train a model on cached features; without --videos, on those of the whole store."""
    with _step(ctx, with_labels=True) as (settings, files):
        from flows.pipeline.train import train as train_flow

        console.say(f"Model: {train_flow(settings, files)}")


@pipeline_app.command(epilog="Example: `traitline score --store store --model traits/1`")
def score(
    ctx: typer.Context,
    config: CONFIG = None,
    model: MODEL = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Score cached features that the model has not scored yet; without --videos, those of the whole store."""
    with _step(ctx) as (settings, files):
        from flows.archive.outcomes import model_for

        chosen = model_for(settings, files)
        from flows.pipeline.score import score as score_flow

        console.say(f"Score: {console.counted(score_flow(settings, files, chosen), 'video')} scored with {chosen}")


@pipeline_app.command(epilog="Example: `traitline rescore --store store --model traits/2`")
def rescore(
    ctx: typer.Context,
    config: CONFIG = None,
    model: MODEL = None,
    store: STORE_PATH = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Score the whole store with a model, from the cache, and show how the scores moved.

    Only videos that this version has not scored are scored; the scores of other versions stay. No video is opened and
    no network weights are needed. The features are those that the model was trained on, whatever the settings say.
    """
    with command("rescore", **given(ctx)) as settings:
        from flows.archive.models import chosen_model

        chosen = chosen_model(settings)
        check_server()
        from flows.archive.drift import drift_table
        from flows.pipeline.score import rescore as rescore_flow

        done = rescore_flow(settings, chosen)
        console.say(f"Score: {console.counted(done.scored_now, 'video')} scored with {chosen}")
        for drift in done.drifts:
            show_table(drift_table(drift))


@pipeline_app.command(
    epilog="Examples: `traitline export --store store --out scores.parquet --columns video_id,openness "
    "--since 2026-01-31T00:00+01:00`; `traitline export --store store --frames frames.parquet`"
)
def export(
    ctx: typer.Context,
    config: CONFIG = None,
    out: OUT = None,
    model: MODEL = None,
    columns: Annotated[str | None, typer.Option(metavar="A,B", help="Only these columns, in this order.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only scores from this time on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only scores from before this time.")] = None,
    frame_table: Annotated[
        str | None,
        typer.Option(
            "--frames",
            metavar="FILE",
            help="Write this .csv or .parquet in place of the scores: where the face is in every frame of every video.",
        ),
    ] = None,
    videos: VIDEOS = None,
    videos_root: VIDEOS_ROOT = None,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Write the scores, one row per video; without --videos, for all videos that the store knows.

    The extension of --out chooses the format: .csv or .parquet. FILE.datapackage.json beside it describes each column
    and the origin of the scores. With --since or --until, only scored videos have rows; times need a zone.
    """
    if frame_table is not None:
        _export_frames(ctx, frame_table)
        return
    with _step(ctx) as (settings, files):
        from flows.archive.outcomes import model_for

        chosen = model_for(settings, files)
        from flows.pipeline.export import export as export_flow

        console.say(f"Scores: {export_flow(settings, files, chosen).path}")


def _export_frames(ctx: typer.Context, frame_table: str) -> None:
    def check(settings: RunConfig) -> None:
        from flows.archive.videos import check_videos
        from flows.pipeline.prepare import check_table_name

        given_too = [name for name in ("out", "model", "columns", "since", "until") if ctx.params[name] is not None]
        if given_too:
            raise UserError(f"--frames writes no scores, and cannot be combined with --{given_too[0]}")
        check_videos(settings)
        check_table_name(store_path(frame_table))
        check_writable(store_path(frame_table))

    with command("export", **given(ctx), check=check) as settings:
        check_server()
        from flows.archive.videos import videos_of
        from flows.pipeline.frames import export_frames

        export_frames(settings, None if settings.videos is None else videos_of(settings), store_path(frame_table))
        console.say(f"Frames: {frame_table}")


@pipeline_app.command(epilog="Example: `traitline report --store store --clips a/1.mp4`")
def report(
    ctx: typer.Context,
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
        bool | None, typer.Option("--frames", help="Put small frames of these clips, with faces, into the page.")
    ] = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Write one self-contained HTML page about the scores of one model; it loads nothing from the network.

    It shows what ran, which videos were rejected and why, the distribution of the scores, how far to trust them, the
    last evaluation, and which moments of a few clips affected a trait. Pictures of people need --frames.
    """
    with _step(ctx) as (settings, files):
        from flows.archive.outcomes import model_for

        chosen = model_for(settings, files)
        from flows.pipeline.report import report as report_flow

        console.say(f"Report: {report_flow(settings, files, chosen)}")


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for the clips, the store, the CSV and the report.")] = Path(
        "demo"
    ),
) -> None:
    """Render a small corpus and run the whole pipeline on it: a first look that needs no data.

    Uses pretrained weights if available, otherwise random ones; every output says which.
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
        from flows.pipeline.prepare import prepare

        settings, files = prepare(settings, with_files=True)
        _run(settings, files)


def finetune(
    ctx: typer.Context,
    videos: VIDEOS,
    labels: LABELS,
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Fine-tune the unfrozen layers of the static network on your videos, and keep it as an asset for static.weights.

    The faces of the videos must be in the store.
    """
    if_stopped = "no asset is made, and the same command starts again from the beginning"

    def check(settings: RunConfig) -> None:
        from flows.pipeline.prepare import check_settings

        check_settings(settings, with_files=True, with_labels=True)

    with command("finetune", **given(ctx), check=check, if_stopped=if_stopped) as settings:
        from flows.pipeline.finetune import finetune as finetune_static
        from flows.pipeline.prepare import prepare

        settings, files = prepare(settings, with_files=True)
        made = finetune_static(settings, files)
        console.say(f"Asset: {made.name}; --set static.weights={made.name} makes features with it, under their own key")
        files.check_whole()

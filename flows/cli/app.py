"""The command `traitline`.

Flows are imported only once the settings have been found good: Prefect takes a second to import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import console
from flows.cli_assets import assets_app
from flows.cli_compare import compare
from flows.cli_deploy import deploy, serve
from flows.cli_doctor import doctor
from flows.cli_evaluate import evaluate
from flows.cli_failures import failures_app
from flows.cli_features import evaluate_features
from flows.cli_finetune import finetune
from flows.cli_models import models_app
from flows.cli_store import existing_store, show_table, store_app
from flows.cli_visualize import visualize_app
from flows.cli_worker import worker
from flows.config import RunConfig, dump_config, load_config
from flows.labels import check_labels_meet
from flows.manifest import check_videos
from flows.models import chosen_model, trains
from flows.options import ASSIGNMENTS, CONFIG, WEIGHTS
from flows.prefect_server import check_server
from flows.prepare import prepare
from flows.refusals import model_for
from flows.session import one_line_for_mistakes, run_command, settle_environment

app = typer.Typer(
    name="traitline",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Apparent Big Five trait scores from an archive of face videos.\n\n"
    "What is predicted is *apparent* personality: what viewers ascribe to a speaker. It is not for decisions about "
    "people in employment, education, justice or health care.",
    epilog="Example: `traitline run --videos clips --labels labels.csv --store store --out traits.csv`",
)
config_app = typer.Typer(no_args_is_help=True, help="Look at the settings.")
app.add_typer(config_app, name="config")
app.add_typer(store_app, name="store")
app.add_typer(assets_app, name="assets")
app.add_typer(failures_app, name="failures")
app.add_typer(models_app, name="models")
app.add_typer(visualize_app, name="visualize")

# Parameter -> the setting that it overrides, and the option. Every command takes --config and --set besides.
OPTIONS: dict[str, tuple[str, Any]] = {
    "videos": (
        "videos",
        Annotated[
            Path | None,
            typer.Option(
                help="Folder of videos, with its subfolders; or a list of them, .txt, .csv, .tsv or .parquet."
            ),
        ],
    ),
    "videos_root": (
        "videos_root",
        Annotated[Path | None, typer.Option(help="Folder that a list's paths are relative to; by default its own.")],
    ),
    "labels": (
        "labels",
        Annotated[Path | None, typer.Option(help="Labels: .csv, .parquet, .pkl, or the folder of those pickles.")],
    ),
    "store": ("store.path", Annotated[str | None, typer.Option(help="Folder of the store, or s3://bucket/folder.")]),
    "out": ("out", Annotated[str | None, typer.Option(help="File to write, .csv or .parquet.")]),
    "model": (
        "model",
        Annotated[str | None, typer.Option(help="The model: NAME, NAME/VERSION or NAME/ALIAS.")],
    ),
    "columns": (
        "export.columns",
        Annotated[str | None, typer.Option(metavar="A,B", help="Only these columns, in this order.")],
    ),
    "since": (
        "export.since",
        Annotated[str | None, typer.Option(metavar="TIME", help="Only what was scored then or later.")],
    ),
    "until": (
        "export.until",
        Annotated[str | None, typer.Option(metavar="TIME", help="Only what was scored before.")],
    ),
    "weights": ("weights", WEIGHTS),
    "clips": (
        "report.clips",
        Annotated[
            list[str] | None,
            typer.Option(metavar="VIDEO_ID", help="Clip whose attention is drawn over time, any number of times."),
        ],
    ),
    "frames": (
        "report.frames",
        Annotated[
            bool | None, typer.Option("--frames", help="Put small pictures of these clips, faces, into the page.")
        ],
    ),
}


def command(
    example: str, *options: str, makes_store: bool = False
) -> Callable[[Callable[[RunConfig], None]], Callable[[RunConfig], None]]:
    """Make a command of a function that takes the settings.

    Args:
        example: shown below the help.
        options: names from `OPTIONS` that the command takes.
        makes_store: whether the command begins a store where there is none; it refuses otherwise.
    """

    def register(body: Callable[[RunConfig], None]) -> Callable[[RunConfig], None]:
        def call(config: Path | None, assignments: list[str] | None, **values: Any) -> None:
            flags = {OPTIONS[name][0]: value for name, value in values.items()}

            def load() -> RunConfig:
                settings = load_config(config, flags=flags, assignments=assignments)
                check_videos(settings)  # before a store is made for them
                if not makes_store:
                    existing_store(settings.store.path)
                return settings

            def work(settings: RunConfig) -> None:
                check_server()  # before anything that takes long
                body(settings)

            run_command(body.__name__, load, work)

        kinds = {"config": CONFIG, **{name: OPTIONS[name][1] for name in options}, "assignments": ASSIGNMENTS}
        call.__signature__ = inspect.Signature(  # what Typer makes the options from
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                for name, kind in kinds.items()
            ]
        )
        app.command(body.__name__, help=body.__doc__, epilog=f"Example: `{example}`")(call)
        return body

    return register


@command(
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
    from flows.run import run as run_flow
    from flows.summary import show_run

    show_run(settings, run_flow(settings, files), files)
    files.check_whole()


@command(
    "traitline extract --videos clips --store store",
    *("videos", "videos_root", "store", "weights"),
    makes_store=True,
)
def extract(settings: RunConfig) -> None:
    """Extract the features of all videos that the store lacks."""
    settings, files = prepare(settings, with_files=True)
    from flows.extract import extract as extract_flow
    from flows.summary import show_extraction

    show_extraction(extract_flow(settings, files), files)
    files.check_whole()


@command("traitline train --labels labels.csv --store store", "labels", "videos", "videos_root", "store", "weights")
def train(settings: RunConfig) -> None:
    """Train a model on cached features; without --videos, on all that the store holds."""
    settings, files = prepare(settings)
    from flows.train import train as train_flow

    console.say(f"Model: {train_flow(settings, files)}")
    files.check_whole()


@command("traitline score --store store --model traits/1", "model", "videos", "videos_root", "store", "weights")
def score(settings: RunConfig) -> None:
    """Score cached features that the model has not scored yet; without --videos, all that the store holds."""
    settings, files = prepare(settings)
    model = model_for(settings, files)
    from flows.score import score as score_flow

    console.say(f"Score: {console.counted(score_flow(settings, files, model), 'video')} scored with {model}")
    files.check_whole()


@command("traitline rescore --store store --model traits/2", "model", "store")
def rescore(settings: RunConfig) -> None:
    """Score all that the store holds with a model, from the cache, and say how the scores moved.

    Only what this version has not scored is scored; other versions' scores stay. No video is opened, no network's
    weights are needed, and the features are those that the model was trained on, whatever the settings are today.
    """
    model = chosen_model(settings)
    from flows.drift import drift_table
    from flows.score import rescore as rescore_flow

    done = rescore_flow(settings, model)
    console.say(f"Score: {console.counted(done.scored_now, 'video')} scored with {model}")
    for drift in done.drifts:
        show_table(drift_table(drift))


@command(
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
    from flows.export import export as export_flow

    console.say(f"Scores: {export_flow(settings, files, model).path}")
    files.check_whole()


@command(
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
    from flows.report import report as report_flow

    console.say(f"Report: {report_flow(settings, files, model)}")
    files.check_whole()


# Here, so that the help lists them after the steps of a run.
app.command(epilog="Example: `traitline evaluate --labels labels.csv --store store`")(evaluate)
app.command(epilog="Example: `traitline finetune --videos clips --labels labels.csv --store store`")(finetune)
app.command("evaluate-features", epilog="Example: `traitline evaluate-features --labels labels.csv --store store`")(
    evaluate_features
)
app.command(epilog="Example: `traitline compare token_form mlp_both --out compared`")(compare)
app.command(
    epilog="Example: `traitline serve --config /etc/traitline.yaml --cron '0 2 * * *' --timezone Europe/Berlin`"
)(serve)
app.command(epilog="Example: `traitline deploy --config /etc/traitline.yaml --gpu-slots 4`")(deploy)
app.command(epilog="Example: `traitline worker --gpu 0`")(worker)
app.command(epilog="Example: `traitline doctor --store store`")(doctor)


@app.command(epilog="Example: `traitline demo`")
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
        from flows.demo_corpus import render_demo_corpus

        with console.console.status("Rendering 8 clips"):
            render_demo_corpus(folder)
        run(settings)

    run_command("demo", lambda: load_config(flags=flags), body)


@config_app.command("show", epilog="Example: `traitline config show > run.yaml`")
def show(config: CONFIG = None, assignments: ASSIGNMENTS = None) -> None:
    """Print the effective settings, each with what it means, as a file that --config reads."""
    with one_line_for_mistakes():
        print(dump_config(load_config(config, assignments=assignments)), end="")


def main() -> None:
    """Entry point of the command."""
    settle_environment()
    app()

"""The command `traitline`. Commands import heavy modules only after checking the settings."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Annotated, Any

import typer

from flows.cli.command import one_line_for_mistakes
from flows.cli.commands.assets import assets_app
from flows.cli.commands.compare import compare
from flows.cli.commands.deploy import deploy, serve, worker
from flows.cli.commands.doctor import doctor
from flows.cli.commands.evaluate import evaluate, evaluate_features
from flows.cli.commands.failures import failures_app
from flows.cli.commands.models import models_app
from flows.cli.commands.pipeline import demo, finetune, pipeline_app
from flows.cli.commands.store import store_app
from flows.cli.commands.visualize import visualize_app
from flows.cli.options import ASSIGNMENTS, CONFIG
from flows.config.load import dump_config, load_config
from flows.session.environment import restrict_access, settle_environment

app = typer.Typer(
    name="traitline",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Apparent Big Five trait scores from an archive of face videos.\n\n"
    "Traitline predicts *apparent* personality: what viewers ascribe to a speaker. It is not for decisions about "
    "people in employment, education, justice or health care.",
    epilog="Example: `traitline run --videos clips --labels labels.csv --store store --out traits.csv`",
)
other_app = typer.Typer()
config_app = typer.Typer(no_args_is_help=True, help="Show the settings.")
app.add_typer(pipeline_app)
app.add_typer(other_app)
app.add_typer(config_app, name="config")
app.add_typer(store_app, name="store")
app.add_typer(assets_app, name="assets")
app.add_typer(failures_app, name="failures")
app.add_typer(models_app, name="models")
app.add_typer(visualize_app, name="visualize")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"traitline {version('traitline')}")
        raise typer.Exit


@app.callback()
def _traitline(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


# Registered here, so that the help lists them after the steps of a run.
other_app.command(epilog="Example: `traitline evaluate --labels labels.csv --store store`")(evaluate)
other_app.command(epilog="Example: `traitline finetune --videos clips --labels labels.csv --store store`")(finetune)
other_app.command(epilog="Example: `traitline evaluate-features --labels labels.csv --store store`")(evaluate_features)
other_app.command(epilog="Example: `traitline compare token_form mlp_both --out compared`")(compare)
other_app.command(
    epilog="Example: `traitline serve --config /etc/traitline.yaml --cron '0 2 * * *' --timezone Europe/Berlin`"
)(serve)
other_app.command(epilog="Example: `traitline deploy --config /etc/traitline.yaml --gpu-slots 4`")(deploy)
other_app.command(epilog="Example: `traitline worker --gpu 0`")(worker)
other_app.command(epilog="Example: `traitline doctor --store store`")(doctor)
other_app.command(epilog="Example: `traitline demo`")(demo)


@config_app.command("show", epilog="Example: `traitline config show > run.yaml`")
def show(config: CONFIG = None, assignments: ASSIGNMENTS = None) -> None:
    """Print the effective settings, each with its meaning, as a file that --config reads."""
    with one_line_for_mistakes():
        print(dump_config(load_config(config, assignments=assignments)), end="")


def command_line() -> Any:
    """Return the command with all its subcommands. Their help shows no type for flags, which take no value."""
    command = typer.main.get_command(app)
    for one in _with_subcommands(command):
        for option in (*one.params, one.get_help_option(typer.Context(one))):
            if getattr(option, "is_flag", False):
                option.metavar = ""
    return command


def _with_subcommands(command: Any) -> Iterator[Any]:
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from _with_subcommands(inner)


def main() -> None:
    """Entry point of the command."""
    settle_environment()
    restrict_access()
    command_line()()

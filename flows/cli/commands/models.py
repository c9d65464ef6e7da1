"""The commands `traitline models ...`: show trained models, give them aliases, export and import them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from flows.cli.command import command, plain_command
from flows.cli.options import STORE, CommandOnFiles
from flows.cli.output import numbers, show_lines, show_table
from flows.config.load import existing_store
from flows.session import console
from flows.session.errors import UserError
from storage.files.commit import commit_file, commit_folder
from storage.files.paths import store_path
from storage.layout import path_name

models_app = typer.Typer(no_args_is_help=True, help="Show trained models, give them aliases, export and import them.")

PARTS = (
    "The means are over all tokens of a clip: of face and motion together (both means), of the face alone and of "
    "motion alone. The simultaneous parts use products of face and motion at the same moment; only these depend on "
    "moments."
)

MODEL = Annotated[str, typer.Argument(help="The model: NAME (its latest version), NAME/VERSION or NAME/ALIAS.")]


@models_app.command("list", epilog="Example: `traitline models list --store store`")
def list_models(store: STORE = "store") -> None:
    """List all models of a store, with their aliases, their training data and their quality on unseen people."""
    with plain_command():
        from flows.archive.model_quality import MEASURES, clips_in_words, in_words
        from storage.models.serializer import ModelSerializer

        serializer = ModelSerializer(existing_store(store))
        figures = numbers("clips", *MEASURES.values())
        table = Table("model", "aliases", "trained (UTC)", "labels", "weights", *figures)
        for name in serializer.names():
            aliases = serializer.aliases(name)
            versions = serializer.versions(name)
            for version in versions:
                facts = serializer.metadata(name, version)
                words = [alias for alias, target in aliases.items() if target == version]
                words += ["latest"] if version == versions[-1] else []
                unseen = facts.get("unseen") or {}
                measured = [in_words(unseen[name]["mean"]) if name in unseen else "" for name in MEASURES]
                texts = [str(facts.get(fact, "")) for fact in ("created_utc", "labels", "weights")]
                table.add_row(f"{name}/{version}", ", ".join(words), *texts, clips_in_words(facts), *measured)
        if not table.rows:
            raise UserError(f"there are no models in {store}; train one with `traitline train`")
        show_table(table)


@models_app.command(epilog="Example: `traitline models show traits/production --store store`")
def show(model: MODEL, store: STORE = "store") -> None:
    """Show a model's training data and performance, and what it must not be used for."""
    with plain_command():
        from flows.archive.model_card import INTENDED, facts_of, features_of, misuses, warnings
        from flows.archive.model_quality import (
            MEASURES,
            REFERENCES,
            figures,
            gain_in_words,
            measured_in_words,
            search_figures,
            search_in_words,
        )
        from flows.archive.models import find_model
        from storage.models.serializer import ModelSerializer

        found = find_model(existing_store(store), model)
        facts = ModelSerializer(store).metadata(found.name, found.version)
        show_lines(str(found))
        table = Table("fact", "value")
        for row in (("trained (UTC)", facts["created_utc"]), *features_of(facts), *facts_of(facts)):
            table.add_row(*row)
        show_table(table)
        if (parts := facts.get("parts")) is not None:
            weights = Table("weight of each part", *facts["traits"])
            for part, weight in parts.items():
                weights.add_row(part, *(f"{weight[trait]:.2f}" for trait in facts["traits"]))
            show_table(weights)
            show_lines(PARTS)
        if (unseen := facts.get("unseen")) is not None:
            quality = Table("on unseen people", *MEASURES.values())
            for figure in figures(unseen):
                quality.add_row(*figure)
            show_table(quality)
            gain = gain_in_words(facts)
            show_lines(f"Measured on {measured_in_words(facts)}.", f"{gain[0].upper()}{gain[1:]}.", f"{REFERENCES}.")
        if (search := facts.get("search")) is not None:
            compared = Table("mean over traits, on people who had no part in the choice", *MEASURES.values())
            for figure in search_figures(search):
                compared.add_row(*figure)
            show_table(compared)
            show_lines(f"Search: {search_in_words(search)}.")
        show_lines("", "Intended use", f"For {INTENDED}.".replace("*", ""), *misuses(facts))
        if faults := warnings(facts):
            show_lines("", "Warnings", *faults)


@models_app.command(
    epilog="Examples: `traitline models alias traits/3 production --store store`; "
    "`traitline models alias traits production --remove`"
)
def alias(
    model: MODEL,
    alias: Annotated[str, typer.Argument(help="An alias that does not look like a version.")],
    store: STORE = "store",
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias; the model stays.")] = False,
) -> None:
    """Make NAME/ALIAS refer to a model; an existing alias moves."""
    with plain_command():
        from flows.archive.models import find_model
        from storage.models.serializer import ModelSerializer

        found = find_model(existing_store(store), model)
        serializer = ModelSerializer(store)
        try:
            if remove:
                serializer.remove_alias(found.name, alias)
                console.say(f"{found.name}/{alias} is removed")
                return
            before = serializer.aliases(found.name).get(alias)
            serializer.set_alias(found.name, alias, found.version)
        except ValueError as error:
            raise UserError(str(error)) from error
        moved = f", and no longer to {found.name}/{before}" if before not in (None, found.version) else ""
        console.say(f"{found.name}/{alias} refers to {found}{moved}")


@models_app.command(
    epilog="Examples: `traitline models export traits/3 --format onnx --out traits-3`; "
    "`traitline models export traits/production --format savedmodel --out traits-3`; "
    "`traitline models export traits/3 --format bundle --out traits-3.tar`"
)
def export(
    model: MODEL,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to create, with the model and its card; for a bundle, the file.")
    ],
    store: STORE = "store",
    kind: Annotated[
        Literal["bundle", "savedmodel", "onnx"], typer.Option("--format", help="Format of the model.")
    ] = "savedmodel",
) -> None:
    """Export a model, with a model card, for programs that have neither Traitline nor Keras, or for another store."""
    with command("models-export", flags={"store.path": store}, if_stopped=f"{out} is not written"):
        from flows.archive.model_bundle import export_bundle
        from flows.archive.model_card import card_of, inputs_of
        from flows.archive.models import find_model
        from storage.models.serializer import ModelSerializer

        found = find_model(store, model)
        if out.exists():
            raise UserError(f"{out} already exists; name a new one with --out")
        with console.console.status(f"Exporting {found}"):
            if kind == "bundle":
                with commit_file(out) as file:
                    export_bundle(store_path(store), found, file)
                console.say(f"{found} is in {out}; `traitline models import` adds it to another store")
                return
            from fusion.model import export as exporting  # registers the classes, too; Keras takes seconds to import

            network, facts = ModelSerializer(store).load(found.name, found.version)
            with commit_folder(out, mark="README.md") as folder:
                if kind == "onnx":
                    files = ["model.onnx"]
                    exporting.export_onnx(network, folder / files[0])
                else:
                    exporting.export_savedmodel(network, folder)
                    files = ["saved_model.pb", "variables/"]
                card = card_of(found, facts, files, inputs_of(network))
                (folder / "README.md").write_text(card, encoding="utf-8")
        console.say(f"{found} is in {out}, its card in {out / 'README.md'}")


@models_app.command(
    "import",
    cls=CommandOnFiles,
    epilog="Examples: `traitline models import traits-3.tar`; `traitline models import traits-3.tar --name other-lab`",
)
def import_model(
    bundle: Annotated[Path, typer.Argument(help="File that `traitline models export --format bundle` wrote.")],
    store: STORE = "store",
    name: Annotated[str | None, typer.Option("--name", help="Name for the model; by default the one it had.")] = None,
) -> None:
    """Add a model of another store, as the next version of its name. Existing versions stay as they are."""
    with plain_command():  # before the log, because a mistake here must not create a store
        from flows.archive.model_bundle import import_bundle, read_bundle

        contents = read_bundle(bundle)
        own = contents.model.name if name is None else name
        try:
            path_name("--name", own)
        except ValueError as error:
            raise UserError(str(error)) from error
    stopped = "nothing is imported"
    with command("models-import", flags={"store.path": store}, makes_store=True, if_stopped=stopped) as config:
        from flows.archive.families import stored_families
        from storage.models.serializer import ModelSerializer

        with console.console.status(f"Importing {bundle}"):
            here = import_bundle(contents, config.store.path, own)
        console.say(f"Imported {contents.model} from {bundle} as {here} into {store}; score with --model {here}")
        try:
            stored_families(store, ModelSerializer(store).metadata(here.name, here.version))
        except UserError as error:
            console.say(str(error), style="yellow")

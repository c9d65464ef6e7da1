"""The commands `traitline store ...`: inspect a store and maintain it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.filesize import decimal as size
from rich.table import Table

from flows.cli.command import EXIT_USER_ERROR, plain_command, settings_of
from flows.cli.options import ASSIGNMENTS, CONFIG, STORE, STORE_PATH
from flows.cli.output import numbers, show_table
from flows.config.load import existing_store
from flows.config.settings import RunConfig
from flows.engine.choice import open_engine
from flows.engine.engine import Course, Work
from flows.session import console
from flows.session.errors import UserError
from fusion.errors import some_of

if TYPE_CHECKING:
    from storage.files.paths import StorePath
    from storage.maintenance.verification import Problem, Trouble
    from storage.shards.family import Family
    from storage.shards.formats import FormatName

store_app = typer.Typer(no_args_is_help=True, help="Inspect a store and maintain it.")
YES = Annotated[bool, typer.Option("--yes", help="Actually remove; without it, only show what would be removed.")]


@store_app.command("ls", epilog="Example: `traitline store ls --store store`")
def list_families(store: STORE = "store") -> None:
    """List the families of features with their videos, rows and sizes."""
    with plain_command():
        from storage.maintenance.survey import survey
        from storage.shards.store import FeatureStore

        features = FeatureStore(existing_store(store))
        table = Table("family", "key", "format", *numbers("shards", "missing", "videos", "rows", "size"))
        with console.console.status("Counting"):
            for family in features.families():
                found = survey(features, family)
                counts = (f"{count:,}" for count in (found.shards, found.missing, found.videos, found.rows))
                formats = ", ".join(found.formats)
                table.add_row(family.name, family.key, formats, *counts, size(found.bytes))
        show_table(table)


@store_app.command(epilog="Example: `traitline store verify --store store`")
def verify(
    ctx: typer.Context, store: STORE_PATH = None, config: CONFIG = None, assignments: ASSIGNMENTS = None
) -> None:
    """Read all features, tables and models; the exit status is 1 if any are damaged, missing or unreadable."""
    with plain_command():
        if _find_problems(settings_of(ctx)):
            console.say("`traitline store repair` moves damaged files aside if a run can make them again")
            raise typer.Exit(EXIT_USER_ERROR)


@store_app.command(epilog="Example: `traitline store repair --store store`")
def repair(
    ctx: typer.Context, store: STORE_PATH = None, config: CONFIG = None, assignments: ASSIGNMENTS = None
) -> None:
    """Move damaged shards and tables to STORE/quarantine, so that the next run recomputes only those.

    Files that cannot be read at present, and those of newer versions, stay in place; the exit status is then 1. Damaged
    models stay, too: train them again, or restore a copy.
    """
    with plain_command():
        from storage.maintenance import verification

        problems = _find_problems(settings_of(ctx))
        for problem in problems:
            console.say(verification.repair(problem))
        if any(problem.stays for problem in problems):
            raise typer.Exit(EXIT_USER_ERROR)


@store_app.command(epilog="Example: `traitline store compact --store store`")
def compact(
    ctx: typer.Context, store: STORE_PATH = None, config: CONFIG = None, assignments: ASSIGNMENTS = None
) -> None:
    """Merge small shards into shards of about 64 MiB, and drop what newer features have superseded.

    Runs and readers may continue meanwhile.
    """
    with plain_command():
        from storage.maintenance import rewriting
        from storage.shards.store import FeatureStore

        settings = settings_of(ctx)
        features = FeatureStore(existing_store(settings.store.path))
        for family in features.families():
            with console.console.status(f"Looking at {family.name}"):
                merges = rewriting.plan_merges(features, family)
            _rewrite(settings, f"Merge {family.name}", family, merges)
            count = console.counted(sum(map(len, merges)), "shard")
            console.say(f"{family.name} {family.key}: {count} merged into {len(merges)}")
        features.manifest.table.compact()


@store_app.command(epilog="Example: `traitline store gc --store store --yes`")
def gc(
    store: STORE = "store",
    yes: YES = False,
    days: Annotated[float, typer.Option(help="Keep features written within the last DAYS days.")] = 1.0,
) -> None:
    """Remove features that no model, score or running command uses, and files of killed processes.

    If --days is less than an hour, run nothing else on the store. Files of killed processes stay for an hour anyway.
    """
    with plain_command():
        from storage.maintenance import garbage
        from storage.maintenance.survey import survey
        from storage.shards.store import FeatureStore

        features = FeatureStore(existing_store(store))
        idle_s = days * garbage.DAY_S
        left_s = max(idle_s, garbage.HOUR_S)  # a file that is about to be committed looks abandoned
        if left_s > idle_s:
            console.say(
                "features of the last hour count as unused, too: a run that is just starting may need them, so run "
                "nothing else on the store",
                style="yellow",
            )
        with console.console.status("Looking for unused files"):
            families = [survey(features, family) for family in garbage.unused_families(store, idle_s=idle_s)]
            leftovers = garbage.leftovers(store, idle_s=left_s)
        for found in families:
            name = f"{found.family.name} {found.family.key}"
            holds = f"{console.counted(found.videos, 'video')}, {size(found.bytes)}"
            console.say(f"{'removing' if yes else 'unused'}: {name}, {holds}")
            if yes:
                garbage.remove_family(store, found.family)
        if leftovers:
            files = console.counted(len(leftovers), "file")
            console.say(f"{'removing' if yes else 'left behind'}: {files} of killed processes")
        if yes:
            for path in leftovers:
                garbage.remove_leftover(path)
            garbage.clean_tables(store, idle_s=left_s)
        if not families and not leftovers:
            console.say("nothing to remove")
        elif not yes:
            console.say("nothing removed yet; --yes removes it")


@store_app.command(epilog="Example: `traitline store convert --store store --to hdf5`")
def convert(
    ctx: typer.Context,
    to: Annotated[Literal["parquet", "hdf5"], typer.Option("--to", help="parquet or hdf5.")],
    store: STORE_PATH = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Convert all shards to one format, without loss; runs and readers may continue meanwhile."""
    with plain_command():
        from storage.maintenance import rewriting
        from storage.shards.store import FeatureStore

        settings = settings_of(ctx)
        features = FeatureStore(existing_store(settings.store.path))
        for family in features.families():
            shards = rewriting.shards_to_convert(features, family, to)
            _rewrite(settings, f"Convert {family.name}", family, [[shard] for shard in shards], to)
            console.say(f"{family.name} {family.key}: {console.counted(len(shards), 'shard')} converted to {to}")


@store_app.command(epilog="Example: `traitline store upgrade --store store --yes`")
def upgrade(
    store: STORE = "store",
    yes: Annotated[
        bool, typer.Option("--yes", help="Actually upgrade; without it, only show what would change.")
    ] = False,
) -> None:
    """Upgrade a store written by an older version; no features are recomputed.

    Run it again to continue after an interruption.
    """
    with plain_command():
        from storage.maintenance import upgrading

        root = existing_store(store, upgrading=True)
        old = upgrading.find(root)
        if old is None:
            console.say("nothing to upgrade: the store has the present layout")
            return
        for family, folder, shards in old.families:
            console.say(f"{family.name} {folder.name} -> {family.key}: {console.counted(len(shards), 'shard')}")
        console.say(f"{console.counted(len(old.tables), 'table')}, {console.counted(len(old.models), 'model')}")
        if not yes:
            console.say("nothing changed yet; --yes upgrades the store, with room for a second copy of its features")
            return
        with _progress("Upgrade", len(old.shards)) as advance:
            damaged = upgrading.upgrade(root, old, advance)
        for path in damaged:
            console.say(f"damaged, moved to {path}; the next run makes its contents again", style="red")


@store_app.command(
    epilog="Examples: `traitline store erase --video anna/1.mp4`; `traitline store erase --subject anna --labels "
    "labels.csv --yes`; `traitline store erase --file list.txt`"
)
def erase(
    store: STORE = "store",
    video: Annotated[list[str] | None, typer.Option(metavar="ID", help="A video, by its video_id.")] = None,
    subject: Annotated[str | None, typer.Option(metavar="NAME", help="A person in --labels: all their videos.")] = None,
    file: Annotated[Path | None, typer.Option(metavar="LIST", help="A list of video ids: .txt, .csv, ...")] = None,
    labels: Annotated[Path | None, typer.Option(help="Labels or groups with the column subject.")] = None,
    yes: YES = False,
) -> None:
    """Erase all traces of videos: features, scores, failures, and every file that mentions them.

    Old versions of tables, and kept results of evaluations, searches and trainings, go as well. Models stay; the
    command names those that were trained on the videos. No other command may write to the store meanwhile.
    """
    with plain_command():
        from flows.archive.people import chosen_videos, own_networks, unheld_in_words
        from storage.maintenance import erasing

        folder = existing_store(store)
        videos = chosen_videos(folder, video or (), subject, file, labels)
        with console.console.status("Looking for traces"):
            traces = erasing.find_traces(folder, videos)
        if not traces.videos:
            raise UserError(unheld_in_words(folder, traces.unheld))
        if erasing.interrupted(folder):
            console.say("an erasure that was interrupted is included")
        action = "erasing" if yes else "found"
        console.say(f"{action}: {console.counted(len(traces.videos), 'video')}: {some_of(sorted(traces.videos), 20)}")
        for table, rows in traces.rows.items():
            console.say(f"{action}: {console.counted(rows, 'row')} of {table}")
        console.say(f"{action}: features in {console.counted(len(traces.shards), 'shard')}")
        for path in [*traces.files, *sorted(traces.of_all)]:
            console.say(f"{action}: {path}")
        for model in traces.trained:
            console.say(f"{model} was trained on these videos and stays: train again without them", style="yellow")
        if traces.unknown:
            console.say(
                f"made before models noted their clips, and possibly trained on these videos: "
                f"{', '.join(traces.unknown)}; `traitline models show` names the labels of each",
                style="yellow",
            )
        for network in own_networks(traces.videos):
            console.say(f"the network {network} was fine-tuned on these videos and stays", style="yellow")
        if yes:
            erasing.erase(folder, traces)
            console.say(
                "erased; label files, copies and backups elsewhere stay, and so do the videos: remove them too, or the "
                "next run extracts them again"
            )
        else:
            console.say("nothing erased yet; --yes erases it")
        if traces.unheld:
            raise UserError(unheld_in_words(folder, traces.unheld))


def _find_problems(settings: RunConfig) -> list[Problem]:
    """Read everything, and report the problems."""
    from storage.maintenance import verification

    root = existing_store(settings.store.path)
    parts = {str(part.path): part for part in verification.parts(root)}
    problems = []
    with open_engine(settings) as engine, console.stage("Verify", len(parts)) as stage:

        def on_result(name: str, found: tuple[Trouble, str] | None) -> None:
            stage.advance(ok=found is None)
            if found is not None:
                problems.append(verification.Problem(parts[name], *found))
                console.say(problems[-1].message, style="red")

        engine.run(partial(_open_verifying, root), parts, on_result)
    console.say(f"{console.counted(len(parts), 'part')} read, {len(problems)} damaged, gone or unreadable")
    return problems


@contextmanager
def _open_verifying(root: StorePath) -> Iterator[Work[str, tuple[Trouble, str] | None]]:
    """Open the work on a part of the store: find its problem, if it has one."""
    from storage.maintenance import verification

    parts = {str(part.path): part for part in verification.parts(root)}

    def find(name: str, _: Course) -> tuple[Trouble, str] | None:
        if name not in parts:
            parts.update((str(part.path), part) for part in verification.parts(root))
        # A part may have been removed in the meantime, as by a merge.
        problem = verification.find_problem(parts[name]) if name in parts else None
        return None if problem is None else (problem.trouble, problem.message)

    yield find


def _rewrite(
    settings: RunConfig, title: str, family: Family, runs: Sequence[Sequence[str]], to: FormatName | None = None
) -> None:
    """Replace each run of shards by one."""
    if not runs:
        return
    with open_engine(settings) as engine, console.stage(title, len(runs)) as stage:
        engine.run(partial(_open_rewriting, settings.store.path, family, to), runs, lambda *_: stage.advance())


@contextmanager
def _open_rewriting(root: StorePath, family: Family, to: FormatName | None) -> Iterator[Work[Sequence[str], None]]:
    from storage.maintenance import rewriting
    from storage.shards.store import FeatureStore

    features = FeatureStore(existing_store(root))

    def rewrite(sources: Sequence[str], _: Course) -> None:
        rewriting.rewrite(features, family, sources, to)

    yield rewrite


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar, unless there is nothing to do."""
    if not total:
        yield lambda: None
        return
    with console.stage(title, total) as stage:
        yield stage.advance

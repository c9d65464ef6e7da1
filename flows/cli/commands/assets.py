"""The commands `traitline assets ...`: weights and other files that are not part of the package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal as size
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from extractors.assets import catalog
from extractors.assets.bundle import unpack_bundle, write_bundle
from extractors.assets.files import Asset, AssetError, AssetFile, OnBytes
from extractors.assets.own import own_assets
from flows.cli.command import EXIT_USER_ERROR, plain_command
from flows.cli.options import CommandOnFiles
from flows.cli.output import show_table
from flows.session import console
from storage.files.commit import check_writable, commit_file

assets_app = typer.Typer(no_args_is_help=True)

NAMES = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Names of assets; by default all.")]
FOLDER = Annotated[
    Path | None,
    typer.Option(help="Folder with the assets' folders, instead of the usual places; as the setting `assets`."),
]


@assets_app.callback()
def share_files() -> None:
    """List, fetch, verify and bundle the detector and the network weights."""
    os.umask(0o022)  # assets are public, and often in a folder that several accounts read


@assets_app.command("list", epilog="Example: `traitline assets list`")
def list_assets(folder: FOLDER = None) -> None:
    """List the assets with their licences and places."""
    with plain_command():
        table = Table("name", "version", "for", "size", "licence", "found", "what it is")
        known = catalog.select([])
        for asset in [*known, *(own.asset for own in own_assets(folder))]:
            found = catalog.find(asset, folder)
            where = f"{found[0]}: {found[1]}" if found is not None else "missing"
            facts = (asset.version, asset.purpose, size(asset.size), asset.licence)
            table.add_row(asset.name, *facts, where, asset.title)
        show_table(table)
        if any(catalog.find(asset, folder) is None for asset in known):
            console.say(catalog.HOW_TO_GET)


@assets_app.command(epilog="Example: `traitline assets fetch face_detector`")
def fetch(names: NAMES = None) -> None:
    """Download missing assets; interrupted downloads resume."""
    with plain_command():
        faults = []
        for asset in catalog.select(names if names is not None else []):
            try:
                with _progress() as on_bytes:
                    folder = catalog.fetch(asset, on_bytes)
                console.say(f"{asset.name}: {folder}")
            except AssetError as error:
                # The others may still succeed.
                faults.append(asset.name)
                console.complain(str(error))
        if faults:
            raise typer.Exit(EXIT_USER_ERROR)


@assets_app.command(epilog="Example: `traitline assets verify`")
def verify(names: NAMES = None, folder: FOLDER = None) -> None:
    """Check every byte of the assets; the exit status is 1 if one is damaged or missing."""
    with plain_command():
        sound = damaged = 0
        missing = []
        for asset in _chosen(names, folder):
            if catalog.find(asset, folder) is None:
                missing.append(asset.name)
            for _, damage in catalog.read_through(asset, folder):
                sound, damaged = sound + (damage is None), damaged + (damage is not None)
                if damage is not None:
                    console.say(f"{asset.name}: {damage}; delete it and fetch it again", style="red")
        console.say(f"{console.counted(sound + damaged, 'file')} read, {damaged} damaged")
        if missing:
            console.say(f"missing or incomplete: {', '.join(missing)}. {catalog.HOW_TO_GET}", style="red")
        if damaged or missing:
            raise typer.Exit(EXIT_USER_ERROR)


@assets_app.command(cls=CommandOnFiles, epilog="Example: `traitline assets bundle assets.tar`")
def bundle(
    out: Annotated[Path, typer.Argument(metavar="OUT.tar", help="Archive to write.")],
    names: NAMES = None,
    folder: FOLDER = None,
) -> None:
    """Write one archive with the assets, their licences and SHA256SUMS, for machines without a network."""
    with plain_command():
        check_writable(out)
        chosen = catalog.select(names if names is not None else [])
        folders = {
            asset.name: (asset, catalog.resolve(asset.name, folder=folder and folder / asset.name, download=False))
            for asset in chosen
        }
        with _progress() as on_bytes, commit_file(out) as temporary:
            write_bundle(folders, temporary, on_bytes)
        console.say(f"{out}: {', '.join(folders)}, {size(out.stat().st_size)}")


@assets_app.command(cls=CommandOnFiles, epilog="Example: `traitline assets unpack assets.tar`")
def unpack(
    bundle: Annotated[Path, typer.Argument(help="Archive that `traitline assets bundle` wrote.")], folder: FOLDER = None
) -> None:
    """Unpack a bundle into the folder that TRAITLINE_ASSETS names, or else into the user's cache."""
    with plain_command():
        _, goal = catalog.places(folder)[0]
        with _progress() as on_bytes:
            unpacked = unpack_bundle(bundle, catalog.known_assets(), goal, on_bytes)
        for asset in unpacked:
            console.say(f"{asset.name}: {goal / asset.name}")


def _chosen(names: list[str] | None, folder: Path | None) -> list[Asset]:
    """Return the named assets, published or fine-tuned here; by default all."""
    own = {made.name: made.asset for made in own_assets(folder)}
    if names:
        return [own[name] if name in own else catalog.select([name])[0] for name in names]
    return [*catalog.select([]), *own.values()]


@contextmanager
def _progress() -> Iterator[OnBytes]:
    """Show a bar for each file in transfer, with its size and the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=console.console)
    tasks = {}

    def on_bytes(file: AssetFile, done: int) -> None:
        if file not in tasks:
            progress.start()  # not before: without a terminal, even an unused bar leaves an empty line
            tasks[file] = progress.add_task(file.name, total=file.size)
        progress.update(tasks[file], completed=done)

    try:
        yield on_bytes
    finally:
        if tasks:
            progress.stop()

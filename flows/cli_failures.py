"""The commands `traitline failures ...`: videos that were refused, and another try at them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows import console
from flows.cli_store import STORE, existing_store, show_table
from flows.config import RunConfig, load_config
from flows.errors import UserError
from flows.families import families_of, settle_weights
from flows.manifest import Archive, scan_videos
from flows.prefect_server import prefect_api
from flows.session import run_command, run_plainly
from storage.failures import Failure, FailureLog
from storage.feature_store import FeatureStore
from storage.paths import StorePath

failures_app = typer.Typer(no_args_is_help=True, help="Videos that were refused, with their reasons.")

REASON = Annotated[str | None, typer.Option(help="Only those with this reason code, such as no_face.")]


@failures_app.command("list", epilog="Example: `traitline failures list --store store --reason no_face`")
def list_failures(
    store: STORE = "store",
    reason: REASON = None,
    limit: Annotated[int, typer.Option(min=0, help="List at most so many videos; 0 for all.")] = 50,
) -> None:
    """List videos that were refused and have no features since."""

    def body() -> None:
        failures = open_failures(existing_store(store), reason)
        if not failures:
            console.say("no failures" + (f" with the reason {reason}" if reason is not None else ""))
            return
        table = Table("video", "stage", "reason", "attempts", "message")
        for failure in failures[: limit if limit else None]:
            table.add_row(failure.video_id, failure.stage, failure.reason, str(failure.attempts), failure.message)
        show_table(table)
        counts = Counter(failure.reason for failure in failures).most_common()
        console.say(f"{len(failures)} failures: " + ", ".join(f"{count} {code}" for code, count in counts))
        if limit and len(failures) > limit:
            console.say(f"the first {limit} are shown; --limit 0 shows all")

    run_plainly(body)


@failures_app.command(epilog="Example: `traitline failures retry --videos clips --store store --reason truncated`")
def retry(
    videos: Annotated[Path, typer.Option(help="Folder of videos, with its subfolders.")],
    store: Annotated[str | None, typer.Option(help="Folder of the store, or s3://bucket/folder.")] = None,
    reason: REASON = None,
    weights: Annotated[str | None, typer.Option(help="pretrained, random (for trials only) or auto.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Settings file in YAML.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any single setting.")
    ] = None,
) -> None:
    """Try the videos again that were refused with the present settings, and no others."""
    flags = {"videos": videos, "store.path": store, "weights": weights, "extract.retry_failed": True}

    def load() -> RunConfig:
        settings = load_config(config, flags=flags, assignments=assignments if assignments is not None else ())
        existing_store(settings.store.path)
        return settings

    def body(settings: RunConfig) -> None:
        settings = settle_weights(settings)
        files = refused_files(settings, reason)
        if not files:
            console.say("no video of the folder was refused with these settings; nothing to retry")
            return
        with prefect_api():
            from flows.extract import extract as extract_flow
            from flows.summary import show_extraction

            show_extraction(extract_flow(settings, files))

    run_command("retry", load, body)


def open_failures(root: str | StorePath, reason: str | None) -> list[Failure]:
    """Latest failures, but those of videos that have all their features by now, sorted by video."""
    store = FeatureStore(root)
    done = {family.key: store.done(family) for family in store.families()}

    def succeeded(failure: Failure) -> bool:
        keys = [part.rpartition(":")[2] for part in failure.key.split()]
        return all(done.get(key, {}).get(failure.video_id) == failure.video_sha256 for key in keys)

    failures = [row for row in FailureLog(root).current() if reason is None or row.reason == reason]
    return [failure for failure in failures if not succeeded(failure)]


def refused_files(settings: RunConfig, reason: str | None) -> Archive:
    """Files of the videos folder that were refused with these settings, and whose bytes are still the same.

    Raises:
        UserError: there is no such folder, or no video in it.
    """
    if settings.videos is None:
        raise UserError("which videos? give their folder with --videos DIR")
    key = families_of(settings).features
    refused = {
        (failure.video_id, failure.video_sha256)
        for failure in open_failures(settings.store.path, reason)
        if failure.key == key
    }
    with console.console.status("Looking at the videos"):
        files = scan_videos(settings.videos, settings.store.path / "runs" / "digests.parquet")
    return Archive(file for file in files if (file.video_id, file.sha256) in refused)

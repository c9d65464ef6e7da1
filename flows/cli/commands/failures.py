"""The commands `traitline failures ...`: list rejected videos, and retry them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.command import command, given, plain_command
from flows.cli.options import ASSIGNMENTS, CONFIG, STORE, STORE_PATH, VIDEOS, WEIGHTS
from flows.cli.output import show_extraction, show_table
from flows.config.load import existing_store
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import did_you_mean
from flows.session.server import check_server

if TYPE_CHECKING:
    from flows.archive.videos import Archive
    from storage.tables.failures import Failure

failures_app = typer.Typer(no_args_is_help=True, help="List rejected videos with their reasons, and retry them.")

REASON = Annotated[str | None, typer.Option(help="Only failures with this reason code, such as no_face.")]


@failures_app.command("list", epilog="Example: `traitline failures list --store store --reason no_face`")
def list_failures(
    store: STORE = "store",
    reason: REASON = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of failures to list; 0 for all.")] = 50,
    all_attempts: Annotated[
        bool, typer.Option("--all", help="Every failed attempt, of all files and settings, oldest first.")
    ] = False,
) -> None:
    """List videos whose last attempt failed, except those that were extracted since."""
    with plain_command():
        from storage.maintenance.survey import still_refused
        from storage.tables.failures import FailureLog

        root = existing_store(store)
        if all_attempts:
            every = FailureLog(root).attempts_in_order()
            attempts = [(f"{attempt.failed_at:%Y-%m-%d %H:%M:%S}", attempt.failure) for attempt in every]
        else:
            attempts = [("", row) for row in still_refused(root)]
        chosen = [(when, failure) for when, failure in attempts if reason is None or failure.reason == reason]
        if not chosen:
            known = {failure.reason for _, failure in attempts}
            console.say("no failures" + (f" with the reason {reason}{did_you_mean(reason, known)}" if reason else ""))
            return
        show_table(_table(chosen[: limit if limit else None], with_time=all_attempts))
        reasons = Counter(failure.reason for _, failure in chosen)
        console.say(f"{console.counted(len(chosen), 'failure')}: {console.tally(reasons)}")
        if limit and len(chosen) > limit:
            console.say(f"{limit:,} of them shown; --limit 0 shows all")


@failures_app.command(epilog="Example: `traitline failures retry --videos clips --store store --reason truncated`")
def retry(
    ctx: typer.Context,
    videos: VIDEOS,
    store: STORE_PATH = None,
    reason: REASON = None,
    weights: WEIGHTS = None,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Retry only the videos that were rejected with the present settings."""
    options = given(ctx)
    options["flags"]["extract.retry_failed"] = True
    with command("retry", **options, check=_check) as settings:
        check_server()
        from flows.pipeline.prepare import prepare

        settings, every = prepare(settings, with_files=True)
        files = refused_files(settings, every, reason)
        if not files:
            console.say("no video of the folder was rejected with these settings; nothing to retry")
            return
        from flows.pipeline.extract import extract as extract_flow

        show_extraction(extract_flow(settings, files), files)
        files.check_whole()


def _check(settings: RunConfig) -> None:
    from flows.archive.videos import check_videos

    check_videos(settings)


def refused_files(settings: RunConfig, files: Archive, reason: str | None) -> Archive:
    """Return the videos whose present bytes were refused with these settings and have no features yet."""
    from flows.archive.families import families_of
    from flows.archive.outcomes import refusals
    from flows.archive.videos import Archive

    refused = refusals(settings.store.path, families_of(settings), files)
    chosen = (video for video, failure in refused.items() if reason is None or failure.reason == reason)
    return Archive(chosen, files.unread, files.passed_over)


def _table(attempts: Sequence[tuple[str, Failure]], *, with_time: bool) -> Table:
    table = Table(*(("when (UTC)",) if with_time else ()), "video", "stage", "reason", "attempts", "message")
    for when, failure in attempts:
        texts = (failure.video_id, failure.stage, failure.reason, str(failure.attempts), failure.message)
        cells = map(console.one_line, texts)
        table.add_row(*((when,) if with_time else ()), *cells)
    return table

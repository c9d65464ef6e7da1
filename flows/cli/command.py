"""The frame of every command: settings, log, one-line errors and the exit status."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from flows.cli.options import SETTING_OF
from flows.config.load import existing_store, keep_settings, load_config
from flows.config.settings import RunConfig
from flows.session import console, stopping
from flows.session.errors import mistake_in_words
from flows.session.log import local_log
from storage.files.paths import StorePath

EXIT_USER_ERROR = 1
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h


@contextmanager
def one_line_for_mistakes() -> Iterator[None]:
    """Show a user's mistake, or a full disk, as one line, and raise `typer.Exit` with its exit status."""
    try:
        yield
    except Exception as error:
        mistake = mistake_in_words(error)
        if mistake is None:
            raise
        console.complain(mistake)
        raise typer.Exit(EXIT_USER_ERROR) from error


@contextmanager
def plain_command() -> Iterator[None]:
    """Run the block as a command that needs no log; a user's mistake is one line.

    Raises:
        typer.Exit: with the exit status, unless it is 0.
    """
    try:
        with one_line_for_mistakes():
            yield
    except typer.Exit:
        raise
    except (KeyboardInterrupt, Exception) as error:
        # Libraries may turn the interruption into an error of their own.
        if not isinstance(error, KeyboardInterrupt) and not stopping.asked():
            raise
        console.complain("stopped; finished work is kept, and nothing is half done")
        raise typer.Exit(stopping.EXIT_INTERRUPTED) from error


def given(ctx: typer.Context) -> dict[str, Any]:
    """Return the settings file, the assignments and the overriding options of a command, as `command` takes them."""
    flags = {SETTING_OF[name]: value for name, value in ctx.params.items() if name in SETTING_OF}
    return {"config": ctx.params["config"], "assignments": ctx.params["assignments"], "flags": flags}


def settings_of(ctx: typer.Context) -> RunConfig:
    """Load the settings of a command that has no log."""
    values = given(ctx)
    return load_config(values["config"], flags=values["flags"], assignments=values["assignments"])


@contextmanager
def command(
    name: str,
    config: Path | None = None,
    assignments: Sequence[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    makes_store: bool = False,
    check: Callable[[RunConfig], object] | None = None,
    if_stopped: str = "finished work is kept, and the same command continues from there",
) -> Iterator[RunConfig]:
    """Load the settings and run the block as a command with a log.

    The output of libraries goes to STORE/runs/<time>-<name>.log, beside the settings. On object storage, where files
    cannot be appended to, the log appears when the command ends.

    Args:
        name: of the command; part of the names of its log and settings.
        makes_store: whether the command may create the store; otherwise a missing store is an error.
        check: called with the settings before anything is written; raises the user's mistakes.
        if_stopped: said if the user stops the command.

    Raises:
        typer.Exit: with the exit status, unless it is 0.
    """
    with plain_command():
        settings = load_config(config, flags=flags, assignments=assignments)
        if check is not None:
            check(settings)
        if not makes_store:
            existing_store(settings.store.path)
        log = keep_settings(settings, name)
    with local_log(log) as file, _errors_in_one_line(log, if_stopped):
        # Handle a scheduler's SIGTERM like Ctrl-C, so that open files and the command's Prefect server are closed.
        stopping.listen()
        console.silence_libraries(file)
        yield settings


@contextmanager
def _errors_in_one_line(log: StorePath, if_stopped: str) -> Iterator[None]:
    try:
        with one_line_for_mistakes():
            yield
    except typer.Exit:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or stopping.asked():
            console.complain(f"stopped; {if_stopped}")
            raise typer.Exit(stopping.EXIT_INTERRUPTED) from error
        # The user sees one line; the log has the traceback.
        logging.getLogger(__name__).error("%s", traceback.format_exc())
        fault = console.one_line(" ".join(f"{type(error).__name__}: {error}".split()))
        console.complain(f"internal error ({fault}); see {log}")
        raise typer.Exit(EXIT_BUG) from error

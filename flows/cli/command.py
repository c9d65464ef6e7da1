"""One command from start to end: settings, quiet libraries, a log, errors in one line, the exit status."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from flows.archive.videos import check_videos
from flows.cli.options import ASSIGNMENTS, CONFIG, OPTIONS
from flows.config.load import existing_store, keep_settings, load_config
from flows.config.settings import RunConfig
from flows.session import console, stopping
from flows.session.errors import mistake_in_words
from flows.session.log import local_log
from flows.session.server import check_server
from storage.files.paths import StorePath

EXIT_USER_ERROR = 1
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h


@contextmanager
def one_line_for_mistakes() -> Iterator[None]:
    """Show a person's mistake, or a full disk, as one line and end with its exit status, `typer.Exit`."""
    try:
        yield
    except Exception as error:
        mistake = mistake_in_words(error)
        if mistake is None:
            raise
        console.complain(mistake)
        raise typer.Exit(EXIT_USER_ERROR) from error


def run_plainly(body: Callable[[], None]) -> None:
    """Run a command that needs neither a log nor Prefect; a person's mistake is one line.

    Raises:
        typer.Exit: with the exit status, if it is not 0.
    """
    try:
        with one_line_for_mistakes():
            body()
    except KeyboardInterrupt as error:
        console.complain("stopped; what is done is kept, and nothing is half done")
        raise typer.Exit(stopping.EXIT_INTERRUPTED) from error


def run_command(
    name: str,
    load: Callable[[], RunConfig],
    body: Callable[[RunConfig], None],
    *,
    if_stopped: str = "what is done is kept, and the same command goes on from there",
) -> None:
    """Run one command of the command line.

    Everything that libraries write goes to STORE/runs/<time>-<name>.log; beside it lie the settings. On object storage,
    to which nothing can be appended, the log appears when the command ends.

    Args:
        name: of the command.
        load: reads the settings; its errors are shown as the command's.
        body: does the work.
        if_stopped: what becomes of the work if a person stops the command.

    Raises:
        typer.Exit: with the exit status, if it is not 0.
    """
    with one_line_for_mistakes():
        config = load()
        log = keep_settings(config, name)
    with local_log(log) as file:
        with one_line_for_mistakes():
            console.silence_libraries(file)
        # A scheduler's stop is a person's Ctrl-C: what is open gets closed, Prefect's own server too.
        stopping.listen()
        _run(config, body, log, if_stopped)


def _run(config: RunConfig, body: Callable[[RunConfig], None], log: StorePath, if_stopped: str) -> None:
    try:
        with one_line_for_mistakes():
            body(config)
    except typer.Exit:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or stopping.asked():
            console.complain(f"stopped; {if_stopped}")
            raise typer.Exit(stopping.EXIT_INTERRUPTED) from error
        # The last line of defence: the person sees one line, the log has it all.
        logging.getLogger(__name__).error("%s", traceback.format_exc())
        fault = console.one_line(f"{type(error).__name__}: {error}")
        console.complain(f"a fault in the program ({fault}); see {log}")
        raise typer.Exit(EXIT_BUG) from error


def command(
    app: typer.Typer, example: str, *options: str, makes_store: bool = False
) -> Callable[[Callable[[RunConfig], None]], Callable[[RunConfig], None]]:
    """Make a command of a function that takes the settings.

    Args:
        app: to add the command to.
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

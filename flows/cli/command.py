"""One command from start to end: quiet libraries, a log, errors in one line, and the exit status."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import typer

from extractors.assets import AssetError
from extractors.errors import DeviceError, LayerError
from flows import console, stopping
from flows.config import RunConfig, dump_config
from flows.errors import UserError
from flows.proxies import bypass_proxies
from fusion.errors import LabelError, TrainingError
from storage.commit import commit_file
from storage.errors import StoreError, is_full, refusal
from storage.layout import open_store
from storage.paths import StorePath

USER_ERRORS = (UserError, AssetError, DeviceError, LayerError, LabelError, TrainingError, StoreError)
EXIT_USER_ERROR = 1
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h

_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(console.PACKAGES),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": console.LOG_FORMAT,
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": console.LOG_FORMAT.replace("%(name)s", "%(flow_run_name)s"),
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": console.LOG_FORMAT.replace("%(name)s", "%(task_run_name)s"),
    "PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT": console.LOG_TIME,
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "KERAS_BACKEND": "tensorflow",
    # Else TensorFlow takes a GPU's whole memory at once, and a second process on it gets none.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}


def settle_environment() -> None:
    """Set what libraries and child processes read from the environment; call it before libraries are imported.

    What the user has set stays, but that traffic within this machine takes no proxy.
    """
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    bypass_proxies()


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


def mistake_in_words(error: Exception) -> str | None:
    """What a person did wrong, which disk is full, or that Prefect's server is gone, in one line; else None."""
    if isinstance(error, USER_ERRORS):
        return console.one_line(str(error))
    httpx = sys.modules.get("httpx")  # which Prefect's client is made with
    if httpx is not None and any(isinstance(cause, httpx.HTTPError) for cause in (error, error.__cause__)):
        return (
            f"Prefect's server has gone or refuses ({console.one_line(str(error))}); what is done is kept, and the "
            "same command goes on from there"
        )
    if isinstance(error, OSError) and is_full(error):
        # Libraries write beside the store too, into temporary folders and caches of their own.
        place = error.filename if error.filename is not None else "a temporary file"
        return f"cannot write {place}: {refusal(error)}"
    return None


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


def run_command(name: str, load: Callable[[], RunConfig], body: Callable[[RunConfig], None]) -> None:
    """Run one command of the command line.

    Everything that libraries write goes to STORE/runs/<time>-<name>.log; beside it lie the settings. On object storage,
    to which nothing can be appended, the log appears when the command ends.

    Args:
        name: of the command.
        load: reads the settings; its errors are shown as the command's.
        body: does the work.

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
        _run(config, body, log)


def keep_settings(config: RunConfig, name: str) -> StorePath:
    """Write the settings of a command to STORE/runs; say where its log is to be, if it has one: beside them."""
    folder = open_store(config.store.path) / "runs"
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    with commit_file(folder / f"{stamp}-{name}.yaml") as temporary:
        temporary.write_text(dump_config(config), encoding="utf-8")
    return folder / f"{stamp}-{name}.log"


def _run(config: RunConfig, body: Callable[[RunConfig], None], log: StorePath) -> None:
    try:
        with one_line_for_mistakes():
            body(config)
    except typer.Exit:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or stopping.asked():
            console.complain("stopped; whole shards are kept, and the same command goes on from there")
            raise typer.Exit(stopping.EXIT_INTERRUPTED) from error
        # The last line of defence: the person sees one line, the log has it all.
        logging.getLogger(__name__).error("%s", traceback.format_exc())
        fault = console.one_line(f"{type(error).__name__}: {error}")
        console.complain(f"a fault in the program ({fault}); see {log}")
        raise typer.Exit(EXIT_BUG) from error


@contextmanager
def local_log(log: StorePath) -> Iterator[Path]:
    """A file to append to while the block runs: the log itself, or one that becomes it in the end, whatever that is."""
    if isinstance(log, Path):
        yield log
        return
    folder = Path(tempfile.mkdtemp(prefix="traitline-"))
    file = folder / log.name
    try:
        yield file
    finally:
        try:
            with commit_file(log) as temporary:
                shutil.copyfile(file, temporary)
            shutil.rmtree(folder)
        except (StoreError, OSError) as error:
            console.complain(f"the log stays at {file}: {error}")

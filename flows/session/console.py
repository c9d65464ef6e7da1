"""Output for people: progress with time left, summaries, one line per error. Libraries write to the run's log."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
)
from rich.table import Column, Table
from rich.text import Text

log = logging.getLogger("flows")

_EARLIEST_GUESS_S = 10.0  # into a stage; what comes before is often start-up
_SHORTEST_BAR, _WORDS_BESIDE_BAR = 5, 70

# Progress and errors go to the standard error as it was at the start, see `silence_libraries`.
# Names of files may hold brackets and colons, which are neither markup nor emoji.
console = Console(stderr=True, highlight=False, markup=False, emoji=False)

PACKAGES = ("extractors", "flows", "fusion", "storage")
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
LOG_TIME = "%Y-%m-%dT%H:%M:%S%z"
LINE_EVERY_S = 60.0  # of progress, if there is no terminal to draw a bar on


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """A number with its noun, as in "1 video" and "1,000 videos", or with the plural that is given."""
    several = nouns if nouns is not None else f"{noun}s"
    return f"{count:,} {noun if count == 1 else several}"


def one_line(text: str) -> str:
    """The same text, with what a screen would not show as it is (line breaks, a terminal's commands) as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def span(seconds: float) -> str:
    """A time as people say it: "12 s", "3 min", "3 min 5 s", "2 h 5 min"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h {whole // 60 % 60} min"


class _Count(ProgressColumn):
    """Counts of finished and of all, and of failed ones if there are any."""

    def render(self, task: Task) -> Text:
        text = Text(f"{int(task.completed):,} of {int(task.total or 0):,}", style="progress.download")
        failed = task.fields["failed"]
        return Text.assemble(text, ", ", (f"{failed:,} failed", "red")) if failed else text


class _Clock(ProgressColumn):
    """Time taken so far, and an estimate of the time left once there is a basis for one."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        if elapsed is None:
            return Text()
        if task.finished:
            return Text(f"in {span(elapsed)}", style="progress.elapsed")
        left = self._left(task, elapsed)
        so_far = span(elapsed if elapsed < 60 else elapsed // 60 * 60)  # seconds that flicker help nobody
        return Text(f"{so_far} so far{left}", style="progress.elapsed")

    @staticmethod
    def _left(task: Task, elapsed: float) -> str:
        if not task.completed or elapsed < _EARLIEST_GUESS_S:
            return ""
        left_s = elapsed / task.completed * ((task.total or 0) - task.completed)
        if left_s < 60:
            return ", under a minute left"
        if left_s < 90 * 60:
            return f", about {left_s / 60:.0f} min left"
        return f", about {left_s / 3600:.0f} h left"


class Stage:
    """One bar that counts finished and failed items."""

    def __init__(
        self, progress: Progress, title: str, total: int, on_change: Callable[[int, int, int], None] | None = None
    ) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, failed=0)
        self._failed = 0
        self._total, self._on_change = total, on_change
        self._next_line_s = time.monotonic() + LINE_EVERY_S

    def advance(self, *, ok: bool = True, title: str | None = None) -> None:
        """One more is done."""
        self._failed += not ok
        self._progress.update(self._task, advance=1, failed=self._failed)
        if title is not None:
            self._progress.update(self._task, description=title)
        self._tell()

    def at(self, done: int, *, failed: int = 0, title: str | None = None) -> None:
        """So many are done in all, and failed among them, whoever did them."""
        self._failed = failed
        self._progress.update(self._task, completed=done, failed=failed, description=title)
        self._tell()

    def close(self) -> None:
        """Finish the bar, even if fewer steps were done than announced."""
        self._progress.update(self._task, total=self._progress.tasks[0].completed)
        if not console.is_terminal:
            self._say()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change(int(self._progress.tasks[0].completed), self._total, self._failed)
        if not console.is_terminal and time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_EVERY_S
            self._say()

    def _say(self) -> None:
        task = self._progress.tasks[0]
        failed = f", {self._failed} failed" if self._failed else ""
        say(f"{' '.join(task.description.split())}: {int(task.completed)} of {self._total}{failed}")


@contextmanager
def stage(title: str, total: int, on_change: Callable[[int, int, int], None] | None = None) -> Iterator[Stage]:
    """Show a bar while the block runs; without a terminal, a line now and then, and one in the end.

    Args:
        title, total: name and number of the items.
        on_change: called with counts (done, in all, failed) whenever they change.
    """
    title_column = TextColumn("{task.description}", table_column=Column(ratio=1, max_width=38))
    bar_width = min(30, console.width - _WORDS_BESIDE_BAR)
    bar_columns = [BarColumn(bar_width)] if bar_width >= _SHORTEST_BAR else []
    columns = (SpinnerColumn(), title_column, *bar_columns, _Count(), _Clock())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = Stage(progress, title, total, on_change)
        yield bar
        bar.close()


def say(text: str, style: str = "") -> None:
    """One line about the work, for the person at the screen, for a scheduler's log, and for the run's log.

    Lines of commands that have a log of their own begin with the time unless a terminal shows them.
    """
    timed = _Output.is_of_run and not console.is_terminal
    console.print(f"{time.strftime(LOG_TIME)} {text}" if timed else text, style=style, soft_wrap=True)
    log.info("%s", text)


def complain(text: str) -> None:
    """Print why the command fails or stops early, always as `traitline: ...`."""
    console.print(f"traitline: {text}", style="red", soft_wrap=True)
    if _Output.is_of_run:
        log.error("%s", text)


def summary(title: str, rows: Sequence[tuple[str, str | Text]]) -> None:
    """Summarise the work: a box on a terminal, otherwise a line.

    Args:
        rows: names and values; an empty name goes on with the one before.
    """
    line = f"{title}: {'; '.join(f'{name} {value}'.strip() for name, value in rows)}"
    if not console.is_terminal:
        say(line)
        return
    log.info("%s", line)
    grid = Table.grid(padding=(0, 2))
    for row in rows:
        grid.add_row(*row)
    console.print(Panel(grid, title=title, title_align="left", expand=False))


class _Output:
    is_of_run = False  # whether the command has a run's log, see `silence_libraries`


def last_words(text: str) -> None:
    """Print a line before this process is ended by force, even if another thread holds the console."""
    show_cursor = "\x1b[?25h" if console.is_terminal else ""
    with suppress(OSError):
        os.write(console.file.fileno(), f"{show_cursor}\n{text}\n".encode())


def silence_libraries(log: Path) -> None:
    """Send everything that libraries write to the standard error, C++ code and child processes too, to a log file.

    It stays so until the process ends, for some libraries write last words at the interpreter's exit.

    Raises:
        OSError: the log cannot be opened.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stderr.flush()
    console.file = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    _Output.is_of_run = True
    log_to_standard_error()


def log_to_standard_error() -> None:
    """Log what this program does, and what libraries warn of, in lines with times, until Prefect takes logging over."""
    logging.basicConfig(format=LOG_FORMAT, datefmt=LOG_TIME, level=logging.WARNING)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
    # Not by its level: Prefect says at the same one why a step is tried again.
    logging.getLogger("prefect.task_runs").addFilter(
        lambda record: not record.getMessage().startswith("Finished in state Completed(")
    )

"""Output for people: progress, summaries and errors. The output of libraries goes to the run's log."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.cells import cell_len
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
from rich.table import Table
from rich.text import Text

log = logging.getLogger("flows")

_EARLIEST_GUESS_S = 10.0  # after the first finished item
_MOST_COUNTS = 512
_SHORTEST_BAR, _LONGEST_BAR = 5, 30

# Progress and errors go to the original standard error, see `silence_libraries`.
# Brackets and colons in file names are neither markup nor emoji.
console = Console(stderr=True, highlight=False, markup=False, emoji=False)

PACKAGES = ("extractors", "flows", "fusion", "storage")
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
LOG_TIME = "%Y-%m-%dT%H:%M:%S%z"
LINE_EVERY_S = 60.0  # between two lines of progress without a terminal


# User and password in an address, with one slash if it was taken for a path; and secrets among an address's options.
_SECRET = re.compile(
    r"(?P<scheme>\w:/{1,2})[^\s/:@]+:(?!\d+/)[^\s@]+@"
    r"|(?P<option>[?&][\w-]*(?:key|secret|token|password|signature|sig)[\w-]*=)[^\s&'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Replace the secrets in the addresses of a text by asterisks, as in "postgresql://***@host/database"."""
    return _SECRET.sub(lambda found: f"{found['scheme']}***@" if found["scheme"] else f"{found['option']}***", text)


_SECRET_NAME = r"(?:passw(?:or)?d|passphrase|secret|token|credential|(?:api|access|account|private)[_-]?key)"
_NAMES_SECRET = re.compile(_SECRET_NAME, re.IGNORECASE)
_NAMED_SECRET = re.compile(
    rf"""({_SECRET_NAME}[\w-]*["']?\s*[=:]\s*|--[\w-]*{_SECRET_NAME}[\w-]*\s+)(?:"[^"]*"|'[^']*'|\S+)""", re.IGNORECASE
)


def without_secrets(value: Any) -> Any:
    """Replace secrets in nested options by asterisks: those in addresses, and those whose names say that they are some.

    Names are keys, `name` beside a `value`, and what stands before a value in a text, as in "export TOKEN=...".
    """
    if isinstance(value, str):
        return masked(_NAMED_SECRET.sub(r"\1***", value))
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    secret = {name for name in value if _NAMES_SECRET.search(str(name))}
    if _NAMES_SECRET.search(str(value.get("name"))):
        secret.add("value")
    return {
        name: "***" if name in secret and not isinstance(item, bool | None) else without_secrets(item)
        for name, item in value.items()
    }


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Format a number with its noun, as in "1 video" and "1,000 videos"; `nouns` is an irregular plural."""
    several = nouns if nouns is not None else f"{noun}s"
    return f"{count:,} {noun if count == 1 else several}"


def tally(counts: Mapping[str, int]) -> str:
    """Format counts, the largest first, as in "8 no_face, 2 truncated"."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ordered)


def one_line(text: str) -> str:
    """Escape the characters of a text that are not printable, such as line breaks and terminal commands."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def span(seconds: float) -> str:
    """Format a duration, as in "12 s", "3 min", "3 min 5 s" and "2 h 5 min"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h {whole // 60 % 60} min"


class _Count(ProgressColumn):
    """The numbers of finished and of all items, and of failed ones if there are any."""

    def render(self, task: Task) -> Text:
        text = Text(f"{int(task.completed):,} of {int(task.total or 0):,}", style="progress.download")
        failed = task.fields["failed"]
        return Text.assemble(text, ", ", (f"{failed:,} {task.fields['faulty']}", "red")) if failed else text


class Pace:
    """Estimates the time left from the pace in the latter half of the time since the first finished item.

    The time before that item is start-up, and items of an earlier run that are counted with it took no time now. Of a
    pace that changes, the latter half forgets the older part, yet it grows, so that the estimate settles.
    """

    def __init__(self) -> None:
        self._counts: list[tuple[float, int]] = []  # time and number of finished items, ascending

    def add(self, now_s: float, done: int) -> None:
        """Note how many items are finished."""
        if done and (not self._counts or done > self._counts[-1][1]):
            self._counts.append((now_s, done))
        if len(self._counts) > _MOST_COUNTS:
            del self._counts[1:-1:2]

    def left_s(self, now_s: float, total: int) -> float | None:
        """Return the seconds left, None as long as there is no basis for an estimate."""
        if len(self._counts) < 2 or now_s - self._counts[0][0] < _EARLIEST_GUESS_S:
            return None
        (first_s, _), (last_s, done) = self._counts[0], self._counts[-1]
        at = bisect_right(self._counts, (first_s + last_s) / 2, key=lambda count: count[0]) - 1
        from_s, before = self._counts[at]
        waited_s = now_s - last_s
        # While the next item takes longer than usual, it counts as finished now.
        each_s = max((last_s - from_s) / (done - before), (now_s - from_s) / (done - before + 1))
        return max(0.0, (total - done) * each_s - min(waited_s, each_s))


def time_left(seconds: float, *, may_end_early: bool = False) -> str:
    """Format an estimate, as in "about 12 min left", as coarsely as it can be trusted.

    Args:
        may_end_early: whether the work may end before all items are finished.
    """
    if seconds < 60:
        return "under a minute left"
    minutes = round(seconds / 60)
    coarse = minutes if minutes < 20 else round(minutes / 5) * 5
    words = f"{coarse} min" if minutes < 90 else f"{seconds / 3600:.0f} h"
    return f"{'at most' if may_end_early else 'about'} {words} left"


class _Clock(ProgressColumn):
    """The time left once there is a basis for an estimate, the time taken before that and in the end."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        if elapsed is None:
            return Text()
        if task.finished:
            return Text(f"in {span(elapsed)}", style="progress.elapsed")
        left = task.fields["left"]()
        return Text(left or f"{span(elapsed)} so far", style="progress.elapsed")


class _Sentence(ProgressColumn):
    """Title, numbers and clock, broken into lines that fit."""

    def render(self, task: Task) -> Text:
        return Text(" ").join((Text(task.description), _NUMBERS.render(task), _CLOCK.render(task)))


_TITLE, _NUMBERS, _CLOCK, _SENTENCE = TextColumn("{task.description}"), _Count(), _Clock(), _Sentence()


class _Bar(Progress):
    """Fits the screen as wide as it is now: with a bar if there is room, otherwise as a sentence."""

    def get_renderables(self) -> Iterator[Table]:
        widest = max((cell_len(_SENTENCE.render(task).plain) for task in self.tasks), default=0)
        room = console.width - widest - len("* ") - 1
        bar = BarColumn(min(_LONGEST_BAR, room))
        spinner = self.columns[0]
        self.columns = (spinner, _TITLE, bar, _NUMBERS, _CLOCK) if room >= _SHORTEST_BAR else (spinner, _SENTENCE)
        yield self.make_tasks_table(self.tasks)


class Stage:
    """One bar that counts finished and failed items."""

    def __init__(
        self,
        progress: Progress,
        title: str,
        total: int,
        on_change: Callable[[int, int, int], None] | None = None,
        *,
        may_end_early: bool = False,
        faulty: str = "failed",
    ) -> None:
        self._faulty = faulty
        self._progress, self._pace, self._may_end_early = progress, Pace(), may_end_early
        self._total, self._on_change = total, on_change
        self._failed = 0
        self._said = ""
        self._task = progress.add_task(title, total=total, failed=0, faulty=faulty, left=self._left)
        self._next_line_s = time.monotonic() + LINE_EVERY_S

    def advance(self, *, ok: bool = True, title: str | None = None) -> None:
        """Count one more finished item."""
        self.at(int(self._progress.tasks[0].completed) + 1, failed=self._failed + (not ok), title=title)

    def at(self, done: int, *, failed: int = 0, title: str | None = None) -> None:
        """Set the numbers of finished items and of failed ones among them."""
        self._failed = failed
        self._progress.update(self._task, completed=done, failed=failed, description=title)
        self._tell()

    def close(self) -> None:
        """Finish the bar, even if fewer items were done than announced."""
        self._progress.update(self._task, total=self._progress.tasks[0].completed)
        if not console.is_terminal:
            self._say()

    def _left(self) -> str:
        """Say how much time is left; empty if nobody knows."""
        left_s = self._pace.left_s(time.monotonic(), self._total)
        return "" if left_s is None else time_left(left_s, may_end_early=self._may_end_early)

    def _tell(self) -> None:
        self._pace.add(time.monotonic(), int(self._progress.tasks[0].completed))
        if self._on_change is not None:
            self._on_change(int(self._progress.tasks[0].completed), self._total, self._failed)
        if not console.is_terminal and time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_EVERY_S
            self._say()

    def _say(self) -> None:
        task = self._progress.tasks[0]
        failed = f", {self._failed} {self._faulty}" if self._failed else ""
        left = "" if task.finished else self._left()
        count = f"{int(task.completed)} of {self._total}{failed}{left and f', {left}'}"
        line = f"{' '.join(task.description.split())}: {count}"
        if line != self._said:
            say(line)
        self._said = line


@contextmanager
def stage(
    title: str,
    total: int,
    on_change: Callable[[int, int, int], None] | None = None,
    *,
    may_end_early: bool = False,
    faulty: str = "failed",
) -> Iterator[Stage]:
    """Show a progress bar with one clock while the block runs; without a terminal, a line every minute and at the end.

    Args:
        on_change: called with counts (done, in all, failed) whenever they change.
        may_end_early: whether the work may end before all items are finished, so that the time left is a bound.
        faulty: what failed items are called.
    """
    with _Bar(SpinnerColumn(), console=console, disable=not console.is_terminal) as progress:
        bar = Stage(progress, title, total, on_change, may_end_early=may_end_early, faulty=faulty)
        yield bar
        bar.close()


def say(text: str, style: str = "") -> None:
    """Print one line about the work, and add it to the run's log.

    Without a terminal, lines of commands that have a log begin with the time.
    """
    timed = _Output.is_of_run and not console.is_terminal
    text = masked(text)
    console.print(f"{time.strftime(LOG_TIME)} {text}" if timed else text, style=style, soft_wrap=True)
    log.info("%s", text)


def complain(text: str, *, logged: bool = True) -> None:
    """Print why the command fails or stops early, always as `traitline: ...`; add it to the run's log if `logged`."""
    text = masked(text)
    console.print(f"traitline: {text}", style="red", soft_wrap=True)
    if logged and _Output.is_of_run:
        log.error("%s", text)


def summary(title: str, rows: Sequence[tuple[str, str | Text]]) -> None:
    """Print a summary of names and values: a box on a terminal, otherwise a line. An empty name continues a value."""
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
    """Print a line just before this process is ended by force, even if another thread holds the console."""
    show_cursor = "\x1b[?25h" if console.is_terminal else ""
    with suppress(OSError):
        os.write(console.file.fileno(), f"{show_cursor}\n{text}\n".encode())


def silence_libraries(log: Path) -> None:
    """Redirect the standard error to a log file, for libraries, their C++ code and child processes.

    This lasts until the process ends, because some libraries still write at the interpreter's exit.

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
    """Log this program's messages and the warnings of libraries, with times, until Prefect configures logging.

    Prefect's own handlers do not show secrets in addresses either.
    """
    logging.setLogRecordFactory(_masked_record)
    logging.basicConfig(format=LOG_FORMAT, datefmt=LOG_TIME, level=logging.WARNING)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
    # Not by its level: Prefect logs at the same level why it retries a task.
    logging.getLogger("prefect.task_runs").addFilter(
        lambda record: not record.getMessage().startswith("Finished in state Completed(")
    )


def _masked_record(*arguments: Any, **more: Any) -> logging.LogRecord:
    record = logging.LogRecord(*arguments, **more)
    message = record.getMessage()
    if (shown := masked(message)) != message:
        record.msg, record.args = shown, None
    return record

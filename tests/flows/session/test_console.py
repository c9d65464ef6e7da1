"""What a person reads, on a terminal and in a scheduler's log."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from rich.console import Console

from flows.session import console
from flows.session.console import counted, span


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "video"), "0 videos"),
        ((1, "video"), "1 video"),
        ((1_000, "video"), "1,000 videos"),
        ((1, "person", "people"), "1 person"),
        ((2, "person", "people"), "2 people"),
    ],
)
def test_a_number_agrees_with_its_noun(arguments, words):
    assert counted(*arguments) == words


@pytest.fixture
def scheduled(monkeypatch):
    """As a scheduler runs a command: nobody looks, and the run has a log."""
    monkeypatch.setattr(console._Output, "is_of_run", True)


def test_without_a_terminal_progress_and_summary_are_whole_lines_with_their_time(scheduled, capsys):
    name = " ".join(["a long name"] * 20)
    with console.stage("Extract", 3, faulty="rejected") as stage:
        stage.advance()
        stage.advance(ok=False)
    console.say(f"Train: {name}", style="yellow")
    console.summary("Done", [("scored", "2 of 3"), ("rejected", "1: 1 no_face"), ("CSV", name)])
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert output.out == ""
    assert [line.split(" ", 1)[1] for line in lines] == [
        "Extract: 2 of 3, 1 rejected",
        f"Train: {name}",
        f"Done: scored 2 of 3; rejected 1: 1 no_face; CSV {name}",
    ]
    for line in lines:
        assert datetime.fromisoformat(line.split(" ", 1)[0]).tzinfo is not None
        assert line.isprintable()


def test_a_stage_that_takes_long_says_so_now_and_then(scheduled, capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.0)
    with console.stage("Score", 2) as stage:
        stage.advance()
        stage.advance(title="Score  loss 0.1")
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["Score: 1 of 2", "Score loss 0.1: 2 of 2"]


def test_why_a_command_ends_is_a_line_of_the_program_wherever_it_is_read(scheduled, capsys):
    console.complain("no such folder")
    assert capsys.readouterr().err == "traitline: no such folder\n"


def test_a_terminal_shows_boxes_and_no_times(scheduled, capsys, monkeypatch):
    monkeypatch.setattr(console, "console", Console(stderr=True, force_terminal=True, width=60, color_system=None))
    console.say("Export: 3 videos scored")
    console.summary("Done", [("model", "traits/1")])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Export: 3 videos scored"
    assert lines[1].startswith("╭─ Done ─")
    assert "model  traits/1" in lines[2]


def test_our_packages_log_what_they_do_and_others_what_they_warn_of():
    code = (
        "import logging; from flows.session import console; console.log_to_standard_error()\n"
        "for name in ('flows.x', 'extractors.x', 'fusion.x', 'storage.x', 'other'):\n"
        "    logging.getLogger(name).info('done'); logging.getLogger(name).warning('odd')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.splitlines()
    ours = [f"{package}.x: {word}" for package in console.PACKAGES for word in ("done", "odd")]
    assert sorted(line.split(maxsplit=2)[2] for line in said) == sorted([*ours, "other: odd"])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (185, "3 min 5 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_a_time_is_written_as_people_say_it(seconds, words):
    assert span(seconds) == words


WIDTHS = [40, 60, 80, 200]


class Screen:
    """A terminal of a width, on which a stage runs by a clock of its own."""

    def __init__(self, width: int, monkeypatch) -> None:
        self.console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        self.now_s = 0.0
        monkeypatch.setattr(console, "console", self.console)
        monkeypatch.setattr(console.time, "monotonic", lambda: self.now_s)

    def lines(self, stage: console.Stage) -> list[str]:
        """What the stage shows now, without colours and spinner."""
        progress = stage._progress
        progress.tasks[0].start_time = progress.get_time() - self.now_s
        console._CLOCK._renderable_cache.clear()  # it changes twice a second only
        page = Console(file=io.StringIO(), width=self.console.width, color_system=None)
        page.print(*progress.get_renderables())
        text = page.file.getvalue()
        return [re.sub("^[\u2800-\u28ff] ", "", line).rstrip() for line in text.splitlines()]

    def words(self, stage: console.Stage) -> str:
        return re.sub(r"[\s\u2500-\u257f]+", " ", " ".join(self.lines(stage))).strip()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_stage_has_one_labelled_clock_that_fits_any_width_and_nothing_is_cut_off(width, monkeypatch):
    screen = Screen(width, monkeypatch)
    with console.stage("Evaluate features  dynamic", 10_000) as stage:
        screen.now_s = 5
        stage.at(2, failed=1)
        assert screen.words(stage) == "Evaluate features dynamic 2 of 10,000, 1 failed 5 s so far"
        for second in range(6, 101):
            screen.now_s = second
            stage.at(40 * second, failed=12)
        lines = screen.lines(stage)
        assert screen.words(stage) == "Evaluate features dynamic 4,000 of 10,000, 12 failed about 2 min left"
        assert max(map(len, lines)) <= width
        assert len(lines) == (1 if width >= 80 else 2)


def estimates(times_s: list[float], total: int) -> list[float | None]:
    """The time left by the estimate just after each item, and the truth about it as the difference."""
    pace, found = console.Pace(), []
    for done, now_s in enumerate(times_s, 1):
        pace.add(now_s, done)
        left_s = pace.left_s(now_s, total)
        found.append(None if left_s is None else left_s - (times_s[total - 1] - now_s))
    return found


@pytest.mark.parametrize("at_once", [1, 8])
def test_the_estimate_settles_although_the_start_is_slow_and_items_differ(at_once):
    """A minute of start-up; items of 1 to 3 s, each in one of several processes, so that they end in bursts."""
    rng = np.random.default_rng(0)
    ends = np.zeros(at_once) + 60.0
    times_s = []
    for each_s in rng.uniform(1, 3, 1000) * at_once:
        process = ends.argmin()
        ends[process] += each_s
        times_s.append(float(ends[process]))
    times_s.sort()
    errors = estimates(times_s, 1000)
    assert errors[2] is None
    left_s = [times_s[-1] - now_s for now_s in times_s]
    for place in range(100, 990):
        assert abs(errors[place]) < 0.15 * left_s[place] + 3 * at_once + 5, place


def test_the_estimate_follows_a_pace_that_changes():
    """Items of the second half take four times as long: the average since the start would lag far behind."""
    times_s = np.cumsum([1.0] * 500 + [4.0] * 500).tolist()
    errors = estimates(times_s, 1000)
    assert abs(errors[400]) > 1000  # nobody can know
    assert abs(errors[800]) < 0.25 * 4 * 200


def test_items_that_were_done_before_do_not_count_as_fast():
    """A training that resumes at 60 of 100 counts these at once."""
    pace = console.Pace()
    for now_s, done in ((1.0, 60), (11.0, 61), (21.0, 62)):
        pace.add(now_s, done)
    assert pace.left_s(21.0, 100) == pytest.approx(380)


def test_the_estimate_counts_down_between_items_and_grows_if_one_takes_long():
    pace = console.Pace()
    for minute in range(1, 11):
        pace.add(60.0 * minute, minute)
    assert pace.left_s(600, 20) == pytest.approx(600)
    assert pace.left_s(630, 20) == pytest.approx(570)
    assert pace.left_s(660, 20) == pytest.approx(540)
    waiting = [pace.left_s(now_s, 20) for now_s in range(660, 3000, 60)]
    assert waiting == sorted(waiting)
    assert waiting[-1] > 1200


def test_many_items_take_little_memory():
    pace = console.Pace()
    for done in range(1, 100_001):
        pace.add(float(done), done)
    assert len(pace._counts) < 1000
    assert pace.left_s(100_000.0, 200_000) == pytest.approx(100_000, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59, "under a minute"), (61, "about 1 min"), (1130, "about 19 min"), (1330, "about 20 min"), (9000, "about 2 h")],
)
def test_time_left_is_as_coarse_as_it_can_be_trusted(seconds, words):
    assert console.time_left(seconds) == f"{words} left"
    assert console.time_left(600, may_end_early=True) == "at most 10 min left"


def test_lines_without_a_terminal_say_how_long_it_takes(scheduled, capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY_S", 100.0)
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.stage("Extract", 1000) as stage:
        for _ in range(60):
            now[0] += 2
            stage.advance()
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["Extract: 50 of 1000, about 30 min left", "Extract: 60 of 1000"]


def test_a_step_that_ends_well_is_no_line_of_the_log_and_one_that_is_tried_again_is():
    code = (
        "from flows.session import console; console.log_to_standard_error()\n"
        "from prefect.logging.configuration import setup_logging; setup_logging()\n"
        "from prefect.logging import get_logger; log = get_logger('prefect.task_runs')\n"
        "log.info('Finished in state Completed()'); log.info('Retry 1/2'); log.error('Finished in state Failed()')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "Completed()" not in said
    assert "Retry 1/2" in said
    assert "Failed()" in said

"""What a person reads, on a terminal and in a scheduler's log."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from datetime import datetime

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
    with console.stage("Extract", 3) as stage:
        stage.advance()
        stage.advance(ok=False)
    console.say(f"Train: {name}", style="yellow")
    console.summary("Done", [("scored", "2 of 3"), ("", "1 without a score: no_face"), ("CSV", name)])
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert output.out == ""
    assert [line.split(" ", 1)[1] for line in lines] == [
        "Extract: 2 of 3, 1 failed",
        f"Train: {name}",
        f"Done: scored 2 of 3; 1 without a score: no_face; CSV {name}",
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
    assert said == ["Score: 1 of 2", "Score loss 0.1: 2 of 2", "Score loss 0.1: 2 of 2"]


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


def shown(width: int, total: int, done: int, after_s: float, monkeypatch) -> str:
    """What a stage shows of itself after so many seconds, as a line without colours."""
    screen = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "console", screen)
    with console.stage("Extract", total) as stage:
        stage.at(done, failed=1)
        stage._progress.tasks[0].start_time -= after_s
        screen.file.seek(0)
        screen.file.truncate()
        stage._progress.refresh()
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())
    return " ".join(text.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_each_time_of_a_stage_is_labelled_and_none_is_guessed_from_nothing(width, monkeypatch):
    assert shown(width, 10, 5, 2, monkeypatch).endswith("5 of 10, 1 failed 2 s so far")
    assert "1 min so far, about 2 min" in shown(width, 100, 40, 90, monkeypatch)
    assert "so far, under a minute" in shown(width, 100, 99, 90, monkeypatch)
    assert "about 3 h" in shown(width, 1000, 10, 100, monkeypatch)
    assert not re.search(r"\d:\d\d", shown(width, 100, 40, 90, monkeypatch))


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

"""Words that a person reads."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from flows import console
from flows.console import counted, span


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

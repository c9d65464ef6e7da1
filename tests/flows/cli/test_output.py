"""Summaries and tables show names as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from flows.archive.models import ModelReference
from flows.archive.videos import Archive
from flows.cli import output
from flows.cli.commands.failures import _table as failures_table
from flows.cli.output import show_extraction, show_run, show_table
from flows.extraction.jobs import ExtractReport
from flows.pipeline.export import ExportReport
from flows.pipeline.run import RunReport
from flows.session import console
from fusion.traits import TRAITS
from storage import Failure

ODD = ("[bold]x.mp4", "[/nothing]y.mp4", ":smile:.mp4")


@pytest.mark.parametrize("name", ODD)
def test_a_table_shows_a_name_with_brackets_whole(name, capsys):
    table = Table("video")
    table.add_row(name)
    show_table(table)
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("name", ODD)
def test_a_line_shows_a_name_with_brackets_whole(name, capsys):
    console.say(f"Train: {name}", style="red")
    assert f"Train: {name}" in capsys.readouterr().err


LIKE = [f"interviews/session-2024-11-03/participant-0001-camera-a-take-{number}.mp4" for number in (1, 2)]


@pytest.fixture(params=[60, 80, 120])
def screen(request, monkeypatch) -> int:
    """The width of the screen that tables are shown on."""

    def console_of_width(**options: bool) -> Console:
        return Console(width=request.param, force_terminal=True, color_system=None, **options)

    monkeypatch.setattr(output, "Console", console_of_width)
    return request.param


@pytest.mark.parametrize("with_time", [False, True])
def test_no_screen_is_so_narrow_that_two_videos_are_shown_by_the_same_name(screen, with_time, capsys):
    failures = [Failure(name, "0" * 64, "k", "faces", "no_face", "no face in any frame", 1) for name in LIKE]
    show_table(failures_table([("20260101T101112", failure) for failure in failures], with_time=with_time))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= screen
    assert "\u2026" not in "".join(lines)
    # what is folded is read down a column, or behind its heading
    column = next(line.index("interviews") for line in lines if "interviews" in line)
    shown = "".join(line[column:].split("\u2502")[0].strip() for line in lines)
    assert all(name in shown for name in LIKE)


def test_numbers_stay_whole_on_every_screen(screen, capsys):
    table = Table("predictor")
    for trait in TRAITS:
        table.add_column(f"unseen people\n{trait}", justify="right")
    table.add_row("a model with a long name", *["-0.1234 [-0.2345, 0.3456]"] * 5)
    show_table(table)
    out = capsys.readouterr().out
    assert out.count("-0.1234 [-0.2345, 0.3456]") == 5
    assert max(map(len, out.splitlines())) <= screen


def test_a_summary_of_one_video_says_why_it_was_refused(capsys):
    show_extraction(ExtractReport(0, 1, 0, 0, {}, reasons={"no_face": 1}), Archive(()))
    said = " ".join(capsys.readouterr().err.split())
    assert "rejected 1: 1 no_face" in said


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_summary_shows_the_whole_path_of_its_results(width, monkeypatch, capsys):
    monkeypatch.setattr(console.console, "_width", width)
    paths = [
        Path("/archives/interviews/2026/november") / "-".join(["a-long-name"] * 7) / name for name in ("t.csv", "r")
    ]
    exported = ExportReport(paths[0], 1, {"no_face": 1})
    report = RunReport(ExtractReport(1, 1, 0, 0, {"decode": 1.5}), ModelReference("traits", "1"), 1, exported, paths[1])
    show_run("random", report, Archive(()))
    lines = [line.strip("\u2502 ") for line in capsys.readouterr().err.splitlines()]
    assert "\u2026" not in "".join(lines)
    shown = "".join(line.removeprefix("CSV").removeprefix("report").strip() for line in lines)
    assert all(str(path) in shown for path in paths)
    assert any("1 of 2 (1 in this run)" in line for line in lines)

"""Summaries and tables show names as they are."""

from __future__ import annotations

import pytest
from rich.table import Table

from flows import console
from flows.cli_store import show_table

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

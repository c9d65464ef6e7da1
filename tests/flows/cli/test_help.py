"""Help texts are Markdown, in which a line that begins with "1." or "-" turns into a list and loses words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flows.cli.app import app, command_line


def commands_of(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands_of(inner, *words, name)


COMMANDS = dict(commands_of(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_every_word_in_order(words):
    told = re.sub(r"[`*]", "", inspect.cleandoc(COMMANDS[words].help))
    for columns in ("60", "100"):
        shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": columns, "TERMINAL_WIDTH": columns}).stdout
        assert " ".join(told.split()) in " ".join(shown.split())


@pytest.mark.parametrize("words", [(), ("run",), ("store", "erase")], ids=" ".join)
def test_help_shows_a_type_for_values_and_none_for_flags(words, capsys):
    command_line().main([*words, "--help"], "traitline", standalone_mode=False)
    shown = capsys.readouterr().out
    assert "--help" in shown
    assert "bool" not in shown.lower()
    assert not words or "<path>" in shown

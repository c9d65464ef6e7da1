"""What a person is told who stops a command."""

from __future__ import annotations

import pytest
import typer

from flows.cli import command
from flows.session import console


@pytest.mark.parametrize("words", ["a.png is not written", "finished work is kept"])
def test_a_stopped_command_says_what_becomes_of_its_own_work(tmp_path, words, capsys):
    with pytest.raises(typer.Exit) as ended, command._errors_in_one_line(tmp_path / "a.log", words):
        raise KeyboardInterrupt
    assert ended.value.exit_code == command.stopping.EXIT_INTERRUPTED
    assert capsys.readouterr().err == f"traitline: stopped; {words}\n"
    assert not console._Output.is_of_run

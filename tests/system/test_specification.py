"""The page that maps the specification to this project: all that it names exists. `tests/docs` runs its code."""

import re
from importlib import import_module
from pathlib import Path

import typer.main

from flows.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "specification.md").read_text("utf-8")
HERE = [line.rsplit("|", 2)[1] for line in PAGE.splitlines() if line.startswith("| ")]
NAMES = re.findall(r"`((?:extractors|fusion|storage)[\w.]+)`", "".join(HERE))
COMMANDS = re.findall(r"`traitline ([a-z -]+?)(?: --[^`]*)?`", "".join(HERE))


def test_every_name_of_the_table_can_be_imported():
    assert len(NAMES) == 11
    for name in NAMES:
        module, _, attribute = name.rpartition(".")
        assert callable(getattr(import_module(module), attribute)), name


def test_every_command_of_the_table_exists():
    assert len(COMMANDS) > 15
    for command in COMMANDS:
        node = typer.main.get_command(app)
        for word in command.split():
            assert word in node.commands, command
            node = node.commands[word]

"""The command `traitline doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.command import EXIT_USER_ERROR, plain_command
from flows.cli.options import ASSIGNMENTS, CONFIG, STORE_PATH, WEIGHTS
from flows.cli.output import show_table
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.session import console

if TYPE_CHECKING:
    from flows.doctor.machine import Finding

# The table also shows the level in words, for readers who cannot see colours.
_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def doctor(
    store: STORE_PATH = None,
    weights: WEIGHTS = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to the standard output.")] = False,
    config: CONFIG = None,
    assignments: ASSIGNMENTS = None,
) -> None:
    """Check this machine and say how to fix each fault; the exit status is 1 if there is a fault.

    Checks Python, packages, processors, memory, disks, OpenCV's TV-L1, TensorFlow and its GPUs, MediaPipe, Prefect, the
    assets and the store. Give it the same --config as your runs.
    """
    with plain_command():
        settings = load_config(config, flags={"store.path": store, "weights": weights}, assignments=assignments)
        with console.console.status("Checking this machine"):
            findings = list(_findings(settings))
        if as_json:
            print(json.dumps([asdict(finding) for finding in findings], indent=2))
        else:
            _show(findings)
        if any(finding.level == "fault" for finding in findings):
            raise typer.Exit(EXIT_USER_ERROR)


def _findings(settings: RunConfig) -> Iterator[Finding]:
    from flows.doctor.libraries import check_libraries
    from flows.doctor.machine import check_assets, check_machine, check_networks, check_python
    from flows.doctor.store import check_store

    yield from check_python()
    yield from check_machine()
    yield from check_libraries(settings)
    yield from check_assets(settings)
    yield from check_networks(settings)
    yield from check_store(settings.store.path)


def _show(findings: list[Finding]) -> None:
    table = Table("", "what", "found", "what to do")
    for finding in findings:
        table.add_row(finding.level, finding.subject, finding.found, finding.cure, style=_STYLES[finding.level])
    show_table(table)
    counts = {level: sum(finding.level == level for finding in findings) for level in ("fault", "warning")}
    faults, warnings = counts["fault"], counts["warning"]
    console.say(f"Faults: {faults}; warnings: {warnings}" if faults or warnings else "No faults found")

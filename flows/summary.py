"""Summaries at the end of a command."""

from __future__ import annotations

from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from extractors.stopwatch import STAGES
from flows.config import RunConfig
from flows.console import console, counted
from flows.extract import ExtractReport
from flows.refusals import in_words
from flows.run import RunReport


def show_extraction(report: ExtractReport) -> None:
    """Counts of videos, and where the time went."""
    grid = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    grid.add_row("extracted", f"{report.extracted:,}")
    grid.add_row("refused", f"{report.failed:,}" + (f": {in_words(report.reasons)}" if report.reasons else ""))
    grid.add_row("in the store before", f"{report.cached:,}")
    if report.by_others:
        grid.add_row("done by other runs", f"{report.by_others:,}")
    if report.refused_before:
        grid.add_row("refused before", f"{report.refused_before:,} (see `traitline failures list`)")
    if report.seconds:
        grid.add_row("seconds of work", time_line(report.seconds))
    console.print(Panel(grid, title="Extracted", title_align="left", expand=False))


def show_run(config: RunConfig, report: RunReport) -> None:
    """What came of a run, and where its results lie."""
    if report.extraction is not None:
        show_extraction(report.extraction)
    grid = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    grid.add_row("model", str(report.model))
    videos = report.export.scored + sum(report.export.reasons.values())
    grid.add_row("scored", f"{report.export.scored:,} of {counted(videos, 'video')}, {report.scored_now:,} of them now")
    for reason, count in report.export.reasons.items():
        grid.add_row("", f"{count:,} without a score: {reason}")
    weights = Text(config.weights)
    if config.weights == "random":
        weights = Text.assemble((config.weights, "bold yellow"), ", a trial only")
    grid.add_row("weights", weights)
    grid.add_row("CSV", str(report.export.path))
    grid.add_row("report", str(report.report))
    console.print(Panel(grid, title="Done", title_align="left", expand=False))


def time_line(seconds: dict[str, float]) -> str:
    """Seconds of all processes by stage, in the order of the stages, with their share; stages overlap."""
    total = sum(seconds.values())
    parts = (f"{name} {seconds[name]:.1f} ({seconds[name] / total:.0%})" for name in STAGES if name in seconds)
    return ", ".join(parts)

"""Tables and summaries that commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from extractors.preparation.stopwatch import STAGES
from flows.session.console import one_line, summary, tally

if TYPE_CHECKING:
    from flows.archive.videos import Archive
    from flows.extraction.jobs import ExtractReport
    from flows.pipeline.run import RunReport


def show_extraction(report: ExtractReport, videos: Archive) -> None:
    """Print counts of videos and of other files found, and the time by stage."""
    rows: list[tuple[str, str | Text]] = [*report.rows()]
    if videos.unread:
        rows.append(("not read", one_line(", ".join(sorted(videos.unread)))))
    if videos.passed_over:
        rows.append(("passed over", one_line(tally(videos.passed_over))))
    if report.seconds:
        rows.append(("seconds of work", time_line(report.seconds)))
    summary("Videos", rows)


def show_run(weights: str, report: RunReport, videos: Archive) -> None:
    """Summarise a run and say where its results are."""
    from flows.archive.outcomes import without_result

    if report.extraction is not None:
        show_extraction(report.extraction, videos)
    count = report.export.scored + sum(report.export.reasons.values())
    shown = Text(weights)
    if weights == "random":
        shown = Text.assemble((weights, "bold yellow"), ", a trial only")
    summary(
        "Done",
        [
            ("model", str(report.model)),
            ("scored", f"{report.export.scored} of {count} ({report.scored_now} in this run)"),
            *without_result(report.export.reasons),
            ("weights", shown),
            ("CSV", str(report.export.path)),
            ("report", str(report.report)),
        ],
    )


def time_line(seconds: dict[str, float]) -> str:
    """Format the seconds of all processes by stage, in stage order, with their shares; stages overlap."""
    total = sum(seconds.values())
    parts = (f"{name} {seconds[name]:.1f} ({seconds[name] / total:.0%})" for name in STAGES if name in seconds)
    return ", ".join(parts)


_FOLDED_LETTERS = 16  # minimum width of a folded column


def numbers(*headings: str) -> list[Column]:
    """Return columns of numbers, which are aligned on the right."""
    return [Column(heading, justify="right") for heading in headings]


def show_table(table: Table) -> None:
    """Print a table to the standard output, in full width unless a terminal limits it.

    No cell is truncated, because two names may differ only at their ends: text is folded, and numbers stay whole. If
    that is still too wide for the screen, each row becomes a list of its cells.
    """
    output = Console(highlight=False, markup=False, emoji=False)  # as in flows.session.console
    table.title_justify = table.caption_justify = "left"
    needed = 1
    for column in table.columns:
        cells = [cell_len(line) for cell in column.cells for line in str(cell).splitlines()]
        widest = max(cells, default=0)
        shortest = widest if column.justify == "right" else min(widest, _FOLDED_LETTERS)
        column.min_width = max(shortest, *map(cell_len, str(column.header).split() or [""]))
        needed += column.min_width + 3
        column.overflow, column.no_wrap = "fold", False
    if not output.is_terminal:
        output.width = max(200, needed)
    if needed <= output.width:
        output.print(table)
    else:
        output.print(_as_lists(table))


def show_lines(*lines: str) -> None:
    """Print sentences to the standard output, each on its own line; a terminal breaks them between words."""
    output = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        output.print(line, soft_wrap=not output.is_terminal)


def _as_lists(table: Table) -> Table:
    """Convert a table to one with a line for each cell, and an empty line between rows."""
    grid = Table.grid("", "", padding=(0, 2))
    grid.title, grid.title_justify, grid.caption, grid.caption_justify = table.title, "left", table.caption, "left"
    headings = [" ".join(str(column.header).split()) for column in table.columns]
    for column in grid.columns:
        column.overflow = "fold"
    for row, *cells in zip(table.rows, *(column.cells for column in table.columns), strict=True):
        for heading, cell in zip(headings, cells, strict=True):
            grid.add_row(heading, cell, style=row.style)
        grid.add_row("", "")
    return grid

"""Summaries at the end of a command."""

from __future__ import annotations

from rich.text import Text

from extractors.stopwatch import STAGES
from flows.config import RunConfig
from flows.console import one_line, summary
from flows.extract import ExtractReport
from flows.manifest import Archive, counts
from flows.refusals import in_words
from flows.run import RunReport


def show_extraction(report: ExtractReport, videos: Archive) -> None:
    """Counts of videos and of what else was found, and where the time went."""
    rows: list[tuple[str, str | Text]] = [
        ("extracted", f"{report.extracted:,}"),
        ("refused", f"{report.failed:,}" + (f": {in_words(report.reasons)}" if report.reasons else "")),
        ("in the store before", f"{report.cached:,}"),
    ]
    if report.by_others:
        rows.append(("done by other runs", f"{report.by_others:,}"))
    if report.refused_before:
        rows.append(("refused before", f"{report.refused_before:,} (see `traitline failures list`)"))
    if videos.unread:
        rows.append(("not read", one_line(", ".join(sorted(videos.unread)))))
    if videos.passed_over:
        rows.append(("passed over", one_line(counts(videos.passed_over))))
    if report.seconds:
        rows.append(("seconds of work", time_line(report.seconds)))
    summary("Extracted", rows)


def show_run(config: RunConfig, report: RunReport, videos: Archive) -> None:
    """What came of a run, and where its results lie."""
    if report.extraction is not None:
        show_extraction(report.extraction, videos)
    count = report.export.scored + sum(report.export.reasons.values())
    weights = Text(config.weights)
    if config.weights == "random":
        weights = Text.assemble((config.weights, "bold yellow"), ", a trial only")
    summary(
        "Done",
        [
            ("model", str(report.model)),
            ("scored", f"{report.export.scored} of {count}, {report.scored_now} of them now"),
            *(("", f"{count} without a score: {reason}") for reason, count in report.export.reasons.items()),
            ("weights", weights),
            ("CSV", str(report.export.path)),
            ("report", str(report.report)),
        ],
    )


def time_line(seconds: dict[str, float]) -> str:
    """Seconds of all processes by stage, in the order of the stages, with their share; stages overlap."""
    total = sum(seconds.values())
    parts = (f"{name} {seconds[name]:.1f} ({seconds[name] / total:.0%})" for name in STAGES if name in seconds)
    return ", ".join(parts)

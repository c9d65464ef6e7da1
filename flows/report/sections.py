"""The sections of the report: tables and charts of a summary and of stored results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from extractors.preparation.stopwatch import STAGES
from flows.archive import model_quality
from flows.archive.drift import drift_table, drifts_of
from flows.archive.families import Families
from flows.archive.models import ModelReference
from flows.evaluation.evaluate import latest_evaluation
from flows.evaluation.tables import MEASURES, PROTOCOLS, evaluation_tables, every_figure
from flows.extraction.jobs import ExtractReport
from flows.report.charts import against, histogram, intervals, scatter, shares, trait_edges
from flows.report.drawing import Drawing
from flows.report.summary import MOST_VIDEOS, Summary, noteworthy
from flows.report.tables import Column, Table, numbers, of_screen
from flows.session.console import counted
from fusion.traits import TRAITS
from fusion.uncertainty.intervals import Uncertainty
from storage.files.paths import StorePath
from storage.tables.scores import QUALITY_FACTS

CORRELATION_NEEDS = 3
LETTERS_OF_EXAMPLE = 40  # one line each, so that rows stay low on narrow screens
FLAGS = {
    "face_coverage": "the face was seen in too few frames",
    "few_tokens": "too few face crops or windows of motion",
    "wide_interval": "the interval is as wide as without the video",
    "useless_model": "the model is no better than the mean of the labels",
}


def outcome(summary: Summary) -> Drawing:
    """Draw the outcome of all videos."""
    parts = [
        ("scored", len(summary.names) - summary.flagged),
        ("scored but flagged", summary.flagged),
        ("rejected", summary.refused),
        ("not yet scored", summary.unscored),
        ("not yet extracted", summary.unextracted),
    ]
    return shares("Outcome of the videos", parts)


def flags(summary: Summary) -> Table:
    """List the reasons to abstain."""
    rows = [(code, FLAGS.get(code, ""), *_part(count, len(summary.names))) for code, count in summary.flags().items()]
    columns = (Column("reason", "code"), Column("meaning"), *numbers("videos", "share"))
    return Table("flags", "Scores that should not be used, by reason; one score may have several", columns, rows)


def refusals(summary: Summary) -> Table:
    """List the rejected videos by reason."""
    rows = [
        (reason, entry.message, *_part(entry.count, summary.videos), entry.stage, tuple(map(_end_of, entry.examples)))
        for reason, entry in summary.refusals.items()
    ]
    columns = (
        Column("reason", "code"),
        Column("message of the first"),
        *numbers("videos", "share"),
        Column("stage"),
        Column("examples", "codes"),
    )
    return Table("refusals", "Videos that were rejected, by reason", columns, rows)


def coverage_charts(summary: Summary) -> list[Drawing]:
    """Draw the face coverage and the numbers of tokens of the videos."""
    return [
        histogram("Face coverage", summary.coverage, np.linspace(0, 1, 21), "share of frames with the face"),
        *(_token_chart(kind, summary.tokens[:, place]) for place, kind in enumerate(("Face", "Motion"))),
    ]


def material(summary: Summary) -> Table:
    """List the quality of the scored videos."""
    rows = []
    for name, fact in QUALITY_FACTS.items():
        known = summary.facts[name][~np.isnan(summary.facts[name])]
        figures = [f"{value:.4g}" for value in np.quantile(known, [0, 0.05, 0.5, 0.95, 1])] if len(known) else ["-"] * 5
        rows.append((name, fact.description, f"{len(known):,}", *figures))
    headings = ("videos", "min", "5%", "median", "95%", "max")
    columns = (Column("column", "code"), Column("meaning"), *numbers(*headings))
    return Table("material", "Known quality of the scored videos", columns, rows)


def trait_charts(summary: Summary) -> list[Drawing]:
    """Draw a histogram per trait, all on one scale."""
    edges = trait_edges(summary.scores)
    return [
        histogram(trait.capitalize(), values, edges, "score")
        for trait, values in zip(TRAITS, summary.scores.T, strict=True)
    ]


def trait_statistics(summary: Summary) -> Table:
    """List mean, spread and quantiles of each trait."""
    scores = summary.scores.astype(np.float64)
    outside = ((scores < 0) | (scores > 1)).mean(axis=0)
    measures = [scores.mean(axis=0), scores.std(axis=0), *np.quantile(scores, [0, 0.05, 0.5, 0.95, 1], axis=0)]
    rows = [
        (trait, *(f"{values[place]:.3f}" for values in measures), f"{outside[place]:.1%}")
        for place, trait in enumerate(TRAITS)
    ]
    headings = ("mean", "sd", "min", "5%", "median", "95%", "max", "outside 0 to 1")
    caption = (
        f"Scores of {counted(len(scores), 'video')}. Labels lie between 0 and 1; scores are not clipped to that range."
    )
    return Table("statistics", caption, (Column("trait"), *numbers(*headings)), rows)


def correlations(summary: Summary) -> Table | None:
    """List Pearson's correlation of each two traits; None if there are too few scores, or a trait never varies."""
    scores = summary.scores.astype(np.float64)
    if len(scores) < CORRELATION_NEEDS or (scores.std(axis=0) < 1e-9).any():
        return None
    rows = [
        (trait, *(f"{value:.2f}" for value in values))
        for trait, values in zip(TRAITS, np.asarray(np.corrcoef(scores.T)).tolist(), strict=True)
    ]
    columns = (Column("trait"), *numbers(*TRAITS))
    return Table("correlations", "Pearson correlation between the scores of two traits", columns, rows)


def quality(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """List the model's measures on unseen people; None if there are none."""
    if (unseen := metadata.get("unseen")) is None:
        return None
    columns = (Column("trait"), *(Column(name, "number") for name in model_quality.MEASURES.values()))
    caption = f"Measured on {model_quality.measured_in_words(metadata)}"
    table = Table("quality", caption, columns, [tuple(row) for row in model_quality.figures(unseen)])
    charts, shown = [], 0
    if (sample := unseen.get("sample")) is not None:  # a model from elsewhere has none
        both = np.array([sample["scores"], sample["labels"]])
        edges = min(0.0, float(both.min())), max(1.0, float(both.max()))
        charts = [
            scatter(trait.capitalize(), scores, labels, edges)
            for trait, scores, labels in zip(TRAITS, sample["scores"], sample["labels"], strict=True)
        ]
        shown = len(sample["scores"][0])
    gain = model_quality.gain_in_words(metadata)
    return {
        "table": table,
        "gain": gain,
        "references": model_quality.REFERENCES,
        "scatters": charts,
        "shown": shown,
    }


def search(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Compare the settings that a search chose with those given; None if there was no search."""
    if found is None:
        return None
    columns = (Column("settings"), *(Column(name, "number") for name in model_quality.MEASURES.values()))
    caption = "Mean over traits on people who had no part in the choice of settings, with 95% intervals over people"
    rows = [tuple(row) for row in model_quality.search_figures(found)]
    return {"table": Table("search", caption, columns, rows), "result": model_quality.search_in_words(found)}


def calibration(uncertainty: Uncertainty, summary: Summary) -> dict[str, Any] | None:
    """Describe the widths of intervals and their coverage on unseen people; None without a calibration."""
    found = uncertainty.calibration
    if found is None:
        return None
    own = summary.widths.mean(axis=0) / 2 if summary.widths is not None else None
    rows = [
        (
            trait,
            f"{found.half_width[place]:.3f}",
            f"{found.blind_half_width[place]:.3f}",
            f"{found.half_width[place] / found.blind_half_width[place]:.2f}",
            "-" if own is None else f"{own[place]:.3f}",
        )
        for place, trait in enumerate(TRAITS)
    ]
    columns = (Column("trait"), *numbers("half width", "without any video", "ratio", "mean of these videos"))
    caption = f"Half widths of the {uncertainty.settings.confidence:.0%} intervals, on the scale of the labels"
    return {
        "found": found,
        "confidence": uncertainty.settings.confidence,
        "table": Table("widths", caption, columns, rows),
        "reliability": uncertainty.reliability,
        "coverage": _coverage_charts(uncertainty),
        "scores": _score_charts(uncertainty),
    }


def evaluation(root: StorePath, families: Families) -> dict[str, Any] | None:
    """Describe the store's last evaluation; None without one."""
    results = latest_evaluation(root)
    if results is None:
        return None
    features = results["features"]
    shown = [*evaluation_tables(results), every_figure(results)]
    tables = [of_screen(f"evaluation-{place}", table) for place, table in enumerate(shown)]
    return {
        "results": results,
        "same_features": (features["static"], features["dynamic"]) == (families.static.key, families.dynamic.key),
        "charts": [_measure(results, metric, marked) for metric, marked in (("one_minus_mae", None), ("ccc", 0.0))],
        "tables": tables,
    }


def drifts(root: StorePath, model: ModelReference) -> list[tuple[Table, str]]:
    """Compare the model's scores with the previous version's, and its last run with earlier runs; with remarks."""
    tables = [drift_table(drift) for drift in drifts_of(root, model)]
    return [(of_screen(f"drift-{place}", table), str(table.caption)) for place, table in enumerate(tables)]


def stages(extraction: ExtractReport | None) -> Table | None:
    """List the time that the last extraction spent in each stage."""
    if extraction is None or not sum(extraction.seconds.values()):
        return None
    total = sum(extraction.seconds.values())
    rows = [
        (name, f"{extraction.seconds[name]:,.1f}", f"{extraction.seconds[name] / total:.0%}")
        for name in STAGES
        if name in extraction.seconds
    ]
    columns = (Column("stage"), *numbers("seconds of work", "share"))
    return Table("stages", "Seconds of work of all processes by stage; stages overlap", columns, rows)


def videos(summary: Summary) -> Table:
    """List all scored videos of a small archive; of a larger one, those worth a look, and why."""
    rows: list[tuple[str, ...]] = []
    total = len(summary.names)
    listed = noteworthy(summary) if total > MOST_VIDEOS else [(row, "") for row in range(total)]
    for row, why in listed:
        width = "-" if summary.widths is None else f"{summary.widths[row].mean():.3f}"
        facts = *(f"{value:.3f}" for value in summary.scores[row]), f"{summary.coverage[row]:.2f}", width
        rows.append((summary.names[row], *facts, summary.abstain[row] or "-", *([why] if why else [])))
    columns = [Column("video", "code"), *numbers(*TRAITS, "face coverage", "interval width"), Column("flags")]
    if total > MOST_VIDEOS:
        return Table(
            "videos",
            f"The {len(rows):,} most noteworthy of {total:,} scored",
            [*columns, Column("why listed")],
            rows,
        )
    return Table("videos", f"All scored videos ({total:,})", columns, rows)


def _end_of(name: str) -> str:
    return name if len(name) <= LETTERS_OF_EXAMPLE else f"\N{HORIZONTAL ELLIPSIS}{name[1 - LETTERS_OF_EXAMPLE :]}"


def _part(count: int, total: int) -> tuple[str, str]:
    return f"{count:,}", f"{count / max(total, 1):.1%}"


def _token_chart(kind: str, counts: np.ndarray) -> Drawing:
    """Draw numbers of tokens, each at the centre of its bar, in about 20 bars at most."""
    low, high = int(counts.min()) - 1, int(counts.max()) + 1
    step = max(1, -(-(high - low + 1) // 20))
    edges = np.arange(low, high + step + 1, step) - 0.5
    return histogram(f"{kind} tokens", counts, edges, "tokens per video", x_ticks=min(5, len(edges) - 1))


def _coverage_charts(uncertainty: Uncertainty) -> list[Drawing]:
    found = uncertainty.reliability
    if found is None or not found.levels:
        return []
    charts = []
    for place, trait in enumerate(TRAITS):
        points = [(level, row[place]) for level, row in zip(found.levels, found.covered, strict=True)]
        words = ", ".join(f"{seen:.0%} at {level:.0%}" for level, seen in points)
        charts.append(against(trait.capitalize(), f"Labels inside intervals: {words}.", points, ("stated", "found")))
    return charts


def _score_charts(uncertainty: Uncertainty) -> list[Drawing]:
    found = uncertainty.reliability
    if found is None:
        return []
    charts = []
    for trait, scores, labels in zip(TRAITS, found.scores, found.labels, strict=True):
        points = list(zip(scores, labels, strict=True))
        words = ", ".join(f"score {score:.3f} label {label:.3f}" for score, label in points)
        charts.append(
            against(trait.capitalize(), f"Means of groups of clips: {words}.", points, ("mean score", "mean label"))
        )
    return charts


def _measure(results: Mapping[str, Any], metric: str, marked: float | None) -> Drawing:
    rows: dict[str, dict[str, tuple[float, float, float]]] = {}
    for protocol, found in results["protocols"].items():
        for predictor in found["predictors"]:
            cell = predictor["metrics"][metric]["mean"]
            if cell["value"] is not None:
                ends = (cell[end] if cell[end] is not None else cell["value"] for end in ("low", "high"))
                rows.setdefault(predictor["name"], {})[PROTOCOLS[protocol]] = (cell["value"], *ends)
    title = f"{MEASURES[metric]}, mean over traits, with 95% intervals over people"
    return intervals(title, MEASURES[metric], list(rows.items()), marked)

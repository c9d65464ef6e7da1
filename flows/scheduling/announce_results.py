"""The results of a run as artifacts on Prefect's pages: a summary, the refused videos, the report."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from flows.archive import model_quality
from flows.archive.drift import drift_table
from flows.archive.families import families_of
from flows.archive.models import ModelReference
from flows.archive.outcomes import without_result
from flows.config.settings import RunConfig
from flows.extraction.jobs import ExtractReport
from flows.pipeline.announce import Pages, nothing_new
from flows.pipeline.export import ExportReport
from flows.pipeline.run import RunReport
from flows.pipeline.score import RescoreReport
from storage.maintenance.survey import still_refused
from storage.models.serializer import ModelSerializer

LONGEST_TABLE = 200  # rows


def show_extraction(config: RunConfig, report: ExtractReport | None) -> None:
    """Publish counts of videos, if the extraction finished, and a table of the refused ones."""
    pages = Pages()
    if report is not None:
        pages.markdown("extraction", _rows(report.rows()), "Extracted features")
        _tell_if_empty(config, report)
    _show_refused(pages, config)


def show_model(model: ModelReference) -> None:
    """Publish which model was trained, or existed already."""
    Pages().markdown("model", _rows([("model", str(model))]), "Trained model")


def show_scores(report: ExportReport) -> None:
    """Publish the path of the scores, and how many videos have none and why."""
    Pages().markdown("scores", _rows(_exported(report)), "Exported scores")


def show_rescoring(report: RescoreReport) -> None:
    """Publish how many videos were scored, and how the scores moved, trait by trait."""
    pages = Pages()
    rows = [("model", str(report.model)), ("scored now", f"{report.scored_now:,}")]
    pages.markdown("rescoring", _rows(rows), "Scores from the cache")
    for number, drift in enumerate(report.drifts, start=1):
        table = drift_table(drift)
        headings = [str(column.header) for column in table.columns]
        cells = zip(*(column.cells for column in table.columns), strict=True)
        traits = [dict(zip(headings, map(str, row), strict=True)) for row in cells]
        pages.table(f"drift-{number}", traits, f"{table.title}: {table.caption}")


def show_run(config: RunConfig, report: RunReport) -> None:
    """Publish the key figures of a run from videos to the report, with a link to it if a web server serves it."""
    pages = Pages()
    rows = [] if report.extraction is None else report.extraction.rows()
    rows += [("model", str(report.model)), ("scored now", f"{report.scored_now:,}"), *_exported(report.export)]
    weights = [("weights", f"{config.weights}, a trial only" if config.weights == "random" else config.weights)]
    metadata = ModelSerializer(config.store.path).metadata(report.model.name, report.model.version)
    unseen = metadata.get("unseen")
    if unseen is not None:
        rows.append(("quality of the model", model_quality.gain_in_words(metadata)))
    pages.markdown("summary", _rows([*rows, *weights, ("report", str(report.report))]), "Summary of the run")
    if unseen is not None:
        headings = ["trait", *model_quality.MEASURES.values()]
        measures = [dict(zip(headings, row, strict=True)) for row in model_quality.figures(unseen)]
        pages.table("quality", measures, f"Quality of {report.model} on unseen people")
    if (served_at := config.report.base_url) is not None:
        pages.link("report", f"{served_at.rstrip('/')}/{quote(report.report.name)}", "Report")
    _show_refused(pages, config)
    if report.extraction is not None:
        _tell_if_empty(config, report.extraction)


def _tell_if_empty(config: RunConfig, report: ExtractReport) -> None:
    if report.is_empty:
        nothing_new(config.store.path)


def _show_refused(pages: Pages, config: RunConfig) -> None:
    key = families_of(config).features
    store = config.store.path
    still = still_refused(store)
    refused = [row for row in still if row.key == key]
    shown = [
        {"video": row.video_id, "stage": row.stage, "reason": row.reason, "message": row.message, "tries": row.attempts}
        for row in refused[:LONGEST_TABLE]
    ]
    if shown:
        part = f", the first {len(shown)} of {len(refused):,}" if len(shown) < len(refused) else ""
        pages.table("rejected-videos", shown, f"Rejected videos{part}")


def _exported(report: ExportReport) -> list[tuple[str, str]]:
    return [("with a score", f"{report.scored:,}"), *without_result(report.reasons), ("scores", str(report.path))]


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    # As code, so that no name of a file is taken for markup.
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | `{value.replace('`', ' ')}` |" for name, value in rows)])

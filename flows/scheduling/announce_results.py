"""The results of a run as artifacts on Prefect's pages: a summary, the refused videos, the report."""

from __future__ import annotations

from collections.abc import Iterable

from flows.archive.families import families_of
from flows.archive.models import ModelReference
from flows.config.settings import RunConfig
from flows.extraction.jobs import ExtractReport
from flows.pipeline import announce
from flows.pipeline.export import ExportReport
from flows.pipeline.run import RunReport
from flows.pipeline.score import RescoreReport
from flows.session.console import counted
from storage.maintenance.survey import still_refused
from storage.shards.store import FeatureStore
from storage.tables.failures import FailureLog
from storage.tables.seen import SeenVideos

LONGEST_TABLE = 200  # rows


def show_extraction(config: RunConfig, report: ExtractReport | None) -> None:
    """Publish counts of videos, if the extraction finished, and a table of the refused ones."""
    if report is not None:
        announce.markdown("extraction", _rows(_extracted(report)), "Extracted features")
    _show_refused(config)


def show_model(model: ModelReference) -> None:
    """Publish which model was trained, or existed already."""
    announce.markdown("model", _rows([("model", str(model))]), "Trained model")


def show_scores(report: ExportReport) -> None:
    """Publish the path of the scores, and how many videos have none and why."""
    announce.markdown("scores", _rows(_exported(report)), "Exported scores")


def show_rescoring(report: RescoreReport) -> None:
    """Publish how many videos were scored, and how the scores moved, trait by trait."""
    rows = [("model", str(report.model)), ("scored now", f"{report.scored_now:,}")]
    announce.markdown("rescoring", _rows(rows), "Scores from the cache")
    for number, drift in enumerate(report.drifts, start=1):
        traits = [
            {
                "trait": row.trait,
                "mean before": round(row.previous_mean, 4),
                "mean now": round(row.mean, 4),
                "sd before": round(row.previous_sd, 4),
                "sd now": round(row.sd, 4),
                "PSI": round(row.psi, 4),
                "KS": round(row.ks, 4),
                "rank correlation": None if row.rank_correlation is None else round(row.rank_correlation, 4),
            }
            for row in drift.traits
        ]
        title = (
            f"{drift.current} ({counted(drift.videos, 'video')}) beside {drift.previous} ({drift.previous_videos:,})"
        )
        announce.table(f"drift-{number}", traits, title)


def show_run(config: RunConfig, report: RunReport) -> None:
    """Publish the results of a run from videos to the report, with a link to it."""
    rows = [] if report.extraction is None else _extracted(report.extraction)
    rows += [("model", str(report.model)), ("scored now", f"{report.scored_now:,}"), *_exported(report.export)]
    weights = [("weights", f"{config.weights}, a trial only" if config.weights == "random" else config.weights)]
    announce.markdown("summary", _rows([*rows, *weights, ("report", str(report.report))]), "Summary of the run")
    announce.link("report", report.report, "Report")
    _show_refused(config)


def _show_refused(config: RunConfig) -> None:
    key = families_of(config).features
    store = config.store.path
    still = still_refused(FailureLog(store), FeatureStore(store), SeenVideos(store).current())
    refused = [row for row in still if row.key == key]
    shown = [
        {"video": row.video_id, "stage": row.stage, "reason": row.reason, "message": row.message, "tries": row.attempts}
        for row in refused[:LONGEST_TABLE]
    ]
    if shown:
        title = "Refused videos" + (f", the first {len(shown)} of {len(refused):,}" * (len(shown) < len(refused)))
        announce.table("refused-videos", shown, title)


def _extracted(report: ExtractReport) -> list[tuple[str, str]]:
    counts = {
        "extracted": report.extracted,
        "refused": report.failed,
        "in the store before": report.cached,
        "done by other runs": report.by_others,
        "refused before": report.refused_before,
    }
    return [(name, f"{count:,}") for name, count in counts.items()]


def _exported(report: ExportReport) -> list[tuple[str, str]]:
    reasons = [(f"without a score: {reason}", f"{count:,}") for reason, count in report.reasons.items()]
    return [("with a score", f"{report.scored:,}"), *reasons, ("scores", str(report.path))]


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    # As code, so that no name of a file is taken for markup.
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | `{value.replace('`', ' ')}` |" for name, value in rows)])

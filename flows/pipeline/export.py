"""The flow `export`: scores as CSV or Parquet, with one row per video of the archive, and a data package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flows.archive.families import Families, families_of, networks_of
from flows.archive.model_card import INTENDED, limits
from flows.archive.models import ModelReference, without_clips
from flows.archive.outcomes import NOT_SCORED, export_rows, how_to_list, rejected, without_result
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.pipeline.prepare import chosen_columns
from flows.pipeline.steps import step
from flows.session import console
from storage.exports.columns import Row, Unscored, trait_tables
from storage.exports.package import write_export
from storage.files.paths import StorePath
from storage.models.provenance import program_version
from storage.models.serializer import ModelSerializer


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The path of the file, the number of scored videos in it, and of others by reason."""

    path: StorePath
    scored: int
    reasons: dict[str, int]


@step("export")
def export(config: RunConfig, videos: Archive, model: ModelReference) -> ExportReport:
    """Write the file to `config.out`, or to STORE/exports/<model>-<version>.csv.

    Raises:
        UserError: a column is unknown, or `config.out` ends in neither .csv nor .parquet.
    """
    columns = chosen_columns(config.export, config.out, str(model))
    metadata = ModelSerializer(config.store.path).metadata(model.name, model.version)
    families = families_of(config)
    path = config.out
    if path is None:
        path = config.store.path / "exports" / f"{model.name}-{model.version}.csv"
    reasons: Counter[str] = Counter()
    undated = 0

    def chosen() -> Iterator[Row]:
        nonlocal undated
        for row in export_rows(config.store.path, families, videos, model):
            if config.export.bounded:
                # Only scores have a time.
                if isinstance(row, Unscored):
                    continue
                if row.scored_at is None:
                    undated += 1
                    continue
                if not config.export.holds(row.scored_at):
                    continue
            reasons[row.reason if isinstance(row, Unscored) else ""] += 1
            yield row

    tables = trait_tables(chosen(), columns)
    write_export(path, tables, columns, lambda: _about(config, families, model, metadata, reasons, videos.unread))
    scored = reasons.pop("", 0)
    exported = ExportReport(path, scored, dict(reasons))
    said = [f"Export: {console.counted(scored, 'video')} scored"]
    said += [f"{name} {value}" for name, value in without_result(reasons)]
    if NOT_SCORED in reasons:
        said.append(f"`traitline score --store {config.store.path} --model {model}` scores those that are {NOT_SCORED}")
    if rejected(reasons):
        said.append(how_to_list(config.store.path))
    console.say("; ".join(said))
    if undated:
        console.say(
            f"Export: left out {console.counted(undated, 'score')} whose time was not recorded; omit --since and "
            "--until to export all, or score again",
            style="yellow",
        )
    return exported


def _about(
    config: RunConfig,
    families: Families,
    model: ModelReference,
    metadata: dict[str, Any],
    reasons: Counter[str],
    unread: Mapping[str, str],
) -> dict[str, Any]:
    videos = reasons.total()
    used = (families.static, families.dynamic)
    times = {"since": config.export.since, "until": config.export.until}
    return {
        "title": f"Apparent personality traits of {console.counted(videos, 'video')} by {model}",
        "description": f"Intended for {INTENDED}. {' '.join(limits(metadata))} "
        "It has no licence of its own: the licences of the videos and of the labels apply.",
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "provenance": {
            "program": program_version(),
            "model": str(model),
            "model_metadata": without_clips(metadata),
            "weights": config.weights,
            "networks": networks_of(config),
            "features": {family.name: {"key": family.key, "settings": family.settings} for family in used},
            "scored_at": {name: time and time.isoformat() for name, time in times.items()},
            "videos": videos,
            "scored": reasons[""],
            "not_read": dict(unread),
            "without_a_score": {reason: count for reason, count in reasons.items() if reason},
        },
    }

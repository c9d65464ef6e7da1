"""The flow `export`: the trait CSV, one row for every video of the archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prefect import flow

from flows import console
from flows.config import RunConfig
from flows.families import Families, families_of
from flows.manifest import Archive, VideoFile
from flows.models import ModelReference
from fusion.traits import TRAITS
from storage.failures import Failure, FailureLog
from storage.paths import StorePath
from storage.scores import ScoreStore
from storage.trait_csv import TraitRow, write_trait_csv


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Where the CSV is and what is in it: number of scored videos, and of others by reason."""

    path: StorePath
    scored: int
    reasons: dict[str, int]


def trait_rows(
    config: RunConfig, families: Families, videos: Sequence[VideoFile], model: ModelReference
) -> Iterator[TraitRow]:
    """One row per video, in the order of the videos: its score, or why there is none."""
    keys = (families.static.key, families.dynamic.key)
    scores = {
        (row.video_id, row.video_sha256): row
        for row in ScoreStore(config.store.path).read(model.name, model.version)
        if (row.static_key, row.dynamic_key) == keys
    }
    failures = {
        (row.video_id, row.video_sha256): row
        for row in FailureLog(config.store.path).current()
        if row.key == families.features
    }
    for video in videos:
        which = (video.video_id, video.sha256)
        if which in scores:
            yield TraitRow.scored(scores[which], str(model))
        elif which in failures:
            yield TraitRow.failed(failures[which], str(model))
        else:
            # Nothing in the archive may go missing from the CSV, not even what no run has come to yet.
            waiting = Failure(*which, families.features, "extract", "not_extracted", "no run has come to it yet", 1)
            yield TraitRow.failed(waiting, str(model))


@flow(name="export", validate_parameters=False)
def export(config: RunConfig, videos: Archive, model: ModelReference) -> ExportReport:
    """Write the CSV to `config.out`, or to STORE/exports/<model>-<version>.csv."""
    path = config.out
    if path is None:
        path = config.store.path / "exports" / f"{model.name}-{model.version}.csv"
    reasons: Counter[str] = Counter()

    def counted() -> Iterator[TraitRow]:
        for row in trait_rows(config, families_of(config), videos, model):
            reasons[row.reason] += 1
            yield row

    write_trait_csv(path, counted(), trait_names=TRAITS)
    scored = reasons.pop("", 0)
    others = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    console.say(f"Export: {scored} videos scored" + (f"; without a score: {others}" if others else ""))
    return ExportReport(path, scored, dict(reasons))

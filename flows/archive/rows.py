"""One row for every video of the archive: its score, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flows.archive.families import Families
from flows.archive.models import ModelReference
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from storage.exports.rows import TraitRow
from storage.tables.failures import Failure, FailureLog
from storage.tables.scores import ScoreStore


def trait_rows(
    config: RunConfig, families: Families, videos: Sequence[VideoFile], model: ModelReference
) -> Iterator[TraitRow]:
    """One row per video, in the order of the videos: its score, or why there is none.

    Scores are read in step with the videos, both in order of their ids, and are not kept.
    """
    keys = (families.static.key, families.dynamic.key)
    failures = {
        (row.video_id, row.video_sha256): row
        for row in FailureLog(config.store.path).current()
        if row.key == families.features
    }
    scores = ScoreStore(config.store.path).read(model.name, model.version)
    score = next(scores, None)
    for video in videos:
        which = (video.video_id, video.sha256)
        while score is not None and score.video_id < video.video_id:
            score = next(scores, None)
        if (
            score is not None
            and (score.video_id, score.video_sha256) == which
            and (score.static_key, score.dynamic_key) == keys
        ):
            yield TraitRow.scored(score, str(model))
        elif which in failures:
            yield TraitRow.failed(failures[which], str(model))
        else:
            # Nothing in the archive may go missing from the file, not even what no run has come to yet.
            why = ("extract", "not_extracted", "no run has come to it yet")
            if not video.sha256:
                why = ("decode", "unreadable", "the file cannot be read")
            yield TraitRow.failed(Failure(*which, families.features, *why, 1), str(model))

"""One row for every video of the archive: its score, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flows.archive.families import Families
from flows.archive.models import ModelReference
from flows.archive.videos import VideoFile
from storage.exports.columns import Row, Unscored
from storage.files.paths import StorePath
from storage.tables.failures import FailureLog
from storage.tables.scores import ScoreStore

NOT_EXTRACTED = "not_extracted"


def export_rows(
    store: str | StorePath, families: Families, videos: Sequence[VideoFile], model: ModelReference
) -> Iterator[Row]:
    """Yield one row per video, in the order of the videos, so that no video of the archive is missing from an export.

    Scores are read in step with the videos, both in order of their ids, and are not kept.
    """
    refused = FailureLog(store).refused(families.features)
    scores = ScoreStore(store).read(model.name, model.version)
    score = next(scores, None)
    for video in videos:
        which = (video.video_id, video.sha256)
        while score is not None and score.video_id < video.video_id:
            score = next(scores, None)
        if score is not None and (score.video_id, score.video_sha256) == which and score.features == families.features:
            yield score
            continue
        reason = NOT_EXTRACTED if video.sha256 else "unreadable"
        if which in refused:
            reason = refused[which].reason
        yield Unscored(*which, reason, families.features)

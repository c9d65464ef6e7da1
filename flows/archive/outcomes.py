"""The outcome of each video: its score, or why there is none. Refusals are reported before anything about labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from flows.archive.clips import ready_videos
from flows.archive.families import Families, families_of, lacking_features
from flows.archive.models import ModelReference, chosen_model
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.session.console import counted, tally
from flows.session.errors import UserError
from storage.exports.columns import Row, Unscored
from storage.files.paths import StorePath
from storage.shards.store import FeatureStore
from storage.tables.failures import Failure, FailureLog
from storage.tables.manifest import hashes
from storage.tables.scores import ScoreStore

NOT_EXTRACTED = "not_extracted"
NOT_SCORED = "not_scored"


class AllRefusedError(UserError):
    """Every video was refused."""


def export_rows(
    store: StorePath, families: Families, videos: Sequence[VideoFile], model: ModelReference
) -> Iterator[Row]:
    """Yield one row per video, in the order of the videos.

    Scores and videos are both sorted by id and read in step, so that neither is kept in memory. A video without a score
    has the reason of its refusal, `NOT_SCORED` if the store has its features, or `NOT_EXTRACTED`.
    """
    refused = FailureLog(store).refused(families.features)
    places = cache(FeatureStore(store).manifest.places)  # read only if a video has no score
    scores = ScoreStore(store).read(model.name, model.version)
    score = next(scores, None)
    for video in videos:
        which = (video.video_id, video.sha256)
        while score is not None and score.video_id < video.video_id:
            score = next(scores, None)
        if score is not None and (score.video_id, score.video_sha256) == which and score.features == families.features:
            yield score
            continue
        hashed = [hashes([text]) for text in which]
        if all(places(family.key).has(*hashed).all() for family in (families.static, families.dynamic)):
            reason = NOT_SCORED
        elif which in refused:
            reason = refused[which].reason
        else:
            reason = NOT_EXTRACTED if video.sha256 else "unreadable"
        yield Unscored(*which, reason, families.features)


def refusals(root: StorePath, families: Families, videos: Iterable[VideoFile]) -> dict[VideoFile, Failure]:
    """Return the videos whose present bytes were refused with these settings and have no features, with the reasons."""
    failures = FailureLog(root).refused(families.features)
    refused = [video for video in videos if (video.video_id, video.sha256) in failures]
    ready = set(ready_videos(root, families, {video.video_id: video.sha256 for video in refused}))
    return {video: failures[video.video_id, video.sha256] for video in refused if video.video_id not in ready}


def refusal_reasons(root: StorePath, families: Families, videos: Iterable[VideoFile]) -> Counter[str]:
    """Count the refusals of these videos by reason."""
    return Counter(failure.reason for failure in refusals(root, families, videos).values())


def rejected(reasons: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers of those videos without a result that were refused, by reason."""
    return {reason: count for reason, count in reasons.items() if reason not in (NOT_SCORED, NOT_EXTRACTED)}


def without_result(reasons: Mapping[str, int]) -> list[tuple[str, str]]:
    """Describe numbers of videos without a result, rejected and others, as pairs of a heading and a text."""
    refused = rejected(reasons)
    rows = [("rejected", f"{sum(refused.values()):,}: {tally(refused)}")] if refused else []
    others = [(reason, count) for reason, count in reasons.items() if reason not in refused]
    return rows + [(reason.replace("_", " "), f"{count:,}") for reason, count in others]


def how_to_list(root: StorePath) -> str:
    """Return a hint at the command that lists refusals."""
    return f"`traitline failures list --store {root}` says why"


def without_features(root: StorePath, families: Families, videos: Sequence[VideoFile]) -> str:
    """Explain why none of these videos has features."""
    reasons = refusal_reasons(root, families, videos)
    refused, count = reasons.total(), counted(len(videos), "video")
    if not refused:
        return f"none of {count} has {lacking_features(root, families)}"
    if refused == len(videos):
        both = "the only video was" if refused == 1 else f"all {count} were"
        return f"{both} rejected ({tally(reasons)}); {how_to_list(root)}"
    return (
        f"none of {count} has features: {refused:,} rejected ({tally(reasons)}), {len(videos) - refused:,} not "
        f"extracted yet; {how_to_list(root)}"
    )


def model_for(config: RunConfig, videos: Sequence[VideoFile]) -> ModelReference:
    """Find the model for scoring these videos, as `flows.archive.models.chosen_model` does.

    Raises:
        UserError: there is no such model. If all videos were refused, so that none could be trained, the message says
            so first.
    """
    try:
        return chosen_model(config)
    except UserError as error:
        families = families_of(config)
        if refusal_reasons(config.store.path, families, videos).total() < len(videos):
            raise
        raise AllRefusedError(f"{without_features(config.store.path, families, videos)}; and {error}") from error

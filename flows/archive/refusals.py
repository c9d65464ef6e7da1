"""Why there is nothing to work on. Refusals and their reasons are reported before anything about labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from flows.archive.clips import ready_videos
from flows.archive.families import Families, families_of
from flows.archive.models import ModelReference, chosen_model
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.session.console import counted
from flows.session.errors import UserError
from storage.files.paths import StorePath
from storage.tables.failures import FailureLog


class AllRefusedError(UserError):
    """Every video was refused."""


def refusal_reasons(config: RunConfig, families: Families, videos: Iterable[VideoFile]) -> Counter[str]:
    """Count, by reason, the videos whose present bytes were refused with these settings and have no features."""
    failures = FailureLog(config.store.path).refused(families.features)
    refused = {video.video_id: video.sha256 for video in videos if (video.video_id, video.sha256) in failures}
    for video_id in ready_videos(config, families, refused):
        del refused[video_id]
    return Counter(failures[which].reason for which in refused.items())


def in_words(reasons: Mapping[str, int]) -> str:
    """Format the reasons with their counts, the most frequent first, as in "8 no_face, 2 truncated"."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(reasons).most_common())


def how_to_list(root: StorePath) -> str:
    """Return a hint at the command that lists refusals."""
    return f"`traitline failures list --store {root}` says why"


def without_features(config: RunConfig, families: Families, videos: Sequence[VideoFile]) -> str:
    """Explain why none of these videos has features."""
    reasons = refusal_reasons(config, families, videos)
    refused, count = reasons.total(), counted(len(videos), "video")
    if not refused:
        return f"none of {count} has features that were made with these settings; run `traitline extract` first"
    if refused == len(videos):
        both = "the only video was" if refused == 1 else f"all {count} were"
        return f"{both} refused ({in_words(reasons)}); {how_to_list(config.store.path)}"
    return (
        f"none of {count} has features: {refused:,} refused ({in_words(reasons)}), {len(videos) - refused:,} not "
        f"extracted yet; {how_to_list(config.store.path)}"
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
        if refusal_reasons(config, families, videos).total() < len(videos):
            raise
        raise AllRefusedError(f"{without_features(config, families, videos)}; and {error}") from error

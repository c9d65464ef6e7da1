"""The labels of a run, and messages about labels and videos that do not match."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from flows.archive.families import Families, families_of
from flows.archive.outcomes import AllRefusedError, refusal_reasons, without_features
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.console import counted
from flows.session.errors import UserError
from fusion.errors import some_of
from fusion.labels.first_impressions import annotation_files
from fusion.labels.matching import LabelledVideos, match_labels
from fusion.labels.read import Labels, read_labels


def labels_of(config: RunConfig) -> tuple[Path, Labels]:
    """Return the path and the contents of the labels that the settings name.

    Raises:
        UserError: none are named.
        fusion.errors.LabelError: they cannot be used.
    """
    if config.labels is None:
        raise UserError("labels are needed; give them with --labels FILE")
    return config.labels, read_labels(config.labels, invert_neuroticism=config.invert_neuroticism)


def check_labels_meet(config: RunConfig, videos: Sequence[VideoFile]) -> None:
    """Check, before hours of work, that at least one label belongs to a video; the weights of `config` are settled.

    Raises:
        UserError: no label does.
        fusion.errors.LabelError: the labels cannot be used.
    """
    _, labels = labels_of(config)
    matched = match_labels(labels, [video.video_id for video in videos])
    if not matched.video_ids:
        raise nothing_labelled(config, families_of(config), videos, labels, matched)


def nothing_labelled(
    config: RunConfig, families: Families, videos: Sequence[VideoFile], labels: Labels, matched: LabelledVideos
) -> UserError:
    """Build the error if no label belongs to a video with features; its message names the true cause."""
    wanted = set(matched.video_ids)
    reasons = refusal_reasons(config.store.path, families, videos)
    if reasons.total() == len(videos):
        return AllRefusedError(without_features(config.store.path, families, videos))
    if not wanted:
        refused = f"{counted(reasons.total(), 'video')} rejected ({console.tally(reasons)}), and " if reasons else ""
        return UserError(refused + _no_match(config.labels, labels, [video.video_id for video in videos]))
    labelled = [video for video in videos if video.video_id in wanted]
    return UserError(f"no labelled video has features: {without_features(config.store.path, families, labelled)}")


def _no_match(path: Path | None, labels: Labels, video_ids: Sequence[str]) -> str:
    return (
        f"none of {counted(len(video_ids), 'video')}, such as {some_of([video_ids[0]])}, has a label in {path} "
        f"({counted(len(labels), 'label')}, such as {some_of([labels.names[0]])}); labels are matched by path relative "
        "to the videos folder, or by file name"
    )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a label file in hex; for a folder of First Impressions' files, that of their digests."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    lines = [f"{digest_of(file)}  {file.name}\n" for file in annotation_files(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def report_unmatched(title: str, matched: LabelledVideos) -> None:
    """Report videos without a label, and labels without a video.

    If all videos are labelled, labels without a video are reported only if they are few: people often use the labels of
    a whole data set for some of its clips.
    """
    found, unlabelled, unused = (len(names) for names in (matched.video_ids, matched.unlabelled, matched.unused))
    videos = counted(found + unlabelled + len(matched.ambiguous), "video")
    if matched.ambiguous:
        console.say(
            f"{title}: {len(matched.ambiguous):,} of {videos} got no label, because another video or label has the "
            f"same file name: {some_of(list(matched.ambiguous))}; name them by path in the labels"
        )
    if unlabelled:
        others = f" (labels without a video: {some_of(list(matched.unused), 2)})" if unused else ""
        have = "has" if unlabelled == 1 else "have"
        console.say(f"{title}: {unlabelled:,} of {videos} {have} no label: {some_of(list(matched.unlabelled))}{others}")
    elif 0 < unused < found:
        console.say(f"{title}: {counted(unused, 'label')} without a video: {some_of(list(matched.unused))}")

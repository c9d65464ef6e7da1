"""The label file of a run, and what a person is told about labels and videos that do not meet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from flows import console
from flows.config import RunConfig
from flows.errors import UserError
from fusion.errors import some_of
from fusion.first_impressions import annotation_files
from fusion.labels import Labels, read_labels
from fusion.matching import LabelledVideos, match_labels


def labels_of(config: RunConfig) -> tuple[Path, Labels]:
    """Read the labels that the settings name; returns their path too.

    Raises:
        UserError: none are named.
        fusion.errors.LabelError: they cannot be used.
    """
    if config.labels is None:
        raise UserError("labels are needed; give them with --labels FILE")
    return config.labels, read_labels(config.labels, invert_neuroticism=config.invert_neuroticism)


def check_labels_meet(config: RunConfig, video_ids: Sequence[str]) -> None:
    """Make sure, before hours of work, that a label belongs to a video.

    Raises:
        UserError: none does.
        fusion.errors.LabelError: the labels cannot be used.
    """
    path, labels = labels_of(config)
    if not match_labels(labels, video_ids).video_ids:
        raise UserError(
            f"none of the {len(labels)} labels in {path} belongs to a video of {config.videos}; "
            "labels are matched by path relative to the videos folder, or by file name"
        )


def digest_of(path: Path) -> str:
    """SHA-256 of a label file, in hex; of a folder of First Impressions' files, over `sha256sum` of each."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    lines = [f"{digest_of(file)}  {file.name}\n" for file in annotation_files(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def say_unmatched(title: str, matched: LabelledVideos) -> None:
    """Tell which videos got no label and which labels no video, by number and name; nothing where all meet."""
    for names, what in (
        (matched.unlabelled, "videos have no label"),
        (matched.ambiguous, "videos share their file name with another, so none of them got the label"),
        (matched.unused, "labels belong to no video"),
    ):
        if names:
            console.say(f"{title}: {len(names)} {what}: {some_of(list(names))}")

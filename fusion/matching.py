"""Which label belongs to which video, when label files name clips more loosely than folders do."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from fusion.labels import Labels
from fusion.parts import Part, part_of_path


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVideos:
    """The outcome of a match.

    Attributes:
        video_ids: M videos with a label, in the order given.
        values: float32 [M, 5], their labels.
        subjects: M subjects.
        parts: M parts of the official split, from the label file, else from the videos' folders; None where a video
            has none.
        unlabelled: videos without a label.
        ambiguous: videos that got no label because another video, or another label, has the same file name.
        unused: names in the label file that went to no video.
    """

    video_ids: tuple[str, ...]
    values: np.ndarray
    subjects: tuple[str, ...]
    parts: tuple[Part | None, ...]
    unlabelled: tuple[str, ...]
    ambiguous: tuple[str, ...]
    unused: tuple[str, ...]


def match_labels(labels: Labels, video_ids: Sequence[str]) -> LabelledVideos:
    """Give each video its label: by its whole id first, else by its file name, else by its name without the ending.

    Last of all the same once more without regard to spaces around a name and to the Unicode normal form of its letters,
    for file systems and spreadsheets change both.

    The looser rules apply only where one video and one label have the name, counted among all of both: of `a/x.mp4`
    and `b/x.mp4` neither gets the label `x.mp4`, for nothing says which of them was meant.

    Args:
        labels: the label file.
        video_ids: POSIX paths relative to the videos' folder, each once, with ending.
    """
    row_of_video: dict[int, int] = {}
    used: set[int] = set()
    plain_labels, plain_videos = [_plain(name) for name in labels.names], [_plain(name) for name in video_ids]
    for label_names, video_names in ((labels.names, video_ids), (plain_labels, plain_videos)):
        if len(row_of_video) == len(video_ids) or len(used) == len(labels):
            break
        for key_of_video, key_of_label in (
            (str, str),
            (_base_name, _base_name),
            (_stem, _base_name),  # a label without an ending, as in "-AmMDnVl4s8.003"
            (_stem, _stem),
        ):
            row_of_key = _unique(label_names, key_of_label)
            for key, video in _unique(video_names, key_of_video).items():
                row = row_of_key.get(key)
                if row is not None and video not in row_of_video and row not in used:
                    row_of_video[video] = row
                    used.add(row)
    label_keys = {key(name) for name in plain_labels for key in (_base_name, _stem)}
    unmatched = [name for video, name in enumerate(video_ids) if video not in row_of_video]
    ambiguous = {name for name in unmatched if label_keys & {_base_name(_plain(name)), _stem(_plain(name))}}
    videos = sorted(row_of_video)
    rows = [row_of_video[video] for video in videos]
    return LabelledVideos(
        video_ids=tuple(video_ids[video] for video in videos),
        values=labels.values[rows],
        subjects=tuple(labels.subjects[row] for row in rows),
        parts=tuple(
            part_of_path(video_ids[video]) if labels.parts is None else labels.parts[row]
            for video, row in zip(videos, rows, strict=True)
        ),
        unlabelled=tuple(name for name in unmatched if name not in ambiguous),
        ambiguous=tuple(name for name in unmatched if name in ambiguous),
        unused=tuple(name for row, name in enumerate(labels.names) if row not in used),
    )


def _unique(names: Sequence[str], key: Callable[[str], str]) -> dict[str, int]:
    """Index by key, without the keys that several names share."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        found[key(name)].append(index)
    return {name: indices[0] for name, indices in found.items() if len(indices) == 1}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _base_name(name: str) -> str:
    return PurePosixPath(name).name


def _stem(name: str) -> str:
    """The file name without its ending; ".003" is a clip's number and no ending."""
    path = PurePosixPath(name)
    return path.stem if any(letter.isalpha() for letter in path.suffix) else path.name

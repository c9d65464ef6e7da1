"""Matching of labels and videos. Tables name clips more loosely than folders do."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fusion.labels.parts import Part, part_of_path
from fusion.labels.read import Labels

# In the trait CSV, apostrophes precede text that a spreadsheet would run as a formula, also within a cell.
_GUARD = re.compile("^'+|'+(?=[=+\\-@\uff1d\uff0b\uff0d\uff20])")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVideos:
    """The outcome of a match.

    Attributes:
        values: float32 [M, 5], their labels.
        parts: M parts of the official split, from the label file, else from the videos' folders; None for a video
            without one.
        unlabelled: videos without a label.
        ambiguous: videos that got no label because another video, or another label, has the same file name.
        unused: names in the label file that match no video.
    """

    video_ids: tuple[str, ...]
    values: np.ndarray
    subjects: tuple[str, ...]
    parts: tuple[Part | None, ...]
    unlabelled: tuple[str, ...]
    ambiguous: tuple[str, ...]
    unused: tuple[str, ...]


def match_labels(labels: Labels, video_ids: Sequence[str]) -> LabelledVideos:
    """Find the label of each video, by its id, see `match_names`."""
    row_of_video = match_names(labels.names, video_ids)
    used = set(row_of_video.values())
    label_keys = {key for name in labels.names for key in _loosest(name)}
    unmatched = [name for video, name in enumerate(video_ids) if video not in row_of_video]
    ambiguous = {name for name in unmatched if not label_keys.isdisjoint(_loosest(name))}
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


def match_names(names: Sequence[str], video_ids: Sequence[str]) -> dict[int, int]:
    """Find the videos that a table's names refer to: by the whole id first, then by increasingly loose rules.

    A name and an id that differ are compared by the ends of their paths, as long as possible and at least the file
    name; then without extensions. This is done three times: with the texts as they are; in one Unicode normal form,
    without surrounding spaces, without the apostrophes of the trait CSV and with POSIX slashes; and ignoring case. File
    systems, spreadsheets and Windows change all of these.

    A looser rule applies only if exactly one id and one name agree, among all of both: `x.mp4` refers to neither
    `a/x.mp4` nor `b/x.mp4` if both exist.

    Args:
        names: of the table, each once.
        video_ids: POSIX paths relative to the videos' folder, each once, with extension.

    Returns:
        Index of a video id -> index of its name.
    """
    row_of_id = {name: row for row, name in enumerate(names)}
    found = {video: row_of_id[video_id] for video, video_id in enumerate(video_ids) if video_id in row_of_id}
    if len(found) in (len(video_ids), len(names)):
        return found
    # Archives have millions of videos; most of them can be matched by their file names alone.
    keys_of_row, keys_of_video = [_loosest(name) for name in names], [_loosest(name) for name in video_ids]
    rows_of_key, videos_of_key = _indices(keys_of_row), _indices(keys_of_video)
    shared: set[str] = set()
    for video, keys in enumerate(keys_of_video):
        if video in found:
            continue
        # Two of each show that there are several; all files of an archive may have the same name.
        near = {row for key in keys for row in rows_of_key.get(key, ())[:2]}
        rivals = {other for row in near for key in keys_of_row[row] for other in videos_of_key.get(key, ())[:2]}
        if len(near) == len(rivals) == 1:
            found[video] = near.pop()
        else:
            shared.update(keys)
    rows = {row for key in shared for row in rows_of_key.get(key, ())}
    shared |= {key for row in rows for key in keys_of_row[row]}
    videos = {video for key in shared for video in videos_of_key.get(key, ())}
    _match_by_rules(names, sorted(rows), video_ids, sorted(videos), found)
    return found


def _match_by_rules(
    names: Sequence[str], rows: Sequence[int], video_ids: Sequence[str], videos: Sequence[int], found: dict[int, int]
) -> None:
    """Match some videos and their possible names rule by rule, and add the matches to `found`."""
    used = set(found.values())
    depth = max((video_ids[video].count("/") + 1 for video in videos), default=0)
    for form in (str, _plain, _caseless):
        row_paths, video_paths = [form(names[row]) for row in rows], [form(video_ids[video]) for video in videos]
        for key_of_video, key_of_row in _rules(depth):
            if all(video in found for video in videos) or all(row in used for row in rows):
                return
            place_of_key = _unique(row_paths, key_of_row)
            for key, at in _unique(video_paths, key_of_video).items():
                video, place = videos[at], place_of_key.get(key)
                if place is not None and video not in found and rows[place] not in used:
                    found[video] = rows[place]
                    used.add(rows[place])


Key = Callable[[str], str | None]


def _rules(depth: int) -> Iterator[tuple[Key, Key]]:
    """Yield pairs of keys, of a video and of a name, from strict to loose; `depth` is that of the deepest path."""
    yield str, str
    yield _without_ending, str  # a name without an extension, as in "-AmMDnVl4s8.003"
    yield _without_ending, _without_ending
    for of_video, of_name in ((str, str), (_without_ending, str), (_without_ending, _without_ending)):
        for parts in range(depth, 0, -1):
            yield _end(of_video, parts), _end(of_name, parts)


def _end(form: Callable[[str], str], depth: int) -> Key:
    """Make a key of the last `depth` parts of a path; None if it has fewer."""

    def key(path: str) -> str | None:
        parts = form(path).rsplit("/", depth)
        return "/".join(parts[-depth:]) if len(parts) >= depth else None

    return key


def _unique(paths: Sequence[str], key: Key) -> dict[str, int]:
    """Return index by key, without the keys that several paths share."""
    keys = [key(path) for path in paths]
    count = Counter(keys)
    return {name: index for index, name in enumerate(keys) if name is not None and count[name] == 1}


def _indices(keys: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
    """Return the places of each key."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, own in enumerate(keys):
        for key in own:
            found[key].append(index)
    return found


def _loosest(name: str) -> tuple[str, str]:
    """Return the file names by which any of the rules could find this one: with and without extension."""
    base = _caseless(name).rpartition("/")[2]
    return base, _without_ending(base)


def _plain(name: str) -> str:
    """Return the name as this program would write it."""
    path = _GUARD.sub("", unicodedata.normalize("NFC", name.strip())).replace("\\", "/")
    return path.removeprefix("./")


def _caseless(name: str) -> str:
    # casefold() decomposes letters that NFC has composed.
    return unicodedata.normalize("NFC", _plain(name).casefold())


def _without_ending(path: str) -> str:
    """Return the path without the extension of its file name; ".003" is a clip's number, not an extension."""
    stem, dot, ending = path.rpartition(".")
    is_ending = dot and stem and not stem.endswith("/") and "/" not in ending and any(map(str.isalpha, ending))
    return stem if is_ending else path

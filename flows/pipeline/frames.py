"""The flow `export-frames`: the main person's face in every frame, from the cached face tracks, as CSV or Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from extractors.faces.track import FACE_ROW
from flows.archive.families import families_of
from flows.archive.outcomes import NOT_EXTRACTED, how_to_list, rejected, without_result
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.pipeline.steps import step
from flows.session import console
from flows.session.errors import UserError
from storage.exports.columns import Column, schema_of
from storage.exports.package import write_export
from storage.files.paths import StorePath
from storage.models.provenance import program_version
from storage.shards.family import Family
from storage.shards.features import VideoFeatures
from storage.shards.store import FeatureStore
from storage.tables.failures import FailureLog

VIDEOS_AT_A_TIME = 16  # in memory, because the table is in the order of their names and the store is not


@step("export-frames")
def export_frames(config: RunConfig, videos: Archive | None, path: StorePath) -> None:
    """Write a row for every grid frame of every video that has a face track in the store; no video is opened.

    Args:
        videos: only these, if the store has the faces of their present bytes; None means all of the store.
        path: ending in .csv or .parquet.

    Raises:
        UserError: the store has no faces of these videos with these settings.
    """
    families = families_of(config)
    store, faces = FeatureStore(config.store.path), families.faces
    refused = FailureLog(config.store.path).refused(families.features)
    digests = store.done(faces)
    absent = {which for which in refused if which[0] not in digests}
    if videos is not None:
        wanted = {(video.video_id, video.sha256) for video in videos}
        digests = dict(wanted & digests.items())
        absent = wanted - digests.items()
    if not digests:
        raise UserError(
            f"{config.store.path} has no faces that were found with these settings; run `traitline extract` first"
        )
    count = write_export(
        path,
        _tables(store, faces, sorted(digests)),
        FRAME_COLUMNS,
        lambda: _about(config.video.fps, faces, len(digests)),
        key=("video_id", "frame"),
    )
    reasons = Counter(refused[which].reason if which in refused else NOT_EXTRACTED for which in absent)
    said = [f"Export: {console.counted(count, 'frame')} of {console.counted(len(digests), 'video')}"]
    said += [f"{name} {value}" for name, value in without_result(reasons)]
    if rejected(reasons):
        said.append(how_to_list(config.store.path))
    console.say("; ".join(said))


def _tables(store: FeatureStore, faces: Family, names: Sequence[str]) -> Iterator[pa.Table]:
    """Yield a table per video, in the order of the names."""
    schema = schema_of(FRAME_COLUMNS)
    for first in range(0, len(names), VIDEOS_AT_A_TIME):
        some = names[first : first + VIDEOS_AT_A_TIME]
        found = {video.video_id: video for video in store.read(faces, some, as_known=True)}
        for name in some:
            if name in found:  # not removed in the meantime
                arrays = [
                    pa.array(column.value(found[name]), column.type, from_pandas=True) for column in FRAME_COLUMNS
                ]
                yield pa.table(arrays, schema=schema)


def _about(fps: float, faces: Family, videos: int) -> dict[str, Any]:
    return {
        "title": f"Faces in every frame of {console.counted(videos, 'video')}",
        "description": "The main person's face in each video, as it was found for the features. It has no licence of "
        "its own: the licence of the videos applies.",
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "provenance": {
            "program": program_version(),
            "features": {faces.name: {"key": faces.key, "settings": faces.settings}},
            "frames_per_s": fps,
            "videos": videos,
        },
    }


def _number_in_row(name: str) -> Callable[[VideoFeatures], np.ndarray]:
    place = FACE_ROW.index(name)
    return lambda video: video.vectors[:, place]


def _pixels(name: str, of: str, description: str) -> Column[VideoFeatures]:
    return Column(name, pa.float32(), _number_in_row(of), description, "px")


_UNKNOWN = "; empty if success is 0"
_EYE = "; empty if the eye was not found"

# As OpenFace names frame, timestamp, confidence and success.
FRAME_COLUMNS: tuple[Column[VideoFeatures], ...] = (
    Column(
        "video_id",
        pa.string(),
        lambda video: np.full(len(video.vectors), video.video_id, object),
        "Path relative to the videos folder",
        filled=True,
    ),
    Column(
        "frame",
        pa.int32(),
        lambda video: np.arange(1, len(video.vectors) + 1),
        "Number of the frame in its video, from 1, on a grid of video.fps frames per second",
        minimum=1,
        filled=True,
    ),
    Column(
        "timestamp", pa.float64(), lambda video: video.start_s, "Time of the frame in its video", "s", 0, filled=True
    ),
    Column(
        "confidence",
        pa.float32(),
        _number_in_row("score"),
        "Score of the face detector; 0 if it did not detect the main person's face in this frame",
        minimum=0,
        maximum=1,
        filled=True,
    ),
    Column(
        "success",
        pa.int32(),
        lambda video: (~np.isnan(video.vectors[:, 0])).astype(np.int32),
        "1 if the place of the face is known, detected or interpolated between detections; otherwise 0",
        minimum=0,
        maximum=1,
        filled=True,
    ),
    _pixels("box_x", "x", f"Left edge of the face's box{_UNKNOWN}"),
    _pixels("box_y", "y", f"Upper edge of the face's box{_UNKNOWN}"),
    _pixels("box_width", "width", f"Width of the face's box{_UNKNOWN}"),
    _pixels("box_height", "height", f"Height of the face's box{_UNKNOWN}"),
    *(
        _pixels(f"{side}_eye_{axis}", f"{side}_eye_{axis}", f"{word} of the person's {side} eye{_EYE}")
        for side in ("right", "left")
        for axis, word in (("x", "Horizontal place"), ("y", "Vertical place"))
    ),
    Column(
        "shot",
        pa.int32(),
        lambda video: _number_in_row("shot")(video).astype(np.int32),
        "Number of the shot, from 0; it rises at each cut, and each frame of a dissolve has its own number",
        minimum=0,
        filled=True,
    ),
)

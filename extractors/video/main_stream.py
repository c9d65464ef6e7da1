"""The main video stream of a file: covers and thumbnails are video streams as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# A stream without a second picture by the time that another has had this many is a still.
_PICTURES_OF_ANOTHER = 250


def main_video(container: InputContainer, reopen: Callable[[], InputContainer]) -> VideoStream | None:
    """Return the stream that FFmpeg considers the main one, or the next if that has only one picture.

    Args:
        container: just opened; not changed.
        reopen: opens the same file again, to inspect its streams if it has several.
    """
    streams = [
        stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    streams.sort(key=lambda stream: stream is not container.streams.best("video"))
    if len(streams) > 1:
        with reopen() as another:
            moving = _moving(another, [stream.index for stream in streams])
        streams.sort(key=lambda stream: stream.index not in moving)
    return next(iter(streams), None)


def _moving(container: InputContainer, wanted: list[int]) -> set[int]:
    """Return the streams with more than one picture; reads until this is known for the first stream or for all."""
    counts: Counter[int] = Counter()
    try:
        for packet in container.demux([container.streams[index] for index in wanted]):
            counts[packet.stream.index] += packet.size > 0
            if counts[wanted[0]] > 1 or max(counts.values()) > _PICTURES_OF_ANOTHER:
                break
    except (av.FFmpegError, IndexError):
        pass  # the caller decodes the file and reports its damage
    return {index for index in wanted if counts[index] > 1}

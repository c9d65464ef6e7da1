"""Which of a file's video streams is the video: covers and thumbnails are video streams, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# A stream that has no second picture while another has had so many is a still.
_PICTURES_OF_ANOTHER = 250


def main_video(container: InputContainer, reopen: Callable[[], InputContainer]) -> VideoStream | None:
    """Return the stream that FFmpeg holds for the main one, or the next if that shows a single picture.

    Args:
        container: just opened; it is left as it is.
        reopen: opens the same file once more, to look into its streams if there are several.
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
    """Return which streams have more than one picture; reads until that is known of the first or of all."""
    counts: Counter[int] = Counter()
    try:
        for packet in container.demux([container.streams[index] for index in wanted]):
            counts[packet.stream.index] += packet.size > 0
            if counts[wanted[0]] > 1 or max(counts.values()) > _PICTURES_OF_ANOTHER:
                break
    except (av.FFmpegError, IndexError):
        pass  # what can be read is judged by whoever decodes it
    return {index for index in wanted if counts[index] > 1}

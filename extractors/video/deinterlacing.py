"""Deinterlacing, because combs on moving faces look like motion."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.video.frame import VideoFrame

from extractors.errors import undecodable
from extractors.memory import is_lack_of_memory


def deinterlaced(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Fill in the second field of each interlaced frame from its first; progressive frames pass unchanged.

    A recording may switch between the two, or to another size, at any frame.

    Raises:
        VideoError: stage "decode", reason "unsupported": FFmpeg cannot deinterlace this kind of picture.
    """
    filtered: _Filter | None = None
    for frame in frames:
        if filtered is not None and filtered.layout != _layout(frame):
            yield from filtered.push(None)
            filtered = None
        if filtered is None and frame.interlaced_frame:
            filtered = _Filter(frame)
        if filtered is None:
            yield frame
        else:
            yield from filtered.push(frame)
    if filtered is not None:
        yield from filtered.push(None)


class _Filter:
    """FFmpeg's bwdif, for frames of one size and pixel format; others make it fail."""

    def __init__(self, frame: VideoFrame) -> None:
        self.layout = _layout(frame)
        self._graph = av.filter.Graph()
        self._graph.threads = 1  # each core prepares its own video
        try:
            self._graph.link_nodes(
                self._graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
                ),
                self._graph.add("bwdif", "mode=send_frame:deint=interlaced"),
                self._graph.add("buffersink"),
            ).configure()
        except av.FFmpegError as error:
            raise self._refusal(error) from error

    def push(self, frame: VideoFrame | None) -> list[VideoFrame]:
        """Return the frames that are ready once this one is in; None ends the stream."""
        ready: list[VideoFrame] = []
        try:
            self._graph.vpush(frame)
            while True:
                ready.append(self._graph.vpull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return ready
        except av.FFmpegError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: av.FFmpegError) -> Exception:
        if is_lack_of_memory(error):
            return error
        width, height, pixels = self.layout
        message = f"cannot deinterlace {pixels} pictures of {width} x {height} px: {error.strerror}"
        return undecodable("unsupported", message)


def _layout(frame: VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name

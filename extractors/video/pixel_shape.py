"""The width of a frame after making its pixels square."""

from __future__ import annotations

from fractions import Fraction

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# Pixel shapes outside these bounds are errors in the file; the widest in real use is 64:33 (wide-screen PAL VCD).
ASPECT_BOUNDS = (0.25, 4.0)


class PixelShape:
    """The pixel shape of a video's frames, which may change; to be created before the first frame is decoded.

    A shape stated by the container holds for the whole video. Otherwise the decoder's shape holds, which changes some
    frames before the picture does, because decoders hold frames back: after each change, FFmpeg reports the shape of
    each frame until the frames have the new shape as well.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._codec = stream.codec_context
        stated = stream.sample_aspect_ratio
        self._stated = stated if stated != self._codec.sample_aspect_ratio else None
        self._aspect: Fraction | None = None
        self._settled = False

    def square_width(self, frame: VideoFrame) -> int:
        """Return the frame's width in square pixels."""
        if self._stated is not None:
            return _square_width(frame.width, self._stated)
        expected = _square_width(frame.width, self._codec.sample_aspect_ratio)
        if self._settled and self._codec.sample_aspect_ratio == self._aspect:
            return expected
        self._aspect = self._codec.sample_aspect_ratio
        width = _own_square_width(frame)
        self._settled = abs(width - expected) <= 1  # FFmpeg rounds halves differently
        return expected if self._settled else width


def _square_width(width: int, aspect: Fraction | None) -> int:
    return _bounded(width, width if aspect is None else round(width * aspect))


def _bounded(width: int, square_width: int) -> int:
    """Keep the width if the pixel shape is absurd."""
    return square_width if ASPECT_BOUNDS[0] <= square_width / width <= ASPECT_BOUNDS[1] else width


def _own_square_width(frame: VideoFrame) -> int:
    """Return the width by the frame's own pixel shape, which PyAV hides but the scale filter knows."""
    graph = av.filter.Graph()
    graph.threads = 1
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("scale", r"w=clip(round(iw*sar)\,1\,8*iw):h=1:eval=frame:flags=neighbor"),
        graph.add("buffersink"),
    ).configure()
    graph.vpush(frame)
    return _bounded(frame.width, graph.vpull().width)

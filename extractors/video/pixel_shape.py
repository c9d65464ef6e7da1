"""How wide a frame is once its pixels are square."""

from __future__ import annotations

from fractions import Fraction

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# Pixel shapes outside these bounds are mistakes in the file; the widest in real use is 64:33 (wide-screen PAL VCD).
ASPECT_BOUNDS = (0.25, 4.0)


class PixelShape:
    """The shape of pixels of a video's frames, which may change on the way.

    A shape that the container states holds for the whole video. Otherwise the decoder's holds, and that changes some
    frames before the picture does, since decoders hold frames back: at each change, FFmpeg is asked about the frames
    themselves until they have it too.

    Args:
        stream: just opened; no frame of it has been decoded yet.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._codec = stream.codec_context
        stated = stream.sample_aspect_ratio
        self._stated = stated if stated != self._codec.sample_aspect_ratio else None
        self._aspect: Fraction | None = None
        self._settled = False

    def square_width(self, frame: VideoFrame) -> int:
        """Return the frame's width in px of which each is as wide as it is high."""
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
    """Leave the width as it is if the shape of pixels is absurd."""
    return square_width if ASPECT_BOUNDS[0] <= square_width / width <= ASPECT_BOUNDS[1] else width


def _own_square_width(frame: VideoFrame) -> int:
    """Ask the frame itself: PyAV does not tell its shape of pixels, but the scale filter knows it."""
    graph = av.filter.Graph()
    graph.threads = 1
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("scale", r"w=clip(round(iw*sar)\,1\,8*iw):h=1:eval=frame:flags=neighbor"),
        graph.add("buffersink"),
    ).configure()
    graph.vpush(frame)
    return _bounded(frame.width, graph.vpull().width)

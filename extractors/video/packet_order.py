"""The time at which each frame is shown, where a container states only when its packets are decoded."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# These containers, by FFmpeg's names, keep times of decoding only; times of presentation are FFmpeg's guesses.
WITHOUT_PRESENTATION = ("avi", "asf")

# Packets without a frame; no decoder holds as many back.
_MOST_WAITING = 1024


class PacketOrder:
    """Corrects times of presentation that follow the order of decoding, as in AVI and ASF files with H.264 B-frames.

    Decoders give frames in the order of presentation, each with the time of its own packet. If the packets' times rise
    in the order of decoding although the decoder reorders, those times are the moments at which *a* frame is shown, and
    belong to the frames in the order in which they come. A frame is then shown at the time of the packet that lies as
    many packets before the one that released it as at the first frame: packets without a frame, which some encoders
    write and damage makes, shift nothing.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._by_decoding = stream.container.format.name in WITHOUT_PRESENTATION
        self._waiting: deque[_Stamp] | None = deque(maxlen=_MOST_WAITING)
        self._lag: int | None = None
        self._delay: int | None = None

    def sent(self, packet: Packet[Stream]) -> None:
        """Take note of a packet before it is decoded."""
        if self._waiting is None or not packet.size:
            return
        if packet.pts is None or (self._waiting and packet.pts <= self._waiting[-1].pts):
            self._waiting = None  # times of presentation, or none at all
        else:
            shown = packet.pts
            if self._by_decoding and packet.dts is not None:
                if self._lag is None:
                    self._lag = packet.pts - packet.dts
                shown = packet.dts + self._lag
            self._waiting.append(_Stamp(packet.pts, packet.dts, shown))

    def correct(self, frame: VideoFrame) -> None:
        """Give a decoded frame, in the order in which they come, its time of presentation."""
        waiting = self._waiting
        if not waiting or frame.pts is None:
            return
        skipped = 0
        if self._delay is None:
            own = next((place for place, stamp in enumerate(waiting) if stamp.pts == frame.pts), None)
            if own is None or frame.dts is None:
                self._waiting = None
                return
            self._delay, skipped = _released_by(waiting, frame.dts) - own, own
        elif frame.pts != waiting[0].pts and frame.dts is not None:
            skipped = max(0, _released_by(waiting, frame.dts) - self._delay)
        for _ in range(skipped):
            waiting.popleft()
        frame.pts = waiting.popleft().shown


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Times of a packet, and when it is some frame's turn to be shown."""

    pts: int
    dts: int | None
    shown: int


def _released_by(waiting: deque[_Stamp], dts: int) -> int:
    """Return the place of the packet that made the decoder give a frame with this time."""
    return sum(stamp.dts is None or stamp.dts <= dts for stamp in waiting) - 1

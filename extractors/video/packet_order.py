"""Presentation times for containers that state only decoding times."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# These containers, by FFmpeg's names, store decoding times only; FFmpeg guesses presentation times.
WITHOUT_PRESENTATION = ("avi", "asf")

# Packets without a frame; no decoder holds back this many.
_MAX_WAITING = 1024


class PacketOrder:
    """Corrects presentation times that follow the decoding order, as in AVI and ASF files with H.264 B-frames.

    Decoders output frames in presentation order, each with the time of its own packet. If the packets' times increase
    in decoding order although the decoder reorders, each time is the moment at which *some* frame is shown, and they
    belong to the frames in the order of output. A frame is then shown at the time of the packet that precedes the one
    that released it by as many packets as for the first frame. Packets without a frame, which some encoders write and
    which result from damage, shift nothing.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._by_decoding = stream.container.format.name in WITHOUT_PRESENTATION
        self._waiting: deque[_Stamp] | None = deque(maxlen=_MAX_WAITING)
        self._lag: int | None = None
        self._delay: int | None = None

    def sent(self, packet: Packet[Stream]) -> None:
        """Record a packet before it is decoded."""
        if self._waiting is None or not packet.size:
            return
        if packet.pts is None or (self._waiting and packet.pts <= self._waiting[-1].pts):
            self._waiting = None  # presentation times, or no times at all
        else:
            shown = packet.pts
            if self._by_decoding and packet.dts is not None:
                if self._lag is None:
                    self._lag = packet.pts - packet.dts
                shown = packet.dts + self._lag
            self._waiting.append(_Stamp(packet.pts, packet.dts, shown))

    def correct(self, frame: VideoFrame) -> None:
        """Set the presentation time of the next decoded frame."""
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
    """Times of a packet, and the moment at which some frame is shown."""

    pts: int
    dts: int | None
    shown: int


def _released_by(waiting: deque[_Stamp], dts: int) -> int:
    """Return the position of the packet on which the decoder output a frame with this time."""
    return sum(stamp.dts is None or stamp.dts <= dts for stamp in waiting) - 1

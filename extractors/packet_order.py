"""The time at which each frame is shown, where a container states only when its packets are decoded."""

from __future__ import annotations

from collections import deque

from av.packet import Packet
from av.video.frame import VideoFrame

# Packets without a frame; no decoder holds as many back.
_MOST_WAITING = 1024


class PacketOrder:
    """Corrects times that follow the order of decoding, as in AVI and ASF files with H.264 B-frames.

    Decoders give frames in the order of presentation, each with the time of its own packet. Where the packets' times
    rise in the order of decoding although the decoder reorders, those times are the moments at which *a* frame is
    shown, and belong to the frames in the order in which they come. A frame is then shown at the time of the packet
    that lies as many packets before the one that released it as at the first frame: packets without a frame, which
    some encoders write and damage makes, shift nothing.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int | None]] | None = deque(maxlen=_MOST_WAITING)
        self._delay: int | None = None

    def sent(self, packet: Packet) -> None:
        """Take note of a packet before it is decoded."""
        if self._waiting is None or not packet.size:
            return
        if packet.pts is None or (self._waiting and packet.pts <= self._waiting[-1][0]):
            self._waiting = None  # times of presentation, or none at all
        else:
            self._waiting.append((packet.pts, packet.dts))

    def correct(self, frame: VideoFrame) -> None:
        """Give a decoded frame, in the order in which they come, its time of presentation."""
        waiting = self._waiting
        if not waiting or frame.pts is None:
            return
        if self._delay is None:
            own = next((place for place, (pts, _) in enumerate(waiting) if pts == frame.pts), None)
            if own is None or frame.dts is None:
                self._waiting = None
                return
            self._delay = self._released_by(frame) - own
            skipped = own
        elif frame.pts == waiting[0][0]:
            skipped = 0
        else:
            skipped = 0 if frame.dts is None else max(0, self._released_by(frame) - self._delay)
        for _ in range(skipped):
            waiting.popleft()
        frame.pts, _ = waiting.popleft()

    def _released_by(self, frame: VideoFrame) -> int:
        """Return the place of the packet that made the decoder give this frame."""
        return sum(1 for _, dts in self._waiting if dts is None or dts <= frame.dts) - 1

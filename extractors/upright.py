"""Decoded frames as upright RGB pictures with square pixels."""

from __future__ import annotations

from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from extractors.errors import VideoError
from extractors.memory import is_lack_of_memory

# Pixel shapes outside these bounds are mistakes in the file; the widest in real use is 64:33 (wide-screen PAL VCD).
ASPECT_BOUNDS = (0.25, 4.0)


@dataclass(frozen=True, slots=True)
class Upright:
    """How one video's stored pictures become upright pictures; the first frame decides for all.

    Args:
        stored_width, stored_height: px, after making pixels square and before turning.
        transposed: rows become columns.
        flip_x, flip_y: then mirror left to right, top to bottom.
    """

    stored_width: int
    stored_height: int
    transposed: bool
    flip_x: bool
    flip_y: bool

    @classmethod
    def of(cls, frame: VideoFrame, stream: VideoStream) -> Upright:
        """Read size, shape of pixels and display matrix; angles between quarter turns go to the nearest one.

        Sources:
            FFmpeg, libavutil/display.h: a stored point (x, y) is shown at (a x + c y, b x + d y), for a matrix
            whose first two rows begin a b and c d.
        """
        aspect = 1.0 if stream.sample_aspect_ratio is None else float(stream.sample_aspect_ratio)
        if not ASPECT_BOUNDS[0] <= aspect <= ASPECT_BOUNDS[1]:
            aspect = 1.0
        side_data = frame.side_data.get("DISPLAYMATRIX")
        if side_data is None:
            a, b, c, d = 1, 0, 0, 1
        else:
            a, b, _, c, d, _, *_ = np.frombuffer(side_data, dtype=np.int32).tolist()
        transposed = abs(b) > abs(a)
        return cls(
            stored_width=round(frame.width * aspect),
            stored_height=frame.height,
            transposed=transposed,
            flip_x=(c if transposed else a) < 0,
            flip_y=(b if transposed else d) < 0,
        )

    @property
    def width(self) -> int:
        """Width of the upright picture, px."""
        return self.stored_height if self.transposed else self.stored_width

    @property
    def height(self) -> int:
        """Height of the upright picture, px."""
        return self.stored_width if self.transposed else self.stored_height

    @property
    def rotation_deg(self) -> int:
        """Clockwise turn from stored to upright: 0, 90, 180 or 270. A mirrored picture is mirrored top to bottom."""
        if self.transposed:
            return 90 if self.flip_x else 270
        return 180 if self.flip_x else 0

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """Convert one frame to uint8 RGB [height, width, 3], read-only, rows following each other without padding.

        Raises:
            VideoError: stage "decode", reason "unsupported": FFmpeg cannot convert this kind of picture.
        """
        try:
            stored = frame.reformat(width=self.stored_width, height=self.stored_height, format="rgb24").to_ndarray()
        except av.FFmpegError as error:
            if is_lack_of_memory(error):
                raise
            raise VideoError("decode", "unsupported", f"cannot convert {frame.format.name} pictures to RGB") from error
        turned = cv2.transpose(stored) if self.transposed else stored
        if self.flip_x or self.flip_y:
            turned = cv2.flip(turned, {(True, True): -1, (True, False): 1, (False, True): 0}[self.flip_x, self.flip_y])
        # FFmpeg pads rows, and there are readers (MediaPipe) that take the padding for pixels.
        turned = np.ascontiguousarray(turned)
        turned.flags.writeable = False
        return turned

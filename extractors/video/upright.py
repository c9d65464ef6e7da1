"""Decoded frames as upright RGB pictures with square pixels, all of one size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from extractors.errors import undecodable
from extractors.memory import is_lack_of_memory
from extractors.video.pixel_shape import PixelShape

# Video without a stated colour space is read as players do: as BT.709 from 720 lines or 1280 columns, else BT.601.
HD_LINES, HD_COLUMNS = 720, 1280
_UNTAGGED = (2, 3)  # FFmpeg's AVCOL_SPC_UNSPECIFIED and AVCOL_SPC_RESERVED


@dataclass(frozen=True, slots=True)
class Upright:
    """The transformation of a stored picture into an upright one.

    Args:
        stored_width, stored_height: px, with square pixels, before rotation.
        transposed: rows become columns.
        flip_x, flip_y: then mirror left to right, top to bottom.
    """

    stored_width: int
    stored_height: int
    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, width: int, height: int, matrix: bytes | None) -> Upright:
        """Read a display matrix; angles are rounded to quarter turns.

        Args:
            width, height: of the stored picture, px, with square pixels.
            matrix: nine int32 in the machine's byte order, as FFmpeg returns them; None for no rotation.

        Sources:
            FFmpeg, libavutil/display.h: a stored point (x, y) is shown at (a x + c y, b x + d y), for a matrix
            whose first two rows begin a b and c d.
        """
        if matrix is None:
            return cls(width, height)
        a, b, _, c, d, _, *_ = np.frombuffer(matrix, dtype=np.int32).tolist()
        transposed = abs(b) > abs(a)
        return cls(
            width,
            height,
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

    def fitted(self, width: int, height: int) -> Upright:
        """Return the same transformation, scaled to fit into a size in px with its proportions kept."""
        scale = min(width / self.width, height / self.height)
        return replace(
            self,
            stored_width=max(1, round(self.stored_width * scale)),
            stored_height=max(1, round(self.stored_height * scale)),
        )

    def rgb(self, frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
        """Convert one frame to uint8 RGB [height, width, 3]. Raises av.FFmpegError if FFmpeg cannot convert it."""
        stored = reformatter.reformat(
            frame, self.stored_width, self.stored_height, "rgb24", src_colorspace=_colorspace(frame), threads=1
        ).to_ndarray()
        turned = cv2.transpose(stored) if self.transposed else stored
        turned = turned[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        # FFmpeg pads rows, and MediaPipe mistakes the padding for pixels.
        return np.ascontiguousarray(turned)


class Canvas:
    """Upright pictures of one size.

    If the size, rotation or pixel shape changes during the video, pictures of another size are scaled to fit, never
    stretched, and the rest is black.

    Args:
        stream: just opened; before its first frame is decoded.
        size: width and height, px; by default, those of the first frame.
    """

    def __init__(self, stream: VideoStream, size: tuple[int, int] | None = None) -> None:
        self._shape, self._turn = PixelShape(stream), _Turn(stream)
        self._reformatter = VideoReformatter()
        self._size = size

    def upright(self, frame: VideoFrame) -> Upright:
        """Return the transformation of a frame in its own size. Call it for every frame in order, like `place`."""
        return Upright.of(self._shape.square_width(frame), frame.height, self._turn.matrix(frame))

    def place(self, frame: VideoFrame) -> Upright:
        """Return how to draw a frame. Call it for every frame in order, whether it is drawn or not."""
        upright = self.upright(frame)
        if self._size is None:
            self._size = upright.width, upright.height
        return upright if (upright.width, upright.height) == self._size else upright.fitted(*self._size)

    def draw(self, frame: VideoFrame, upright: Upright) -> np.ndarray:
        """Convert a frame to uint8 RGB [height, width, 3], read-only, without padding between rows.

        Raises:
            VideoError: stage "decode", reason "unsupported": FFmpeg cannot convert this kind of picture.
        """
        try:
            picture = upright.rgb(frame, self._reformatter)
        except av.FFmpegError as error:
            if is_lack_of_memory(error):
                raise
            raise undecodable("unsupported", f"cannot convert {frame.format.name} pictures to RGB") from error
        width, height = self._size or (upright.width, upright.height)
        if (upright.width, upright.height) != (width, height):
            left, top = (width - upright.width) // 2, (height - upright.height) // 2
            canvas = np.zeros((height, width, 3), np.uint8)
            canvas[top : top + upright.height, left : left + upright.width] = picture
            picture = canvas
        picture.flags.writeable = False
        return picture


class _Turn:
    """The current display matrix.

    A container's matrix comes with every frame. A matrix inside the video comes with key frames and holds until a key
    frame comes without one; FFmpeg attaches it to the key frame or to one of the next few frames.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._codec = stream.codec_context
        self._matrix: bytes | None = None
        self._grace = 0

    def matrix(self, frame: VideoFrame) -> bytes | None:
        # Not frame.side_data, which would refer back to the frame. PyAV's stubs hide the constructor.
        own = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
        if own is not None:
            self._matrix, self._grace = bytes(own), 0
        elif self._matrix is not None:
            if frame.key_frame:
                self._grace = 2 + self._codec.reorder_depth
            if self._grace:
                self._grace -= 1
                if not self._grace:
                    self._matrix = None
        return self._matrix


def _colorspace(frame: VideoFrame) -> Colorspace | None:
    """Return the colour space of a frame that states none; None for a frame that states one."""
    if frame.colorspace not in _UNTAGGED or frame.format.is_rgb:
        return None
    hd = frame.height >= HD_LINES or frame.width >= HD_COLUMNS
    return Colorspace.ITU709 if hd else Colorspace.ITU601

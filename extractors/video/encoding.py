"""Pictures as an MP4 file."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from extractors.errors import DeviceError

ENCODERS = ("libx264", "mpeg4")
_BITS_PER_PIXEL = 500_000 / (640 * 480)  # in a second, of MPEG-4 Part 2


def write_mp4(path: Path, pictures: Iterable[np.ndarray], fps: float) -> None:
    """Encode pictures as H.264, or as MPEG-4 Part 2 if PyAV has no x264. The same pictures give the same bytes.

    Args:
        path: of the file, whatever its ending.
        pictures: uint8 RGB [height, width, 3], all of one size; height and width are even.

    Raises:
        DeviceError: this build of PyAV has neither encoder.
    """
    encoder = next((name for name in ENCODERS if name in av.codecs_available), None)
    if encoder is None:
        raise DeviceError(f"this build of PyAV encodes neither {' nor '.join(ENCODERS)}: install the av wheel")
    with av.open(str(path), "w", format="mp4") as container:
        stream = cast(av.VideoStream, container.add_stream(encoder, rate=Fraction(fps).limit_denominator(10_000)))
        stream.pix_fmt = "yuv420p"
        # The number of threads affects the encoder's choices, and differs between machines.
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
                if encoder == "libx264":
                    stream.options = {"crf": "21", "preset": "veryfast"}
                else:
                    stream.bit_rate = round(_BITS_PER_PIXEL * stream.height * stream.width)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())

"""Colours come out as they were meant: by the file's tags, and without tags as players show them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from extractors.video.grid import grid_frames

# Luma weights of red and blue. BT.601-7, 2.5.1; BT.709-6, 3.2; BT.2020-2, table 4.
WEIGHTS = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722), "BT.2020": (0.2627, 0.0593)}
TAGS = {"BT.709": 1, "BT.601": 5, "SMPTE 170M": 6, "BT.2020": 9}
SKIN = (200, 140, 110)


def stored(rgb: tuple[int, int, int], standard: str, *, full: bool = False, bits: int = 8) -> list[int]:
    """Y, Cb and Cr as the standards define them."""
    red, blue = WEIGHTS[standard]
    r, g, b = (value / 255 for value in rgb)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = [(b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)]
    scale = 2 ** (bits - 8)
    if full:
        return [round(255 * scale * luma), *(round(scale * (128 + 255 * value)) for value in chroma)]
    return [round(scale * (16 + 219 * luma)), *(round(scale * (128 + 224 * value)) for value in chroma)]


def write(
    path: Path, values: list[int], *, width: int, height: int, tag: int = 2, full: bool = False, bits: int = 8
) -> Path:
    """Three frames of one colour, without loss."""
    dtype = np.uint8 if bits == 8 else np.uint16
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
        stream.codec_context.colorspace = tag
        stream.codec_context.color_range = 2 if full else 1
        for index in range(3):
            planes = np.stack([np.full((height, width), value, dtype) for value in values], axis=0 if bits == 8 else -1)
            frame = av.VideoFrame.from_ndarray(planes, format=stream.pix_fmt)
            frame.colorspace, frame.color_range, frame.pts = tag, 2 if full else 1, index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown(path: Path) -> np.ndarray:
    picture = next(grid_frames(path, 25.0))
    assert np.ptp(picture, axis=(0, 1)).max() == 0
    return picture[0, 0].astype(int)


@pytest.mark.parametrize(
    ("width", "height", "standard"),
    [
        *((320, 240, "BT.601"), (720, 480, "BT.601"), (720, 576, "BT.601"), (960, 718, "BT.601")),
        *((1280, 720, "BT.709"), (960, 720, "BT.709"), (408, 720, "BT.709"), (1280, 544, "BT.709")),
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_untagged_video_is_read_as_players_do(tmp_path, width, height, standard, bits):
    path = write(tmp_path / "a.mkv", stored(SKIN, standard, bits=bits), width=width, height=height, bits=bits)
    assert np.abs(shown(path) - SKIN).max() <= 2


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize(("width", "height"), [(320, 240), (1280, 720)])
def test_tags_go_before_size(tmp_path, tag, width, height):
    standard = "BT.601" if tag == "SMPTE 170M" else tag
    path = write(tmp_path / "a.mkv", stored(SKIN, standard), width=width, height=height, tag=TAGS[tag])
    assert np.abs(shown(path) - SKIN).max() <= 2


@pytest.mark.parametrize(("height", "standard"), [(240, "BT.601"), (720, "BT.709")])
@pytest.mark.parametrize("rgb", [SKIN, (255, 255, 255), (0, 0, 0), (30, 200, 60)])
def test_full_range_is_respected(tmp_path, height, standard, rgb):
    path = write(tmp_path / "a.mkv", stored(rgb, standard, full=True), width=320, height=height, full=True)
    assert np.abs(shown(path) - rgb).max() <= 2


def test_motion_jpeg_stays_what_jfif_says_at_any_size(drawing):
    """JFIF 1.02: BT.601, full range."""
    picture = np.full((720, 1280, 3), SKIN, np.uint8)
    path = drawing.write("a.avi", [picture] * 3, codec="mjpeg", pix_fmt="yuvj444p", options={"qmax": "2", "qmin": "1"})
    assert np.abs(next(grid_frames(path, 25.0))[360, 640].astype(int) - SKIN).max() <= 4

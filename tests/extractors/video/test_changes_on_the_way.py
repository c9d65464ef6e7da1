"""Size, shape of pixels, turn and interlacing are each frame's own: nothing combed, stretched or turned wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from extractors.errors import VideoError
from extractors.video.grid import grid_frames

BAR_PX = 40


def bar(number: int, width: int = 320, height: int = 240, *, bottom: int | None = None) -> np.ndarray:
    """A bright bar, 40 px wide, two thirds as high as the picture, that moves on by 4 px in each picture."""
    picture = np.full((height, width, 3), 60, np.uint8)
    for parity, step in enumerate((number, number if bottom is None else bottom)):
        left = 8 + 4 * step % (width - BAR_PX - 16)
        picture[height // 6 : -(height // 6), left : left + BAR_PX][parity::2] = 230
    return picture


def bars(count: int, **size: int) -> Iterator[np.ndarray]:
    return (bar(number, **size) for number in range(count))


def interlaced_bars(count: int, **size: int) -> Iterator[np.ndarray]:
    """The bar moves on between the two fields of a frame."""
    return (bar(2 * number, bottom=2 * number + 1, **size) for number in range(count))


def proportions(picture: np.ndarray) -> float:
    """Width of the bar over its height: 40 to 160 in a picture of 240 lines."""
    bright = picture[..., 1] > 145
    rows, columns = bright.any(axis=1).sum(), bright.any(axis=0).sum()
    return columns / rows


def combed(picture: np.ndarray) -> float:
    """Mean difference of neighbouring rows in the middle of the picture."""
    rows = picture[len(picture) * 2 // 5 : len(picture) * 3 // 5].astype(int)
    return float(np.abs(np.diff(rows, axis=0)).mean())


def joined(folder: Path, *parts: Path) -> Path:
    """Broadcast streams one after the other; each has a clock of its own."""
    path = folder / f"joined{parts[0].suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


INTERLACED = {"x264-params": "tff=1", "crf": "5", "bf": "2"}
PROGRESSIVE = {"crf": "5", "bf": "2"}


def recording(drawing, order: str, *, sizes: Iterable[tuple[int, int]] | None = None) -> Path:
    """A broadcast of progressive ("p") and interlaced ("i") parts with 30 frames each."""
    parts = []
    for number, (kind, (width, height)) in enumerate(zip(order, sizes or [(320, 240)] * len(order), strict=True)):
        draw, options = (interlaced_bars, INTERLACED) if kind == "i" else (bars, PROGRESSIVE)
        parts.append(drawing.write(f"{number}.ts", draw(30, width=width, height=height), options=options))
    return joined(drawing.folder, *parts)


@pytest.mark.parametrize("order", ["pi", "ip", "pip", "ipi", "ii"])
def test_no_frame_is_combed_whatever_comes_first(drawing, order):
    shown = list(grid_frames(recording(drawing, order), 25.0))
    assert len(shown) == 30 * len(order)
    assert max(map(combed, shown)) < 0.5
    assert np.mean([combed(picture) for picture in interlaced_bars(30)]) > 4  # so that the above can fail


def test_progressive_frames_stay_what_they_are_beside_interlaced_ones(drawing):
    path = recording(drawing, "ip")
    alone = list(grid_frames(drawing.folder / "1.ts", 25.0))
    beside = list(grid_frames(path, 25.0))[30:]
    assert all(np.array_equal(one, other) for one, other in zip(alone, beside, strict=True))


@pytest.mark.parametrize("order", ["ii", "ip", "pi", "pp"])
@pytest.mark.parametrize("second", [(480, 240), (160, 240), (240, 320), (640, 480)])
def test_a_change_of_size_keeps_every_frame_and_all_proportions(drawing, order, second):
    shown = list(grid_frames(recording(drawing, order, sizes=[(320, 240), second]), 25.0))
    width, height = max((320, 240), second, key=math.prod)
    assert [picture.shape for picture in shown] == [(height, width, 3)] * 60
    stored = BAR_PX / (second[1] - 2 * (second[1] // 6))
    for picture in shown[:30]:
        assert proportions(picture) == pytest.approx(BAR_PX / 160, rel=0.08)
    for picture in shown[30:]:
        assert proportions(picture) == pytest.approx(stored, rel=0.12)


@pytest.mark.parametrize(
    ("codec", "first", "second"),
    [
        *(("libx264", 1, Fraction(4, 3)), ("libx264", Fraction(4, 3), 1), ("libx264", 1, Fraction(3, 4))),
        *(("mpeg2video", 1, Fraction(4, 3)), ("mpeg2video", Fraction(4, 3), 1)),
    ],
)
def test_pixels_stay_square_when_their_shape_changes(drawing, codec, first, second):
    """Exactly from the frame on that says so, though decoders hold frames back."""
    options = {"bf": "2"} if codec == "libx264" else {"bf": "2", "qmax": "3"}
    parts = [
        drawing.write(f"{name}.ts", bars(30), codec=codec, options=options, aspect=Fraction(aspect))
        for name, aspect in (("a", first), ("b", second))
    ]
    shown = list(grid_frames(joined(drawing.folder, *parts), 25.0))
    assert {picture.shape for picture in shown} == {(240, round(320 * max(first, second)), 3)}
    assert len(shown) == 60
    for number, picture in enumerate(shown):
        expected = BAR_PX / 160 * float(first if number < 30 else second)
        assert proportions(picture) == pytest.approx(expected, rel=0.06), number


def test_a_shape_that_the_container_states_goes_before_the_stream_s_own(drawing):
    path = drawing.write("a.mp4", bars(10), aspect=Fraction(4, 3))
    data = bytearray(path.read_bytes())
    place = data.index(b"pasp") + 4
    data[place : place + 8] = (2).to_bytes(4, "big") + (1).to_bytes(4, "big")
    path.write_bytes(data)
    assert {picture.shape for picture in grid_frames(path, 25.0)} == {(240, 640, 3)}


def turned(source: Path, goal: Path, degrees: int) -> Path:
    """The same packets whose key frames say that the picture is to be turned."""
    with av.open(str(source)) as old, av.open(str(goal), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        bitstream = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:rotate={degrees}", stream)
        for packet in old.demux(stream):
            for filtered in bitstream.filter(packet if packet.size else None):
                filtered.stream = copy
                new.mux(filtered)
    return goal


@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_a_phone_that_is_turned_on_the_way(drawing, b_frames):
    """Each frame of the middle part is turned, though only its key frames say so."""
    upright = drawing.write("a.ts", drawing.pictures(40), options={"bf": b_frames, "g": "10"})
    upside_down = turned(upright, drawing.folder / "b.ts", 180)
    shown = list(grid_frames(joined(drawing.folder, upright, upside_down, upright), 25.0))
    assert len(shown) == 120
    red_at_the_top = [bool(picture[8, 8, 0] > 160) for picture in shown]
    assert all(red_at_the_top[:40])
    assert not any(red_at_the_top[40:80])
    # Whether a turn has ended shows only after the frames that the decoder may have held back.
    assert all(red_at_the_top[80 + 2 + int(b_frames) :])


def test_what_cannot_be_deinterlaced_is_refused(drawing):
    """Two columns are too few for any deinterlacer."""
    pictures = [np.full((64, 2, 3), 90, np.uint8)] * 5
    path = drawing.write("a.mkv", pictures, options=INTERLACED)
    with pytest.raises(VideoError) as caught:
        list(grid_frames(path, 25.0))
    assert (caught.value.stage, caught.value.reason) == ("decode", "unsupported")


def test_reported_recordings_are_neither_combed_nor_stretched(corpus):
    for name, count in (("02_interlaced_then_other_size.ts", 125), ("03_progressive_then_interlaced.ts", 100)):
        shown = list(grid_frames(corpus / "reports" / name, 25.0))
        assert len(shown) == count
        assert max(map(combed, shown)) < 0.5, name
    shown = list(grid_frames(corpus / "reports" / "05_pixel_shape_switch.ts", 25.0))
    assert {picture.shape for picture in shown} == {(240, 427, 3)}
    widths = [int((picture[120, :, 1] > 145).sum()) for picture in shown]
    assert widths[:24] == [40] * 24
    assert set(widths[24:]) <= {53, 54}

"""Each picture is shown once and in order, even if a container states only decoding times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from extractors.video.decoding import Tally
from extractors.video.grid import grid_frames

B_FRAMES = {
    "few": {"bf": "2"},
    "many, as references too": {"bf": "8", "x264-params": "b-adapt=0:b-pyramid=normal"},
    "none": {"bf": "0"},
    "open groups": {"bf": "3", "g": "15", "x264-params": "open-gop=1"},
    "interlaced by field or macroblock": {"bf": "3", "x264-params": "tff=1"},
}


@pytest.mark.parametrize("name", ["a.avi", "a.asf", "a.wmv", "a.mkv", "a.mp4", "a.ts", "a.flv", "a.h264"])
@pytest.mark.parametrize("kind", B_FRAMES)
def test_every_picture_is_shown_once_and_in_order(drawing, name, kind):
    path = drawing.write(name, drawing.pictures(60), options=B_FRAMES[kind])
    assert drawing.numbers(path) == list(range(60))


@pytest.mark.parametrize(
    ("name", "codec", "file_format"),
    [
        ("a.avi", "mpeg4", None),
        ("a.asf", "mpeg4", None),
        ("a.m4v", "mpeg4", "m4v"),
        ("a.avi", "mpeg2video", None),
        ("a.m2v", "mpeg2video", None),
        ("a.vob", "mpeg2video", None),
        ("a.mkv", "libx265", None),
        ("a.hevc", "libx265", None),
        ("a.ts", "libx265", None),
        ("a.wmv", "wmv2", None),
    ],
)
def test_other_codecs_too(drawing, name, codec, file_format):
    options = {"x265-params": "log-level=none:bframes=4"} if codec == "libx265" else {"qmax": "3"}
    if codec in ("mpeg4", "mpeg2video"):
        options["bf"] = "2"
    path = drawing.write(name, drawing.pictures(60), codec=codec, options=options, file_format=file_format)
    assert drawing.numbers(path) == list(range(60))


def restamped(source: Path, goal: Path, lost: frozenset[int] = frozenset()) -> Path:
    """The same packets with times that rise in the order of decoding, as some writers make them."""
    with av.open(str(source)) as old, av.open(str(goal), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        times = sorted(packet.pts for packet in packets)
        for number, (packet, time) in enumerate(zip(packets, times, strict=True)):
            if number in lost:
                continue
            packet.pts = packet.dts = time
            packet.stream = copy
            new.mux(packet)
    return goal


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.flv", "b.asf"])
def test_times_of_decoding_that_pass_for_times_of_presentation(drawing, name):
    source = drawing.write("a.mp4", drawing.pictures(60), options={"bf": "3"})
    assert drawing.numbers(restamped(source, drawing.folder / name)) == list(range(60))


@pytest.mark.parametrize("name", ["b.wmv", "b.mkv", "b.mp4"])
def test_uneven_times_belong_to_the_pictures_in_their_order(drawing, name):
    holds = [1, 2, 3, 1, 1, 4, 2] * 6
    times = np.concatenate([[0], np.cumsum(holds)]).tolist()
    source = drawing.write("a.mp4", drawing.pictures(len(times)), times=times, options={"bf": "3"})
    shown = drawing.numbers(restamped(source, drawing.folder / name))
    expected = [number for number, hold in enumerate(holds) for _ in range(hold)]
    assert shown[: len(expected)] == expected
    assert set(shown[len(expected) :]) <= {len(holds)}


@pytest.mark.parametrize("lost", [20, 21, 22])
def test_a_lost_packet_shifts_nothing_that_comes_later(drawing, lost):
    source = drawing.write("a.mp4", drawing.pictures(90), options={"bf": "2", "g": "30"})
    path = restamped(source, drawing.folder / "b.mkv", frozenset([lost]))
    shown = list(grid_frames(path, 25.0, thresholds=None))
    assert [drawing.number(picture) for picture in shown][34:] == list(range(34, 90))


def test_pictures_that_avi_holds_for_long_are_held_as_long_beside_b_frames(drawing):
    """AVI writes an empty packet for each tick of its clock on which nothing new is decoded."""
    path = drawing.write("a.avi", drawing.pictures(30), times=[3 * number for number in range(30)], options={"bf": "2"})
    shown = drawing.numbers(path)
    assert list(dict.fromkeys(shown)) == list(range(30))
    assert shown[:-6] == [number for number in range(30) for _ in range(3)][: len(shown) - 6]


@pytest.mark.parametrize("rate", [5, Fraction(15, 2), 10, 12, 15])
@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.wmv"])
def test_slow_sources_hold_each_picture_until_the_next(drawing, name, rate):
    path = drawing.write(name, drawing.pictures(20), rate=rate, options={"bf": "2"})
    shown = drawing.numbers(path)
    assert list(dict.fromkeys(shown)) == list(range(20))
    assert np.ptp(np.bincount(shown)[:-1]) <= 1
    assert len(shown) == pytest.approx(20 * 25 / rate, abs=1)


def test_the_reported_files_show_every_picture_once(corpus):
    """A bar that moves on by 4 px in each picture."""
    for name in ("01_h264_bframes.avi", "01_h264_bframes.wmv"):
        tally = Tally()
        pictures = list(grid_frames(corpus / "reports" / name, 25.0, tally=tally))
        left = [int(np.argmax(picture[120, :, 1] > 150)) for picture in pictures]
        assert left == pytest.approx([4 * (number % 70) for number in range(75)], abs=1), name
        assert tally.good == 75

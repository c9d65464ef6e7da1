"""Frames that are kept give the same pictures again, without decoding, and let go of their memory."""

from __future__ import annotations

import gc
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from extractors.video.grid import KeptFrames, grid_frames


def written(drawing, kind: str):
    """A video of some kind; all have 30 frames or more."""
    match kind:
        case "turned":
            return drawing.write("a.mp4", drawing.pictures(30), turn={"degrees": 90, "hflip": True})
        case "ten bits":
            return drawing.write("a.mkv", drawing.pictures(30), codec="libx265", pix_fmt="yuv420p10le")
        case "RGB":
            return drawing.write("a.mkv", drawing.pictures(30), codec="ffv1", pix_fmt="bgr0")
        case "wide pixels":
            return drawing.write("a.mp4", drawing.pictures(30), aspect=Fraction(4, 3))
        case "slow":
            return drawing.write("a.mp4", drawing.pictures(30), rate=10)
        case "interlaced":
            return drawing.write("a.ts", drawing.pictures(30), options={"x264-params": "tff=1"})
        case "grows":
            small = drawing.write("a.ts", drawing.pictures(30))
            large = drawing.write("b.ts", drawing.pictures(30, width=320, height=192))
            (drawing.folder / "c.ts").write_bytes(small.read_bytes() + large.read_bytes())
            return drawing.folder / "c.ts"
    raise ValueError(kind)


@pytest.mark.parametrize("kind", ["turned", "ten bits", "RGB", "wide pixels", "slow", "interlaced", "grows"])
def test_kept_frames_give_the_pictures_of_the_first_pass(drawing, kind):
    path = written(drawing, kind)
    kept = KeptFrames(2**30)
    first = list(grid_frames(path, 25.0, kept=kept))
    path.unlink()
    again = list(kept.pictures())
    assert len(first) >= 30
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not other.flags.writeable
    # Repeated pictures are repeated objects, by which callers skip work.
    repeats, repeats_again = ([one is other for one, other in pairwise(shown)] for shown in (first, again))
    assert repeats == repeats_again


FRAME_BYTES = 256 * 96 * 3 // 2  # of YUV 4:2:0; rows of 256 need no padding


@pytest.mark.parametrize(("room", "fits"), [(40 * FRAME_BYTES - 1, False), (40 * FRAME_BYTES, True)])
def test_frames_are_kept_only_if_all_fit(drawing, room, fits):
    path = drawing.write("a.mp4", drawing.pictures(40, width=256))
    kept = KeptFrames(room)
    assert len(list(grid_frames(path, 25.0, kept=kept))) == 40
    assert (kept.pictures() is not None) == fits


def test_nothing_is_kept_of_a_video_that_promises_more_than_fits(drawing):
    path = drawing.write("a.mp4", drawing.pictures(40, width=256))
    kept = KeptFrames(39 * FRAME_BYTES)
    frames = grid_frames(path, 25.0, kept=kept)
    assert len(next(frames)) == 96
    assert kept.pictures() is None


def test_frames_are_given_up_once_they_do_not_fit_if_nothing_is_promised(drawing):
    path = drawing.write("a.h264", drawing.pictures(40, width=256))
    kept = KeptFrames(39 * FRAME_BYTES)
    frames = grid_frames(path, 25.0, kept=kept)
    next(frames)
    assert kept.pictures() is not None
    assert len(list(frames)) == 39
    assert kept.pictures() is None


def test_a_frame_that_is_shown_for_long_is_kept_once(drawing):
    path = drawing.write("a.mp4", drawing.pictures(10, width=256), rate=2)
    kept = KeptFrames(10 * FRAME_BYTES)
    shown = len(list(grid_frames(path, 25.0, kept=kept)))
    assert shown == 125
    assert len(list(kept.pictures())) == shown


@pytest.mark.parametrize("room", [0, 10 * FRAME_BYTES, 2**30], ids=["none kept", "given up", "kept"])
def test_what_is_cut_later_is_what_would_have_been_cut_at_once(drawing, room):
    path = drawing.write("a.h264", drawing.pictures(40, width=256))
    kept = KeptFrames(room)
    calls = []

    def cut(picture):
        calls.append(len(calls))
        return picture[8:40, 16:80].copy()

    now, later = [], []
    for number, picture in enumerate(grid_frames(path, 25.0, kept=kept)):
        now.append(picture[8:40, 16:80].copy())
        later.append(kept.later(cut, number, picture))
    assert len(now) == 40
    # What is asked for while frames are kept is cut only when it is wanted.
    assert len(calls) == {0: 40, 10 * FRAME_BYTES: 30}.get(room, 0)
    for expected, wanted in list(zip(now, later, strict=True))[::-3]:
        np.testing.assert_array_equal(wanted(), expected)


def test_frames_are_gone_as_soon_as_nobody_needs_them(drawing):
    """A cycle of references would hold them, with megabytes each, until Python looks for cycles."""
    path = written(drawing, "turned")
    gc.collect()
    gc.disable()
    try:
        kept = KeptFrames(2**30)
        for _ in grid_frames(path, 25.0, kept=kept):
            pass
        for _ in kept.pictures():
            pass
        left = [thing for thing in gc.get_objects() if isinstance(thing, av.VideoFrame)]
    finally:
        gc.enable()
    assert left == []

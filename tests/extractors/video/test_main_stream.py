"""Of several video streams, the one that moves is the video."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

Disposition = av.stream.Disposition


def write(path: Path, drawing, *, still_first: bool, stills: int = 1, cover: bool = False) -> Path:
    """A video of 30 pictures beside a larger still, which is marked as the default."""
    with av.open(str(path), "w") as container:

        def still() -> av.VideoStream:
            stream = container.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
            stream.disposition = Disposition.attached_pic if cover else Disposition.default
            return stream

        picture = still() if still_first else None
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        video.disposition = Disposition(0)
        picture = still() if picture is None else picture
        for index in range(stills):
            frame = av.VideoFrame.from_ndarray(np.full((480, 640, 3), 90, np.uint8)).reformat(format="yuvj420p")
            frame.pts = index
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        for index, drawn in enumerate(drawing.pictures(30)):
            frame = av.VideoFrame.from_ndarray(drawn).reformat(format="yuv420p")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


@pytest.mark.parametrize("still_first", [True, False])
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
@pytest.mark.parametrize("cover", [True, False])
def test_a_still_that_is_the_default_is_not_taken_for_the_video(tmp_path, drawing, name, still_first, cover):
    path = write(tmp_path / name, drawing, still_first=still_first, cover=cover)
    assert drawing.numbers(path) == list(range(30))


def test_the_default_stands_if_it_moves(tmp_path, drawing):
    path = write(tmp_path / "a.mkv", drawing, still_first=True, stills=30)
    assert drawing.numbers(path) != list(range(30))


def test_a_still_alone_is_one_picture(drawing):
    path = drawing.write("a.mkv", [drawing.picture(7)], codec="mjpeg", pix_fmt="yuvj420p")
    assert drawing.numbers(path) == [7]

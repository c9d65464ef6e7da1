"""What one video may cost: beyond it the video is refused with a reason, and the next one is prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from extractors.errors import VideoError
from extractors.preparation.pool import Finished, PreparerPool
from extractors.preparation.preparer import PreparationSettings, Request
from extractors.video.grid import grid_frames
from extractors.video.settings import Limits


def motion_jpeg(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """One grey picture after the other, of the given widths and heights; a megabyte holds many megapixels."""
    pictures = {size: cv2.imencode(".jpg", np.full((*size[::-1], 3), 90, np.uint8))[1].tobytes() for size in set(sizes)}
    path.write_bytes(b"".join(pictures[size] for size in sizes))
    return path


def outcomes(
    settings: PreparationSettings, limits: Limits, paths: list[Path], *, dynamic: Sequence[bool] = (True, True)
) -> list[object]:
    """The last part of each video, prepared one after the other by one child, with optical flow if `dynamic`."""
    requests = [Request(path, None, static=True, dynamic=flow) for path, flow in zip(paths, dynamic, strict=False)]
    last: dict[int, object] = {}
    with PreparerPool(replace(settings, limits=limits), 1, stall_s=60) as pool:
        for number, part in pool.prepare(requests):
            last[number] = part
    return [last[number] for number in range(len(paths))]


def refusal(outcome: object) -> tuple[str, str]:
    assert isinstance(outcome, VideoError), outcome
    return outcome.stage, outcome.reason


def test_pictures_larger_than_8k_are_refused_before_one_is_decoded(tmp_path):
    bomb = motion_jpeg(tmp_path / "bomb.mjpeg", [(9000, 9000)] * 2)
    assert bomb.stat().st_size < 3_000_000
    with pytest.raises(VideoError, match="9000 x 9000") as caught:
        next(grid_frames(bomb, 25.0))
    assert caught.value.reason == "too_large"


def test_8k_is_within_the_limits(tmp_path):
    video = motion_jpeg(tmp_path / "8k.mjpeg", [(7680, 4320)] * 3)
    assert [picture.shape for picture in grid_frames(video, 25.0)] == [(4320, 7680, 3)] * 3


def test_pictures_that_become_too_large_do_not_decode(tmp_path):
    bomb = motion_jpeg(tmp_path / "grows.mjpeg", [(320, 240)] * 10 + [(9000, 9000)] * 3)
    shapes = []
    with pytest.raises(VideoError) as caught:
        shapes.extend(picture.shape for picture in grid_frames(bomb, 25.0))
    assert caught.value.reason == "damaged"
    assert set(shapes) == {(240, 320, 3)}


def test_more_frames_than_allowed(clip):
    with pytest.raises(VideoError, match=r"limits\.frames") as caught:
        list(grid_frames(clip, 25.0, limits=Limits(frames=10)))
    assert caught.value.reason == "too_large"


def test_what_takes_too_much_memory_is_refused_and_the_next_video_is_prepared(settings, clip, tmp_path):
    bomb = motion_jpeg(tmp_path / "bomb.mjpeg", [(12000, 12000)] * 2)
    bomb_end, clip_end = outcomes(settings, Limits(memory_mb=512, pixels=10**9), [bomb, clip])
    assert refusal(bomb_end) == ("decode", "too_large")
    assert "limits.memory_mb" in str(bomb_end)
    assert isinstance(clip_end, Finished)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx"), ("a.mkv", "ffv1")]
)
def test_lack_of_memory_is_too_large_however_the_decoder_takes_it(settings, drawing, name, codec):
    """H.264's decoder takes a picture without memory for a broken one; MediaPipe crashes or hangs without any."""
    pictures = (drawing.picture(number, 3840, 2160) for number in range(4))
    options = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else None
    tight = Limits.model_construct(**{**Limits().model_dump(), "memory_mb": 40})
    (end,) = outcomes(settings, tight, [drawing.write(name, pictures, codec=codec, options=options)])
    assert refusal(end) == ("decode", "too_large")


def test_what_takes_too_much_processor_time_is_refused_and_the_next_video_is_prepared(settings, clip, corpus):
    long = corpus / "fi_v2" / "98fnGDVky00.005.mp4"
    # A new process loads optical flow, or compiles it on a new machine: the clip does without, to stay below the limit.
    long_end, clip_end = outcomes(settings, Limits(cpu_s=2), [long, clip], dynamic=(True, False))
    assert refusal(long_end) == ("decode", "timeout")
    assert "limits.cpu_s" in str(long_end)
    assert isinstance(clip_end, Finished)


def test_what_takes_too_long_is_refused(settings, corpus):
    (end,) = outcomes(settings, Limits(wall_s=0.5), [corpus / "fi_v2" / "98fnGDVky00.005.mp4"])
    assert refusal(end) == ("decode", "timeout")
    assert "limits.wall_s" in str(end)

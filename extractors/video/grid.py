"""Video files as pictures on a regular grid of time: upright, square pixels, nothing missing unnoticed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from extractors.errors import VideoError
from extractors.video.decoding import Tally, opened, pictures, promised_frames, promised_s, reached_s, shown
from extractors.video.limits import DEFAULT_LIMITS, Limits
from extractors.video.settings import VideoSettings
from extractors.video.upright import Canvas

# Containers such as Matroska round times to whole milliseconds; ticks coarser than that are the frame rate itself.
COARSEST_ROUNDING_S = 0.001
EXACT_S = 1e-6


DEFAULT_SETTINGS = VideoSettings()


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file says of its video, and what its first frame shows.

    Args:
        width, height: px, of the upright picture with square pixels.
        rotation_deg: 0, 90, 180 or 270: what the stored picture was turned by, clockwise, to stand upright.
        duration_s: promised by the file; 0 where it promises nothing.
        frames_promised: 0 where the file promises nothing.
        codec: FFmpeg's name, such as "h264".
    """

    width: int
    height: int
    rotation_deg: int
    duration_s: float
    frames_promised: int
    codec: str


def probe(path: Path | str) -> VideoInfo:
    """Say what a video file holds; decodes up to its first good frame.

    Raises:
        VideoError: stage "decode"; the reasons of `grid_frames`, except those only known at the end.
    """
    with opened(path) as (container, stream):
        canvas = Canvas(stream)
        first = next(pictures(container, stream, Tally()), None)
        if first is None:
            raise _no_frames(path)
        upright = canvas.place(first)
        return VideoInfo(
            width=upright.width,
            height=upright.height,
            rotation_deg=upright.rotation_deg,
            duration_s=promised_s(container, stream),
            frames_promised=stream.frames,
            codec=stream.codec_context.name,
        )


def grid_frames(
    path: Path | str,
    fps: float,
    *,
    limits: VideoSettings | None = DEFAULT_SETTINGS,
    most: Limits = DEFAULT_LIMITS,
    tally: Tally | None = None,
) -> Iterator[np.ndarray]:
    """Give the picture shown at k / fps seconds, for k = 0, 1, 2, ... up to the end of the video.

    Time starts with the first frame that can be decoded, and the last one is shown for its own duration. Only
    frames that fall on the grid are converted to RGB. A picture that is shown at several grid points comes as the
    same array object, so that work on it can be saved. Memory does not grow with the video's length.

    Args:
        path: a local file.
        fps: grid points per second.
        limits: what may be missing or broken (its fps is not used). None refuses nothing once frames come: for a
            second pass over a video that a first one has accepted.
        most: how large its pictures, and how many, may be.
        tally: counts what is decoded, for the caller.

    Yields:
        uint8 RGB [height, width, 3], read-only, upright, pixels square, one size throughout.

    Raises:
        VideoError: stage "decode", reason
            "unreadable": not there, or no right to read it;
            "not_a_video": no known container;
            "no_video": no video stream (a cover picture is none);
            "unsupported": no decoder for it, or no conversion of its pictures;
            "no_frames": nothing decodes;
            "too_large": its pictures are larger, or more, than `most` allows;
            "timestamps": one frame would be shown for longer than limits.max_still_s;
            and once all frames have come
            "truncated": less of the promised duration decodes than limits.min_decoded_share, or of the promised
                frames than limits.min_frames_share;
            "damaged": more frames are broken than limits.max_broken_share.
    """
    tally = Tally() if tally is None else tally
    with opened(path, most) as (container, stream):
        canvas = Canvas(stream, _largest(path, most) if _may_change_size(container, stream) else None)
        k = 0
        # The first frame's time and each later one's may be off by half a tick.
        tick_s = float(stream.time_base)
        tolerance_s = tick_s if EXACT_S <= tick_s <= COARSEST_ROUNDING_S else EXACT_S
        for frame, start_s, end_s in shown(pictures(container, stream, tally), stream):
            if limits is not None and end_s - start_s > limits.max_still_s:
                raise VideoError(
                    "decode",
                    "timestamps",
                    f"one frame, at {start_s:.1f} s, would be shown for {end_s - start_s:.1f} s "
                    f"(at most {limits.max_still_s:g} s allowed)",
                )
            if max(tally.total, k) > most.frames:
                raise VideoError(
                    "decode",
                    "too_large",
                    f"{Path(path).name} has more frames than limits.frames allows ({most.frames:,})",
                )
            upright = canvas.place(frame)
            tally.shown_s = end_s
            if k / fps >= end_s - tolerance_s:
                continue
            picture = canvas.draw(frame, upright)
            while k / fps < end_s - tolerance_s:
                yield picture
                k += 1
        if k == 0:
            raise _no_frames(path)
        if limits is not None:
            _check_whole(container, stream, tally, limits)


def _may_change_size(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> bool:
    """Whether it is worth looking: MP4 states one size, and codecs with key frames only would be decoded twice."""
    return "mp4" not in container.format.name and not stream.codec_context.codec.intra_only


def _largest(path: Path | str, most: Limits) -> tuple[int, int] | None:
    """Return width and height of the largest upright picture among the key frames, None if none decodes.

    The first picture must not decide: a recorded call begins with small ones.
    """
    with opened(path, most) as (container, stream):
        stream.codec_context.skip_frame = "NONKEY"
        canvas = Canvas(stream)
        uprights = (canvas.upright(frame) for frame in pictures(container, stream, Tally()))
        sizes = [(upright.width, upright.height) for upright in uprights]
        return max(sizes, key=math.prod, default=None)


def _no_frames(path: Path | str) -> VideoError:
    return VideoError("decode", "no_frames", f"no frame of {Path(path).name} can be decoded")


def _check_whole(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, tally: Tally, limits: VideoSettings
) -> None:
    duration_s = promised_s(container, stream) - tally.lead_s
    reached = reached_s(stream, tally) - tally.lead_s
    frames = promised_frames(stream)
    if frames:
        tally.share = min(1.0, tally.good / frames)
    elif duration_s > 0:
        tally.share = min(1.0, reached / duration_s)
    if reached < limits.min_decoded_share * duration_s:
        raise VideoError(
            "decode",
            "truncated",
            f"only {reached:.2f} s of {duration_s:.2f} s can be decoded "
            f"(at least {limits.min_decoded_share:.0%} needed)",
        )
    # Broken ones were found, and have a rule of their own.
    if tally.total < limits.min_frames_share * frames:
        raise VideoError(
            "decode",
            "truncated",
            f"only {tally.total} of {frames} frames are there (at least {limits.min_frames_share:.0%} needed)",
        )
    if tally.broken > limits.max_broken_share * tally.total:
        raise VideoError(
            "decode",
            "damaged",
            f"{tally.broken} of {tally.total} frames are broken (at most {limits.max_broken_share:.0%} allowed)",
        )

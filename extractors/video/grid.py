"""Video files as pictures on a regular time grid: upright, with square pixels, and checked for gaps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from extractors.errors import undecodable
from extractors.video.decoding import Tally, opened, pictures, promised_frames, promised_s, reached_s, seconds, shown
from extractors.video.settings import DEFAULT_LIMITS, Limits, VideoSettings
from extractors.video.upright import Canvas, Upright

# Containers such as Matroska round times to milliseconds; coarser ticks are the frame rate itself.
MAX_ROUNDING_S = 0.001
EXACT_S = 1e-6

# So many frames are decoded in a run, and fewer of those that take much memory.
RUN, RUN_BYTES = 16, 32 * 2**20

DEFAULT_SETTINGS = VideoSettings()

# A frame, its start and end in seconds, how to draw it, and the number of frames decoded so far.
Placed = tuple[VideoFrame, float, float, Upright, int]


class KeptFrames:
    """The frames of a grid as they were decoded, which take half of the memory of RGB pictures or less.

    Args:
        most_bytes: if all frames together take more, none is kept. If the file promises that they do, it does not come
            to that: a decoder holds on to the memory of frames that were given up.
    """

    def __init__(self, most_bytes: int) -> None:
        self._bytes_left = most_bytes
        self._frames: deque[tuple[Canvas, VideoFrame, Upright]] = deque()

    def expect(self, frames: float, frame_bytes: int) -> None:
        """Give up at once if so many frames of this size do not fit."""
        if frames * frame_bytes > self._bytes_left:
            self._bytes_left = -1

    def add(self, canvas: Canvas, frame: VideoFrame, upright: Upright) -> None:
        """Keep the frame at the next point of the grid; it may be the one at the last point."""
        if not self._frames or self._frames[-1][1] is not frame:
            self._bytes_left -= _bytes(frame)
        if self._bytes_left >= 0:
            self._frames.append((canvas, frame, upright))
        else:
            self._frames.clear()

    def later(
        self, cut: Callable[[np.ndarray], np.ndarray], number: int, picture: np.ndarray
    ) -> Callable[[], np.ndarray]:
        """Return a function that returns cut(picture), so that what is never asked for need not be cut.

        It draws the picture again, instead of holding on to it, if its frame is kept; otherwise, it is cut now.

        Args:
            number: the picture's place on the grid.
            picture: as `grid_frames` has yielded it.
        """
        if not self._frames:
            done = cut(picture)
            return lambda: done
        canvas, frame, upright = self._frames[number]
        return lambda: cut(canvas.draw(frame, upright))

    def pictures(self) -> Iterator[np.ndarray] | None:
        """Return what `grid_frames` has yielded, drawn once more; None if the frames were not kept.

        Frames are let go on the way.
        """
        return self._drawn() if self._frames else None

    def _drawn(self) -> Iterator[np.ndarray]:
        last = picture = None
        while self._frames:
            canvas, frame, upright = self._frames.popleft()
            if picture is None or frame is not last:
                picture = canvas.draw(frame, upright)
            last = frame
            yield picture


def grid_frames(
    path: Path | str,
    fps: float,
    *,
    thresholds: VideoSettings | None = DEFAULT_SETTINGS,
    limits: Limits = DEFAULT_LIMITS,
    tally: Tally | None = None,
    kept: KeptFrames | None = None,
) -> Iterator[np.ndarray]:
    """Yield the picture shown at k / fps seconds, for k = 0, 1, 2, ... up to the end of the video.

    Time starts at the first frame that decodes, and the last frame is shown for its own duration. Only frames on the
    grid are converted to RGB. A picture that is shown at several grid points is the same array object each time, which
    lets callers skip repeated work. Memory does not grow with the video's length.

    Args:
        fps: grid points per second.
        thresholds: how much may be missing or broken (its fps is not used). With None, nothing is refused once frames
            come: for a second pass over a video that passed a first one.
        limits: bounds on the size and number of the pictures.
        tally: counts the decoded frames for the caller.
        kept: keeps the frames on the grid, for a second pass without decoding.

    Yields:
        uint8 RGB [height, width, 3], read-only, upright, pixels square, one size throughout.

    Raises:
        VideoError: stage "decode", reason
            "unreadable": missing, or without permission to read it;
            "not_a_video": unknown container;
            "no_video": no video stream (a cover picture does not count);
            "unsupported": no decoder for it, or no conversion of its pictures;
            "no_frames": nothing decodes;
            "too_large": its pictures are larger or more numerous than `limits` allows;
            "timestamps": one frame would be shown for longer than thresholds.max_still_s;
            and after the last frame
            "truncated": less of the promised duration decodes than thresholds.min_decoded_share, or of the
                promised frames than thresholds.min_frames_share;
            "damaged": more frames are broken than thresholds.max_broken_share.
    """
    tally = Tally() if tally is None else tally
    with opened(path, limits) as (container, stream):
        canvas = Canvas(stream, _largest(path, limits) if _may_change_size(container, stream) else None)
        k = 0
        # The times of the first frame and of each later one may be off by half a tick.
        tick_s = seconds(1, stream.time_base)
        tolerance_s = tick_s if EXACT_S <= tick_s <= MAX_ROUNDING_S else EXACT_S
        # How to draw a frame depends on the decoder's state, which changes with the next one.
        placed = (
            (frame, start_s, end_s, canvas.place(frame), tally.total)
            for frame, start_s, end_s in shown(pictures(container, stream, tally), stream)
        )
        for frame, start_s, end_s, upright, total in _ahead(placed):
            if thresholds is not None and end_s - start_s > thresholds.max_still_s:
                allowed = f"(at most {thresholds.max_still_s:g} s allowed)"
                message = f"one frame, at {start_s:.1f} s, would be shown for {end_s - start_s:.1f} s {allowed}"
                raise undecodable("timestamps", message)
            if max(total, k) > limits.frames:
                message = f"{Path(path).name} has more frames than limits.frames allows ({limits.frames:,})"
                raise undecodable("too_large", message)
            tally.shown_s = end_s
            if k / fps >= end_s - tolerance_s:
                continue
            picture = canvas.draw(frame, upright)
            if kept is not None and k == 0:
                promised = (promised_s(container, stream) * fps, stream.frames)
                kept.expect(min((count for count in promised if count > 0), default=0), _bytes(frame))
            while k / fps < end_s - tolerance_s:
                if kept is not None:
                    kept.add(canvas, frame, upright)
                yield picture
                k += 1
        if k == 0:
            raise undecodable("no_frames", f"no frame of {Path(path).name} decodes")
        if thresholds is not None:
            _check_whole(container, stream, tally, thresholds)


def _ahead(placed: Iterator[Placed]) -> Iterator[Placed]:
    """Yield frames that are decoded in runs; an error comes after the frames before it.

    If the caller works on each frame before the next is decoded, decoding takes much longer: the decoder's code, tables
    and reference frames are no longer in the caches of the processor.
    """
    run: deque[Placed] = deque()
    try:
        for item in placed:
            run.append(item)
            if len(run) * _bytes(item[0]) >= RUN_BYTES or len(run) == RUN:
                while run:
                    yield run.popleft()
    except Exception:
        yield from run
        raise
    yield from run


def _bytes(frame: VideoFrame) -> int:
    return sum(plane.buffer_size for plane in frame.planes)


def _may_change_size(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> bool:
    """Return whether to search for larger pictures; MP4 states one size, and intra-only video would decode twice."""
    return "mp4" not in container.format.name and not stream.codec_context.codec.intra_only


def _largest(path: Path | str, limits: Limits) -> tuple[int, int] | None:
    """Return width and height of the largest upright picture among the key frames, None if none decodes.

    The first picture is unsuitable: recorded calls begin with small ones.
    """
    with opened(path, limits) as (container, stream):
        stream.codec_context.skip_frame = "NONKEY"
        canvas = Canvas(stream)
        uprights = (canvas.upright(frame) for frame in pictures(container, stream, Tally()))
        sizes = [(upright.width, upright.height) for upright in uprights]
        return max(sizes, key=math.prod, default=None)


def _check_whole(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, tally: Tally, thresholds: VideoSettings
) -> None:
    duration_s = promised_s(container, stream) - tally.lead_s
    reached = reached_s(stream, tally) - tally.lead_s
    frames = promised_frames(stream)
    if frames:
        tally.share = min(1.0, tally.good / frames)
    elif duration_s > 0:
        tally.share = min(1.0, reached / duration_s)
    if reached < thresholds.min_decoded_share * duration_s:
        needed = f"(at least {thresholds.min_decoded_share:.0%} needed)"
        raise undecodable("truncated", f"only {reached:.2f} s of {duration_s:.2f} s can be decoded {needed}")
    # Broken frames count here; they have their own rule.
    if tally.total < thresholds.min_frames_share * frames:
        needed = f"(at least {thresholds.min_frames_share:.0%} needed)"
        raise undecodable("truncated", f"only {tally.total} of {frames} frames exist {needed}")
    if tally.broken > thresholds.max_broken_share * tally.total:
        allowed = f"(at most {thresholds.max_broken_share:.0%} allowed)"
        raise undecodable("damaged", f"{tally.broken} of {tally.total} frames are broken {allowed}")

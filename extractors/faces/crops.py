"""Square crops of the face for the two networks.

Grey runs for optical flow are cut by one box each, so that only the face moves; a single colour picture for ResNet-50
is level and follows its own frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from extractors.errors import VideoError
from extractors.faces.boxes import cut_square, overlaps
from extractors.faces.levelling import View, cut_view, view_of
from extractors.faces.persons import SAME_PERSON_OVERLAP
from extractors.faces.settings import CropSettings
from extractors.faces.track import FaceTrack
from extractors.networks import SIDE_PX
from extractors.networks.preprocessing import resized

# Detector's scores that differ by less say nothing about which picture is better.
NEARLY = 0.03
# The window's box covers this share of its face boxes on each side; a few wild boxes must not widen it.
COVERED = (2.0, 98.0)


@dataclass(frozen=True)
class Window:
    """A run of grid frames, cut out by one fixed box.

    Args:
        index: 0, 1, ... within the video.
        first_frame: grid frame.
        fields: optical-flow fields; the window has fields + 1 frames.
        box: x, y, side in px of the upright picture; may extend beyond its edges.
    """

    index: int
    first_frame: int
    fields: int
    box: tuple[int, int, int]

    @property
    def last_frame(self) -> int:
        """Grid frame, inclusive; the next window may begin with it."""
        return self.first_frame + self.fields


@dataclass(frozen=True)
class CropWindow:
    """The grey crops of one window, uint8 [fields + 1, size, size]."""

    window: Window
    grey: np.ndarray


@dataclass(frozen=True)
class StaticView:
    """The place of a static crop: a grid frame, and the view of the face in it."""

    frame: int
    view: View


@dataclass(frozen=True)
class FaceCrop:
    """A face, uint8 RGB [size, size, 3], at one frame of the grid."""

    frame: int
    pixels: np.ndarray


def plan_windows(track: FaceTrack, settings: CropSettings) -> list[Window]:
    """Divide the stretches with a known face into consecutive windows.

    Neighbours share the frame between them. A stretch ends at a cut, or when the box is lost or jumps. Its last window
    needs at least settings.min_fields fields.

    Raises:
        VideoError: stage "motion", reason "too_short": no stretch is long enough.
    """
    windows: list[Window] = []
    longest = 0
    for start, stop in _stretches(track):
        longest = max(longest, stop - start)
        for first in range(start, stop - 1, settings.window_fields):
            fields = min(settings.window_fields, stop - 1 - first)
            if fields >= min(settings.min_fields, settings.window_fields):
                box = _still_box(track.boxes[first : first + fields + 1], settings.margin)
                windows.append(Window(len(windows), first, fields, box))
    if not windows:
        message = f"the longest run of frames with the face is {longest} (at least {settings.min_fields + 1} needed)"
        raise VideoError("motion", "too_short", message)
    return windows


def plan_static(track: FaceTrack, settings: CropSettings) -> list[StaticView]:
    """Choose up to settings.static_tokens frames in which the face was detected, spread evenly over them all.

    Frames of a dissolve show two pictures at once and are left out. Each equal share of the other frames gives one: of
    those with nearly the share's best score, the one in the middle.
    """
    seen = np.flatnonzero((track.scores > 0) & track.tracked & ~track.mixed)
    chosen: list[StaticView] = []
    if not len(seen):
        return chosen
    count = min(settings.static_tokens, len(seen))
    for share in np.split(seen, np.arange(1, count) * len(seen) // count):
        scores = track.scores[share]
        good = np.flatnonzero(scores >= scores.max() - NEARLY)
        frame = int(share[good[np.abs(good - (len(share) - 1) / 2).argmin()]])
        chosen.append(StaticView(frame, view_of(track.boxes[frame], track.eyes[frame], settings.margin)))
    return chosen


def iter_crops(
    pictures: Iterable[np.ndarray],
    windows: Sequence[Window],
    views: Sequence[StaticView],
    *,
    size_px: int = SIDE_PX,
    on_frame: Callable[[], None] = lambda: None,
) -> Iterator[CropWindow | FaceCrop]:
    """Cut out the windows and static crops of a video, one window in memory at a time.

    Args:
        pictures: those that the windows and views were planned on, from `grid_frames`.
        windows: from `plan_windows`, in order.
        views: from `plan_static`, in order.

    Raises:
        VideoError: stage "decode", reason "changed": the video ends before its windows or views do.
    """
    waiting, views_ahead = list(reversed(windows)), list(reversed(views))
    if not waiting and not views_ahead:
        return
    for frame, picture in enumerate(pictures):
        on_frame()
        if views_ahead and frame == views_ahead[-1].frame:
            yield FaceCrop(frame, cut_view(picture, views_ahead.pop().view, size_px))
        # Runs twice for a frame that ends one window and begins the next.
        while waiting and frame >= waiting[-1].first_frame:
            window = waiting[-1]
            if frame == window.first_frame:
                grey = np.empty((window.fields + 1, size_px, size_px), np.uint8)
            face = cut_square(picture, window.box)
            grey[frame - window.first_frame] = resized(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), (size_px, size_px))
            if frame < window.last_frame:
                break
            waiting.pop()
            yield CropWindow(window, grey)
        if not waiting and not views_ahead:
            return
    raise VideoError("decode", "changed", "the video has fewer frames than when its face was tracked")


def _stretches(track: FaceTrack) -> list[tuple[int, int]]:
    """Return (start, stop) of each run of frames of one shot with known boxes that do not jump."""
    known = np.concatenate([[False], track.tracked, [False]])
    starts = known[1:] & ~known[:-1]
    stops = ~known[1:] & known[:-1]
    with np.errstate(invalid="ignore"):
        jumps = overlaps(track.boxes[1:], track.boxes[:-1]) < SAME_PERSON_OVERLAP
    breaks = jumps | (np.diff(track.shots) > 0) & known[1:-2] & known[2:-1]
    starts[1:-1] |= breaks
    stops[1:-1] |= breaks
    return list(zip(np.flatnonzero(starts).tolist(), np.flatnonzero(stops).tolist(), strict=True))


def _still_box(boxes: np.ndarray, margin: float) -> tuple[int, int, int]:
    """Return x, y, side of the square around all of a window's boxes, float32 [n, 4] without NaN."""
    low = np.percentile(boxes[:, :2], COVERED[0], axis=0)
    high = np.percentile(boxes[:, :2] + boxes[:, 2:], COVERED[1], axis=0)
    side = max(1, round(float((high - low).max()) * margin))
    x, y = np.round((low + high - side) / 2).astype(int).tolist()
    return x, y, side

"""A contact sheet of a video: the places of its main person's face, and the crops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from extractors.faces.crops import StaticView, Window, plan_static, plan_windows
from extractors.faces.track import FaceTrack
from extractors.preparation.preparer import FaceCrop, Request
from flows.archive.reader import VideoReader
from flows.config.settings import RunConfig
from flows.visualize.clip import track_of

MOST_FACES, ACROSS = 24, 4
FRAME_IN, LINE_IN = 0.95, 1.3  # height of a frame, of the time line
# From the palette of Okabe and Ito, as in the style sheet, so that colour-blind readers can tell them apart.
BOX, MOTION, STATIC, CUT = "#E69F00", "#56B4E9", "#009E73", "#D55E00"


def draw_faces(config: RunConfig, video: Path) -> Figure:
    """Draw frames of a video with box, eyes and crops, the static tokens beside them, and scores over time.

    Raises:
        UserError: the video cannot be used.
    """
    with VideoReader(config, finds_faces=True) as reader:
        parts = reader.parts(Request(video, static=True))
        crops = [part for part in parts if isinstance(part, FaceCrop)]
        chosen = [crops[place] for place in np.linspace(0, len(crops) - 1, min(MOST_FACES, len(crops))).astype(int)]
        frames = reader.frames(video, [crop.frame for crop in chosen])
    track = track_of(parts)
    views = {planned.frame: planned for planned in plan_static(track, config.crops)}
    windows = plan_windows(track, config.crops)

    rows = math.ceil(len(chosen) / ACROSS)
    height, width = frames[chosen[0].frame].shape[:2]
    figure = Figure(figsize=(rcParams["figure.figsize"][0], FRAME_IN * rows + LINE_IN + 0.5), layout="constrained")
    figure.suptitle(_heading(video, track, width, height))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[FRAME_IN * rows, LINE_IN]).ravel()
    grid = upper.subplots(rows, 2 * ACROSS, squeeze=False, width_ratios=[max(width / height, 0.6), 1] * ACROSS).ravel()
    for axes in grid:
        axes.set_axis_off()
    for place, crop in enumerate(chosen):
        frame, token = grid[2 * place], grid[2 * place + 1]
        frame.imshow(frames[crop.frame])
        _draw_places(frame, track, views[crop.frame], windows)
        frame.set_xlim(0, width)
        frame.set_ylim(height, 0)
        frame.set_title(f"{crop.frame / config.video.fps:.1f} s")
        token.imshow(crop.pixels)
        token.set_title(f"{track.scores[crop.frame]:.2f}")
    _draw_line(lower.subplots(), config.video.fps, track, [crop.frame for crop in crops], windows)
    return figure


def _heading(video: Path, track: FaceTrack, width: int, height: int) -> str:
    heading = f"Faces in {video.name}: {width} x {height}, face in {track.coverage:.0%} of the frames"
    if track.quality is not None:
        heading += f", people: {track.quality.people:.0f}, cuts: {track.quality.cuts:.0f}"
        heading += f", {track.quality.confirmed_share:.0%} confirmed by YuNet"
    return heading


def _draw_places(axes: Axes, track: FaceTrack, planned: StaticView, windows: list[Window]) -> None:
    """Draw the box, the eyes, the window's crop and the static crop over the frame."""
    x, y, box_width, box_height = track.boxes[planned.frame].tolist()
    axes.add_patch(Rectangle((x, y), box_width, box_height, fill=False, edgecolor=BOX))
    eyes = track.eyes[planned.frame]
    axes.plot(eyes[::2], eyes[1::2], ".", color=BOX, markersize=2)
    for window in windows:
        if window.first_frame <= planned.frame <= window.last_frame:
            left, top, side = window.box
            axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=MOTION, linestyle="--"))
            break
    axes.add_patch(Polygon(planned.view.corners, fill=False, edgecolor=STATIC))


def _draw_line(axes: Axes, fps: float, track: FaceTrack, static: list[int], windows: list[Window]) -> None:
    """Draw scores over time, with windows of motion, static tokens and cuts."""
    times = np.arange(len(track.scores)) / fps
    for window in windows:
        label = "windows of motion" if window is windows[0] else None
        span = window.first_frame / fps, window.last_frame / fps
        axes.axvspan(*span, color=MOTION, alpha=0.2 + 0.2 * (window.index % 2), linewidth=0, label=label)
    for number, cut in enumerate(np.flatnonzero(np.diff(track.shots)) + 1):
        axes.axvline(cut / fps, color=CUT, label=None if number else "cuts")
    axes.plot(times, np.where(track.scores > 0, track.scores, np.nan), color="black", label="score of the face")
    axes.plot(np.array(static) / fps, np.full(len(static), 0.04), "^", color=STATIC, label="static tokens")
    axes.plot([], [], color=BOX, label="box and eyes")
    axes.set_xlim(0, len(track.scores) / fps)
    axes.set_ylim(0, 1)
    axes.set_xlabel("time in s")
    axes.legend(ncols=6, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)

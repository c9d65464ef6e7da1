"""A video overlaid with its face track, cuts, and a model's attention over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from extractors.faces.track import FaceTrack
from extractors.video.encoding import write_mp4
from flows.archive.families import families_of
from flows.archive.reader import VideoReader
from flows.config.settings import RunConfig
from flows.session.errors import UserError
from flows.visualize.faces import BOX, CUT
from flows.visualize.files import wrapped
from flows.visualize.model import see_clip, video_file
from fusion.pictures.timeline import FOR, TimeLine
from storage.files.commit import commit_file
from storage.shards.store import FeatureStore

SHORTEST_PX, LONGEST_PX = 640, 1280  # longer side of the pictures: text must be legible, and files small
STRIP_PX, DPI = 220, 100
CUT_SHOWN_S = 0.3
DASH_PX = 8


def write_annotated(config: RunConfig, video_id: str, out: Path) -> None:
    """Write an MP4 without sound: the pictures with box and eyes above the attention over time with cuts.

    The face track comes from the store, so faces are not detected again; pictures are decoded in a child process.

    Raises:
        UserError: as `flows.visualize.model.see_clip`; the store has no face track of the video; the video is not in
            the folder, has changed since then, or cannot be used.
    """
    clip = see_clip(config, video_id)
    path = video_file(config, clip.video_id)
    rows = next(FeatureStore(config.store.path).read(families_of(config).faces, [clip.video_id]), None)
    if rows is None:
        raise UserError(f"the store has no face track of {clip.video_id}; `traitline extract` makes it")
    track = FaceTrack.from_rows(rows.vectors)
    line = TimeLine(clip.attention(), None, clip.start_s, clip.end_s)
    heading = clip.heading(config.weights, "Attention")
    with VideoReader(config) as reader, commit_file(out) as temporary:
        frames = reader.each_frame(path, range(len(track.scores)), rows.video_sha256)
        pictures = (frame.pixels for frame in frames)
        write_mp4(temporary, _annotated(pictures, track, line, config.video.fps, heading), config.video.fps)


def _annotated(
    pictures: Iterator[np.ndarray], track: FaceTrack, line: TimeLine, fps: float, heading: str
) -> Iterator[np.ndarray]:
    """Yield each picture with its marks above the strip, uint8 RGB [height, width, 3], both even."""
    times = np.arange(len(track.scores)) / fps
    attention = line.on_times(times)
    cuts = np.flatnonzero(np.diff(track.shots)) + 1
    strip = None
    for number, picture in enumerate(pictures):
        scale = float(np.clip(max(picture.shape[:2]), SHORTEST_PX, LONGEST_PX)) / max(picture.shape[:2])
        height, width = (max(2, round(side * scale / 2) * 2) for side in picture.shape[:2])
        shown = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        if strip is None:
            strip = _strip(max(width, SHORTEST_PX), track, line, cuts, fps, heading)
        _draw_face(shown, track, number, scale)
        place = f"{times[number]:.2f} s   shot {track.shots[number]}   attention {attention[number]:.3f}"
        _write(shown, place, (10, 22))
        if np.any((cuts <= number) & (number < cuts + CUT_SHOWN_S * fps)):
            _write(shown, "CUT", (10, 46), CUT)
        thickness = round(8 * attention[number] / max(float(attention.max()), 1e-12))
        if thickness:
            cv2.rectangle(shown, (0, 0), (width - 1, height - 1), _rgb(FOR), thickness)
        page = np.full((height + STRIP_PX, strip.pixels.shape[1], 3), 255, np.uint8)
        left = (page.shape[1] - width) // 2
        page[:height, left : left + width] = shown
        page[height:] = strip.at(times[number])
        yield page


def _draw_face(picture: np.ndarray, track: FaceTrack, number: int, scale: float) -> None:
    """Draw box and eyes, dashed if they are interpolated, and the detector's score."""
    if not track.tracked[number]:
        _write(picture, "no face", (10, picture.shape[0] - 12), BOX)
        return
    x, y, width, height = (track.boxes[number] * scale).tolist()
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
    detected = track.scores[number] > 0
    for start, end in zip(np.array(corners[:-1]), np.array(corners[1:]), strict=True):
        count = 1 if detected else max(1, int(np.abs(end - start).max() / DASH_PX / 2))
        for part in range(count):
            first = start + (end - start) * part / count
            last = first + (end - start) / count / (1 if detected else 2)
            cv2.line(picture, _pixel(first), _pixel(last), _rgb(BOX), 2, cv2.LINE_AA)
    for eye in track.eyes[number].reshape(2, 2):
        if not np.isnan(eye).any():
            cv2.circle(picture, _pixel(eye * scale), 3, _rgb(BOX), -1, cv2.LINE_AA)
    label = f"face {track.scores[number]:.2f}" if detected else "face, interpolated"
    _write(picture, label, _pixel(np.array([max(0.0, x), max(60.0, y - 8)])), BOX)


@dataclass(frozen=True)
class _Strip:
    """The attention over time as a picture, and where times are on it.

    Args:
        pixels: uint8 RGB [STRIP_PX, width, 3].
        left_px, right_px: of time 0 and of `length_s`.
        top_px, bottom_px: of the axes.
    """

    pixels: np.ndarray
    left_px: float
    right_px: float
    top_px: int
    bottom_px: int
    length_s: float

    def at(self, time_s: float) -> np.ndarray:
        """Return the picture with a line at this time."""
        shown = self.pixels.copy()
        x = round(self.left_px + (self.right_px - self.left_px) * time_s / self.length_s)
        cv2.line(shown, (x, self.top_px), (x, self.bottom_px), (0, 0, 0), 2)
        return shown


def _strip(width: int, track: FaceTrack, line: TimeLine, cuts: np.ndarray, fps: float, heading: str) -> _Strip:
    """Draw attention to each window, with cuts and with the time in which the face is known."""
    length_s = len(track.scores) / fps
    figure = Figure(figsize=(width / DPI, STRIP_PX / DPI), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(wrapped(heading, figure), fontsize=9, loc="left")
    by_moment, even = line.by_moment(), 1 / len(line.start_s)
    middle, span = (line.start_s + line.end_s) / 2, line.end_s - line.start_s
    axes.bar(middle, by_moment, span * 0.96, color=FOR, alpha=0.5, label="attention to a window of motion")
    axes.axhline(even, color="black", linestyle=":", linewidth=1, label="all alike")
    for number, cut in enumerate(cuts):
        axes.axvline(cut / fps, color=CUT, linestyle="--", linewidth=1, label=None if number else "cut")
    top = max(2 * even, 1.05 * float(by_moment.max()))
    known = np.where(track.tracked, 0.02 * top, np.nan)
    axes.plot(np.arange(len(known)) / fps, known, color=BOX, linewidth=3, label="face found")
    axes.set(xlim=(0, length_s), ylim=(0, top), xlabel="time in s", ylabel="attention")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(ncols=4, loc="outside lower center", fontsize=7, borderpad=0)
    canvas.draw()  # type: ignore[no-untyped-call]  # Matplotlib annotates little
    box = axes.get_window_extent()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]  # likewise
    return _Strip(pixels, box.x0, box.x1, round(STRIP_PX - box.y1), round(STRIP_PX - box.y0), length_s)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return red, green, blue


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _write(picture: np.ndarray, text: str, place: tuple[int, int], colour: str = "white") -> None:
    """Write a line with a dark outline, so that it can be read on any picture."""
    for shade, thickness in (((0, 0, 0), 4), (_rgb(colour), 1)):
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, shade, thickness, cv2.LINE_AA)

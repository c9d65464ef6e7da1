"""Attention over time beside the clip's frames: the moments with attention, and those that affected a trait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rcParams
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D

BARS_IN, MOVING_IN = 1.25, 5.0
ROUNDING = 1e-6  # of a score; smaller values carry no information
FOR, AGAINST = "C0", "C1"
LINES = ("-", "--", "-.", ":")
LEAST_EFFECT = 0.01  # of a score; axes of effects go at least so far, so that what is negligible looks negligible
SILENCE = "no moment raises or lowers it"


@dataclass(frozen=True, eq=False)
class TimeLine:
    """Attention to the motion tokens of one clip, and its effect on a trait.

    Args:
        weights: float [heads, Ts, Td], attention without padding.
        relevance: float [heads, Ts, Td], from `fusion.model.relevance.attention_relevance`; None draws attention only.
        start_s: float [Td], start of each motion token in seconds.
        end_s: float [Td], end of each motion token.

    Raises:
        ValueError: the number of times differs from the number of motion tokens, or relevance has another shape.
    """

    weights: np.ndarray
    relevance: np.ndarray | None
    start_s: np.ndarray
    end_s: np.ndarray
    trait: str = ""

    def __post_init__(self) -> None:
        tokens = self.weights.shape[-1:]
        if self.start_s.shape != tokens or self.end_s.shape != tokens:
            raise ValueError(f"{tokens[0]} motion tokens need as many times, got {self.start_s.shape}")
        if self.relevance is not None and self.relevance.shape != self.weights.shape:
            raise ValueError(f"relevance must be {self.weights.shape}, got {self.relevance.shape}")

    def by_head(self) -> np.ndarray:
        """Return the attention to each motion token, averaged over the faces: [heads, Td]; a head sums to 1."""
        return np.asarray(self.weights.mean(axis=1))

    def by_moment(self) -> np.ndarray:
        """Return the mean over faces and heads: [Td]; sums to 1."""
        return np.asarray(self.weights.mean(axis=(0, 1)))

    def spoken(self) -> np.ndarray:
        """Return the relevance for the trait, summed over faces and heads: [Td]; positive raises the score."""
        if self.relevance is None:
            return np.zeros_like(self.by_moment())
        spoken = self.relevance.sum(axis=(0, 1))
        return np.where(np.abs(spoken) < ROUNDING, 0.0, spoken)

    def on_times(self, time_s: np.ndarray) -> np.ndarray:
        """Return the attention at points in time, [n]: the mean over the windows that contain a point, or 0."""
        time_s = np.asarray(time_s, np.float64)
        inside = (self.start_s <= time_s[:, None]) & (time_s[:, None] <= self.end_s)
        return np.asarray((inside * self.by_moment()).sum(axis=1) / np.maximum(inside.sum(axis=1), 1))


def plot_time_line(line: TimeLine, frames: Sequence[np.ndarray], frame_time_s: np.ndarray, *, heading: str) -> Figure:
    """Draw a strip of frames above the attention over time. A frame's border shows the attention at its time.

    Args:
        frames: uint8 RGB [H, W, 3], in order of time.
        frame_time_s: time of each frame.

    Raises:
        ValueError: there are no frames, or the number of times differs from theirs.
    """
    if len(frames) != len(frame_time_s) or not len(frames):
        raise ValueError(f"{len(frames)} frames need as many times, got {len(frame_time_s)}")
    bars = 1 + (line.relevance is not None)
    height, width = frames[0].shape[:2]
    strip_in = 0.9 * rcParams["figure.figsize"][0] / len(frames) * height / width
    figure = Figure(figsize=(rcParams["figure.figsize"][0], strip_in + BARS_IN * bars + 1.0), layout="constrained")
    figure.suptitle(heading)
    grid = figure.add_gridspec(1 + bars, 1, height_ratios=[strip_in + 0.35, *[BARS_IN] * bars])
    panels = grid[0].subgridspec(1, len(frames)).subplots(squeeze=False)[0]
    at = line.on_times(frame_time_s)
    for axes, frame, time_s, weight in zip(panels, frames, frame_time_s, at, strict=True):
        _framed(axes, frame, weight / max(float(at.max()), 1e-12))
        axes.set_title(f"{time_s:.1f} s")
    _draw_bars(figure, [grid[1 + bar] for bar in range(bars)], line)
    return figure


def animate_time_line(
    line: TimeLine, frames: Sequence[np.ndarray], frame_time_s: np.ndarray, *, heading: str
) -> FuncAnimation:
    """Animate the frames above the attention over time, with a moving marker; see `plot_time_line`."""
    bars = 1 + (line.relevance is not None)
    figure = Figure(figsize=(MOVING_IN, 3.0 + BARS_IN * bars), layout="constrained")
    figure.suptitle(heading)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + bars, 1, height_ratios=[2.6, *[BARS_IN] * bars])
    picture = figure.add_subplot(grid[0])
    places = [grid[1 + bar] for bar in range(bars)]
    markers = [axes.axvline(frame_time_s[0], color="black", linewidth=1.2) for axes in _draw_bars(figure, places, line)]
    at = line.on_times(frame_time_s)

    def draw(number: int) -> list[Line2D]:
        picture.clear()
        _framed(picture, frames[number], at[number] / max(float(at.max()), 1e-12))
        for marker in markers:
            marker.set_xdata([frame_time_s[number]] * 2)
        return markers

    draw(0)
    step_s = float(np.median(np.diff(frame_time_s))) if len(frames) > 1 else 1.0
    return FuncAnimation(figure, draw, frames=len(frames), interval=1000 * step_s)


def _framed(axes: Axes, frame: np.ndarray, share: float) -> None:
    axes.imshow(frame)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(linewidth=0.5 + 3 * share, edgecolor=(*to_rgb(FOR), 0.15 + 0.85 * share))


def _draw_bars(figure: Figure, places: Sequence[SubplotSpec], line: TimeLine) -> list[Axes]:
    middle, width = (line.start_s + line.end_s) / 2, line.end_s - line.start_s
    attention = figure.add_subplot(places[0])
    attention.bar(middle, line.by_moment(), width * 0.96, color="0.8", label="mean of heads")
    edges = np.stack([line.start_s, line.end_s], axis=1)
    for head, weights in enumerate(line.by_head()):
        dashes = LINES[head % len(LINES)]
        for moment, (span, weight) in enumerate(zip(edges, weights, strict=True)):
            label = f"head {head + 1}" if moment == 0 else None
            attention.plot(span, [weight, weight], label=label, color="0.25", linestyle=dashes, linewidth=1)
    attention.set_ylabel("attention")
    attention.set_ylim(bottom=0)
    attention.legend(
        ncols=5, loc="lower right", bbox_to_anchor=(1, 0.97), columnspacing=1, handlelength=1.5, borderpad=0
    )
    attention.set_ylim(top=1.05 * max(float(line.by_head().max()), 1e-12))
    drawn = [attention]
    if line.relevance is not None:
        spoken = line.spoken()
        speech = figure.add_subplot(places[1], sharex=attention)
        colours = [FOR if value >= 0 else AGAINST for value in spoken]
        bars = speech.bar(middle, spoken, width * 0.96, color=colours, edgecolor="white")
        for bar, value in zip(bars, spoken, strict=True):
            bar.set_hatch("" if value >= 0 else "///")
        speech.axhline(0, color="black", linewidth=0.8)
        reach = 1.1 * max(LEAST_EFFECT, float(np.abs(spoken).max()))
        speech.set_ylim(-reach, reach)
        if not spoken.any():
            speech.text(0.5, 0.75, SILENCE, ha="center", va="center", transform=speech.transAxes)
        speech.set_ylabel(f"raises (+) or lowers (-)\n{line.trait}")
        speech.ticklabel_format(axis="y", scilimits=(-2, 2))
        drawn.append(speech)
    for axes in drawn:
        axes.set_xlim(0, float(line.end_s.max()))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelbottom=axes is drawn[-1])
    drawn[-1].set_xlabel("time in the video (s)")
    return drawn

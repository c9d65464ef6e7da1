"""Pictures of the dynamic network's features over space and time."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from matplotlib import rcParams
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from mpl_toolkits.mplot3d import Axes3D

from extractors.pictures.optical_flow import draw_arrows, draw_wheel, optical_flow_colours
from extractors.pictures.static import draw_overlay, enlarged, overlay_colours, rounded

CLOUD_QUANTILE = 0.9
MOMENTS_ACROSS = 6
LABEL_SHARE = 1.35  # width of the column of labels, in panels
LABEL_LETTERS = 18
PANELS_ACROSS = 4  # of a moving picture
LEGEND_ACROSS = 6
LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True, eq=False)
class WindowMaps:
    """Feature maps of one layer over one window of motion, with the window's frames and optical flow.

    Args:
        maps: float [t, h, w, C]; t counts the layer's steps.
        start_s, end_s: of the window, in seconds of the video.
        frames: uint8 grey [T + 1, H, W].
        optical_flow: float [T, H, W, 2].
    """

    maps: np.ndarray
    start_s: float
    end_s: float
    frames: np.ndarray
    optical_flow: np.ndarray

    @property
    def time_s(self) -> np.ndarray:
        """The middle of each step, float64 [t]."""
        return self.moments(len(self.maps))

    @property
    def field_time_s(self) -> np.ndarray:
        """The middle of each optical-flow field, float64 [T]."""
        return self.moments(len(self.optical_flow))

    @property
    def speed(self) -> np.ndarray:
        """Length of the optical flow, float [T, H, W], in pixels per frame."""
        return np.asarray(np.hypot(self.optical_flow[..., 0], self.optical_flow[..., 1]))

    @property
    def top_speed(self) -> float:
        """The speed that gets the full colour; the few pixels that are faster must not make all others pale."""
        return float(np.quantile(self.speed, 0.995))

    def moments(self, count: int) -> np.ndarray:
        """Return the middles of `count` equal parts of the window, float64 [count]."""
        return self.start_s + (np.arange(count) + 0.5) / count * (self.end_s - self.start_s)

    def step_of(self, time_s: float) -> int:
        """Return the step at a time within the window."""
        return self._part(time_s, len(self.maps))

    def field_of(self, time_s: float) -> int:
        """Return the optical-flow field, which is also the frame before it, at a time within the window."""
        return self._part(time_s, len(self.optical_flow))

    def _part(self, time_s: float, parts: int) -> int:
        return min(parts - 1, int((time_s - self.start_s) / (self.end_s - self.start_s) * parts))


def plot_layers_over_time(windows: Mapping[str, WindowMaps], channels: Mapping[str, int], *, heading: str) -> Figure:
    """Draw a feature of each layer over one window: frames on top, then a row per layer, time from left to right."""
    first = next(iter(windows.values()))
    moments = first.moments(MOMENTS_ACROSS)
    figure, grid = _table(1 + len(windows), MOMENTS_ACROSS, heading)
    _label(grid[0, 0], "frames")
    for axes, time_s in zip(grid[0, 1:], moments, strict=True):
        axes.imshow(first.frames[first.field_of(time_s)], cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{time_s:.2f} s")
    for row, (layer, window) in zip(grid[1:], windows.items(), strict=True):
        feature = window.maps[..., channels[layer]]
        size = " x ".join(map(str, window.maps.shape))
        largest = rounded(feature.max())
        _label(row[0], f"{textwrap.fill(layer, LABEL_LETTERS)}\n{size}\nfeature {channels[layer]}\nup to {largest}")
        for axes, time_s in zip(row[1:], moments, strict=True):
            shown = feature[window.step_of(time_s)]
            axes.imshow(shown, cmap="viridis", vmin=feature.min(), vmax=feature.max(), interpolation="nearest")
    return figure


def plot_evolution(windows: Sequence[WindowMaps], features: Sequence[int], *, heading: str) -> Figure:
    """Draw each feature's mean over space against time, and below it the mean speed of the optical flow."""
    height_in = 3.9 + 0.17 * ((len(features) - 1) // LEGEND_ACROSS)
    figure = Figure(figsize=(rcParams["figure.figsize"][0], height_in), layout="constrained")
    figure.suptitle(heading)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _curves(above, windows, features)
    for window in windows:
        below.plot(window.field_time_s, window.speed.mean(axis=(1, 2)), color="0.3", linewidth=1)
    above.set_ylabel("mean activation")
    figure.legend(loc="outside lower center", ncols=LEGEND_ACROSS)
    below.set_ylabel("optical flow\n(px per frame)")
    below.set_ylim(bottom=0)
    below.set_xlabel("time in the video (s)")
    return figure


def plot_comparison(
    window: WindowMaps, features: Sequence[int], *, heading: str, columns: int = MOMENTS_ACROSS
) -> Figure:
    """Draw a row of frames, one of optical flow (colours and arrows), and one of heat maps per feature.

    Time runs from left to right. Each feature has its own scale.
    """
    steps = np.unique(np.linspace(0, len(window.maps) - 1, min(columns, len(window.maps))).round().astype(int))
    figure, grid = _table(2 + len(features), len(steps), heading)
    longest = window.top_speed
    for column, step in enumerate(steps, start=1):
        at = window.field_of(window.time_s[step])
        grid[0, column].imshow(window.frames[at], cmap="gray", vmin=0, vmax=255)
        grid[0, column].set_title(f"{window.time_s[step]:.2f} s")
        grid[1, column].imshow(optical_flow_colours(window.optical_flow[at], longest))
        draw_arrows(grid[1, column], window.optical_flow[at], longest)
        for row, feature in enumerate(features, start=2):
            _heat(grid[row, column], window, feature, int(step))
    _label(grid[0, 0], "frames")
    draw_wheel(grid[1, 0], longest)
    for axes, feature in zip(grid[2:, 0], features, strict=True):
        _label(axes, f"feature {feature}", height=0.7)
        _heat_key(axes, float(window.maps[..., feature].max()))
    return figure


def plot_volume(window: WindowMaps, feature: int, *, heading: str) -> Figure:
    """Draw the strongest tenth of a feature's values as points in space and time, time from left to right.

    Stronger values are larger and brighter.
    """
    values = window.maps[..., feature]
    floor = max(float(np.quantile(values, CLOUD_QUANTILE)), float(values.min()))
    chosen = (values >= floor) & (values > values.min())
    steps, rows, columns = np.nonzero(chosen)
    strength = values[chosen]
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 4.2))  # a layout engine leaves much room around 3D axes
    figure.suptitle(heading)
    axes = Axes3D(figure, (-0.06, 0.02, 0.98, 0.94))
    figure.add_axes(axes)
    largest = max(float(values.max()), 1e-12)
    cloud = axes.scatter(
        window.time_s[steps],
        columns + 0.5,
        values.shape[1] - rows - 0.5,
        c=strength,
        s=6 + 50 * np.clip(strength / largest, 0, 1),
        cmap="viridis",
        alpha=0.75,
    )
    height, width = values.shape[1:]
    axes.set(xlim=(window.start_s, window.end_s), ylim=(0, width), zlim=(0, height))
    axes.set_xlabel("time in the video (s)", labelpad=8)
    # Ticks away from the corners, so that their labels do not overlap.
    axes.set_yticks([0.15 * width, 0.85 * width], labels=["left", "right"])
    axes.set_zticks([0.15 * height, 0.85 * height], labels=["bottom", "top"])
    axes.set_box_aspect((1.8, 1, 1), zoom=1.15)
    axes.view_init(elev=18, azim=-62)
    if len(steps):
        figure.colorbar(cloud, cax=figure.add_axes((0.9, 0.25, 0.015, 0.5)), label="activation")
    return figure


def animate_features(
    windows: Sequence[WindowMaps], features: Sequence[int], *, heading: str, frames_per_s: float = 8.0
) -> FuncAnimation:
    """Animate features: optical flow and heat maps over the face, above curves with a moving marker."""
    rows = 1 + len(features) // PANELS_ACROSS
    across = min(1 + len(features), PANELS_ACROSS)
    curves_in = 1.75 + 0.17 * ((len(features) - 1) // LEGEND_ACROSS)
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 1.9 * rows + curves_in + 0.4), layout="constrained")
    figure.suptitle(heading)
    FigureCanvasAgg(figure)
    above, below = cast(Sequence[SubFigure], figure.subfigures(2, 1, height_ratios=(1.9 * rows, curves_in)))
    grid = above.subplots(rows, across, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    panels = grid[: 1 + len(features)]
    curves = below.subplots()
    _curves(curves, windows, features)
    curves.set_xlabel("time in the video (s)")
    curves.set_ylabel("mean activation")
    below.legend(loc="outside upper center", ncols=LEGEND_ACROSS)
    marker = curves.axvline(windows[0].start_s, color="black", linewidth=1)
    longest = max(window.top_speed for window in windows)
    moments = [(window, at) for window in windows for at in _shown_fields(window, frames_per_s)]

    def draw(number: int) -> list[Axes]:
        window, at = moments[number]
        for axes in panels:
            axes.clear()
            axes.set_axis_off()
        panels[0].imshow(optical_flow_colours(window.optical_flow[at], longest))
        draw_arrows(panels[0], window.optical_flow[at], longest)
        panels[0].set_title("optical flow")
        now = window.field_time_s[at]
        for place, (axes, feature) in enumerate(zip(panels[1:], features, strict=True)):
            _heat(axes, window, feature, window.step_of(now))
            axes.set_title(f"feature {feature}", color=f"C{place}")
        marker.set_xdata([now, now])
        return list(panels)

    draw(0)
    return FuncAnimation(figure, draw, frames=len(moments), interval=1000 / frames_per_s)


def _table(rows: int, columns: int, heading: str) -> tuple[Figure, np.ndarray]:
    """Create a figure of square panels beside a column for labels; axes [rows, 1 + columns]."""
    panel_in = rcParams["figure.figsize"][0] / (columns + LABEL_SHARE)
    figure = Figure(figsize=(rcParams["figure.figsize"][0], (panel_in + 0.06) * rows + 0.5), layout="constrained")
    figure.suptitle(heading)
    grid = figure.subplots(rows, 1 + columns, squeeze=False, width_ratios=[LABEL_SHARE] + [1] * columns)
    for axes in grid.ravel():
        axes.set_axis_off()
    return figure, grid


def _label(axes: Axes, text: str, *, height: float = 0.5) -> None:
    axes.text(0.5, height, text, ha="center", va="center", transform=axes.transAxes)


def _heat_key(axes: Axes, largest: float) -> None:
    bar = axes.inset_axes((0.15, 0.45, 0.7, 0.09))
    bar.imshow([np.linspace(0, 1, 256)], cmap=overlay_colours(), aspect="auto")
    bar.set_xticks([0, 255], labels=["0", rounded(largest)])
    bar.set_yticks([])


def _curves(axes: Axes, windows: Sequence[WindowMaps], features: Sequence[int]) -> None:
    for place, feature in enumerate(features):
        dashes = LINES[place % len(LINES)]
        for number, window in enumerate(windows):
            name = f"feature {feature}" if number == 0 else None
            style: dict[str, Any] = {"color": f"C{place}", "linestyle": dashes, "marker": "o", "markersize": 2.5}
            axes.plot(window.time_s, window.maps[..., feature].mean(axis=(1, 2)), label=name, **style)


def _heat(axes: Axes, window: WindowMaps, feature: int, step: int) -> None:
    values = window.maps[..., feature]
    frame = window.frames[window.field_of(window.time_s[step])]
    draw_overlay(axes, frame, enlarged(values[step], *frame.shape), float(values.max()))


def _shown_fields(window: WindowMaps, frames_per_s: float) -> list[int]:
    count = max(1, round((window.end_s - window.start_s) * frames_per_s))
    shown = np.linspace(0, len(window.optical_flow) - 1, count).round().astype(int)
    return [int(at) for at in np.unique(shown)]

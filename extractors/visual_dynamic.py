"""Pictures of what the dynamic network sees, over space and time.

Curves take Okabe and Ito's colours, which people with any kind of colour vision tell apart, and a line style each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from extractors.visual_optical_flow import draw_arrows, draw_wheel, optical_flow_colours
from extractors.visual_static import SHOWN_DPI, draw_overlay, enlarged

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
MOVING_DPI = 80
CLOUD_QUANTILE = 0.9


@dataclass(frozen=True, eq=False)
class WindowMaps:
    """Feature maps of one layer over one window of motion, and what was seen meanwhile.

    Args:
        maps: float [t, h, w, C].
        start_s: of the window, in seconds of the video.
        end_s: of the window.
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
        """Middle of each of the layer's steps, float64 [t]."""
        steps = len(self.maps)
        return self.start_s + (np.arange(steps) + 0.5) / steps * (self.end_s - self.start_s)

    def field_at(self, step: int) -> int:
        """The optical-flow field, and the frame before it, in the middle of a step of the layer."""
        return min(len(self.optical_flow) - 1, int((step + 0.5) / len(self.maps) * len(self.optical_flow)))

    def mean(self, feature: int) -> np.ndarray:
        """Mean over space of one feature, [t]."""
        return self.maps[..., feature].mean(axis=(1, 2))


def plot_layers_over_time(maps: Mapping[str, np.ndarray], channels: Mapping[str, int], columns: int = 6) -> Figure:
    """Draw one feature of each layer as it runs through a window: a row per layer, time across.

    Args:
        maps: layer -> float [t, h, w, C].
        channels: layer -> which of its features.
        columns: points in time, evenly spread.
    """
    figure = Figure(figsize=(1.5 * columns, 1.75 * len(maps)), dpi=SHOWN_DPI, layout="constrained")
    for row, (layer, values) in zip(figure.subplots(len(maps), columns, squeeze=False), maps.items(), strict=True):
        feature = values[..., channels[layer]]
        for column, axes in enumerate(row):
            axes.set_axis_off()
            if column >= len(feature):
                continue
            step = column if len(feature) <= columns else round(column * (len(feature) - 1) / (columns - 1))
            axes.imshow(feature[step], cmap="viridis", vmin=feature.min(), vmax=feature.max(), interpolation="nearest")
            axes.set_title(f"step {step + 1} of {len(feature)}", fontsize=6)
        size = " x ".join(map(str, values.shape[:3]))
        row[0].set_title("")  # the one in the middle, which the next would run into
        row[0].set_title(f"{layer}, feature {channels[layer]}\n{size}; step 1", fontsize=6, loc="left")
    return figure


def plot_evolution(windows: Sequence[WindowMaps], features: Sequence[int], *, heading: str) -> Figure:
    """Draw the mean over space of features against time, and below them the mean speed of the optical flow."""
    figure = Figure(figsize=(7, 4.2), dpi=SHOWN_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for place, feature in enumerate(features):
        for number, window in enumerate(windows):
            name = f"feature {feature}" if number == 0 else None
            above.plot(window.time_s, window.mean(feature), label=name, marker="o", markersize=2.5, **_style(place))
    for window in windows:
        below.plot(_field_times(window), _speeds(window), color="0.3", linewidth=1)
    above.set_ylabel("mean activation")
    above.legend(fontsize=8, ncols=3)
    below.set_ylabel("optical flow\n(px per frame)", fontsize=8)
    below.set_xlabel("time in the video (s)")
    figure.suptitle(heading, fontsize=10)
    return figure


def plot_comparison(window: WindowMaps, features: Sequence[int], *, heading: str, columns: int = 6) -> Figure:
    """Draw frames, optical flow and the heat maps of features below each other, time across.

    The optical flow is Middlebury's colours with arrows, the wheel beside it; each feature has a scale of its own.
    With one feature it is that feature's spatial heat maps.
    """
    steps = np.unique(np.linspace(0, len(window.maps) - 1, min(columns, len(window.maps))).round().astype(int))
    rows = 2 + len(features)
    figure = Figure(figsize=(1.35 * (len(steps) + 1), 1.4 * rows + 0.4), dpi=SHOWN_DPI, layout="constrained")
    grid = figure.subplots(rows, len(steps) + 1, squeeze=False)
    longest = _longest(window)
    for column, step in enumerate(steps, start=1):
        at = window.field_at(int(step))
        grid[0, column].imshow(window.frames[at], cmap="gray", vmin=0, vmax=255)
        grid[0, column].set_title(f"{window.time_s[step]:.2f} s", fontsize=8)
        grid[1, column].imshow(optical_flow_colours(window.optical_flow[at], longest))
        draw_arrows(grid[1, column], window.optical_flow[at], longest)
        for row, feature in enumerate(features, start=2):
            _heat(grid[row, column], window, feature, int(step))
    draw_wheel(grid[1, 0])
    labels = [
        "frames",
        None,
        *(f"feature {feature}\nup to {window.maps[..., feature].max():.2g}" for feature in features),
    ]
    for axes, label in zip(grid[:, 0], labels, strict=True):
        if label is not None:
            axes.text(0.5, 0.5, label, ha="center", va="center", fontsize=8, transform=axes.transAxes)
    for axes in grid.ravel():
        axes.set_axis_off()
    figure.suptitle(heading, fontsize=10)
    return figure


def plot_volume(window: WindowMaps, feature: int, *, heading: str) -> Figure:
    """Draw a feature in space and time as a cloud: the strongest tenth of its places, time running to the right.

    The larger and brighter a point, the stronger.
    """
    values = window.maps[..., feature]
    floor = max(float(np.quantile(values, CLOUD_QUANTILE)), float(values.min()))
    chosen = (values >= floor) & (values > values.min())
    steps, rows, columns = np.nonzero(chosen)
    strength = values[chosen]
    figure = Figure(figsize=(6.4, 4.8), dpi=SHOWN_DPI)
    axes = figure.add_axes((-0.02, 0.0, 0.88, 1.0), projection="3d")
    largest = max(float(values.max()), 1e-12)
    cloud = axes.scatter(
        *(window.time_s[steps], columns + 0.5, values.shape[1] - rows - 0.5),
        **{"c": strength, "s": 6 + 50 * np.clip(strength / largest, 0, 1), "cmap": "viridis", "alpha": 0.75},
    )
    axes.set(xlim=(window.start_s, window.end_s), ylim=(0, values.shape[2]), zlim=(0, values.shape[1]))
    axes.set_xlabel("time in the video (s)")
    axes.set_yticks([0, values.shape[2]], labels=["left", "right"])
    axes.set_zticks([0, values.shape[1]], labels=["bottom", "top"])
    axes.set_box_aspect((1.8, 1, 1))
    axes.view_init(elev=18, azim=-62)
    if len(steps):
        figure.colorbar(cloud, cax=figure.add_axes((0.88, 0.25, 0.02, 0.5)), label="activation")
    figure.suptitle(heading, fontsize=10)
    return figure


def animate_features(
    windows: Sequence[WindowMaps], features: Sequence[int], *, heading: str, frames_per_s: float = 8.0
) -> FuncAnimation:
    """Let features evolve: optical flow and heat maps over the face side by side, a marker running along the curves."""
    figure = Figure(figsize=(1.9 * (1 + len(features)) + 0.2, 3.7), dpi=MOVING_DPI)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 1 + len(features), height_ratios=(1.5, 1), left=0.1, right=0.98, top=0.84, bottom=0.14, hspace=0.15
    )
    panels = [figure.add_subplot(grid[0, column]) for column in range(1 + len(features))]
    curves = figure.add_subplot(grid[1, :])
    for place, feature in enumerate(features):
        peak = max(max(float(window.mean(feature).max()) for window in windows), 1e-12)
        for window in windows:
            curves.plot(window.time_s, window.mean(feature) / peak, **_style(place))
    marker = curves.axvline(windows[0].start_s, color="black", linewidth=1)
    curves.set_xlabel("time in the video (s)", fontsize=8)
    curves.set_ylabel("share of peak", fontsize=8)
    curves.tick_params(labelsize=7)
    figure.suptitle(heading, fontsize=9)
    longest = max(_longest(window) for window in windows)
    moments = [(window, at) for window in windows for at in _shown_fields(window, frames_per_s)]

    def draw(number: int) -> list:
        window, at = moments[number]
        for axes in panels:
            axes.clear()
            axes.set_axis_off()
        panels[0].imshow(optical_flow_colours(window.optical_flow[at], longest))
        draw_arrows(panels[0], window.optical_flow[at], longest)
        panels[0].set_title("optical flow", fontsize=8)
        step = min(len(window.maps) - 1, int((at + 0.5) / len(window.optical_flow) * len(window.maps)))
        for place, (axes, feature) in enumerate(zip(panels[1:], features, strict=True)):
            _heat(axes, window, feature, step)
            axes.set_title(f"feature {feature}", fontsize=8, color=COLOURS[place % len(COLOURS)])
        now = _field_times(window)[at]
        marker.set_xdata([now, now])
        return panels

    return FuncAnimation(figure, draw, frames=len(moments), interval=1000 / frames_per_s)


def _heat(axes, window: WindowMaps, feature: int, step: int) -> None:
    values = window.maps[..., feature]
    frame = window.frames[window.field_at(step)]
    draw_overlay(axes, frame, enlarged(values[step], *frame.shape), float(values.max()))


def _style(place: int) -> dict:
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": LINES[place % len(LINES)], "linewidth": 1.4}


def _field_times(window: WindowMaps) -> np.ndarray:
    fields = len(window.optical_flow)
    return window.start_s + (np.arange(fields) + 0.5) / fields * (window.end_s - window.start_s)


def _shown_fields(window: WindowMaps, frames_per_s: float) -> list[int]:
    count = max(1, round((window.end_s - window.start_s) * frames_per_s))
    return np.unique(np.linspace(0, len(window.optical_flow) - 1, count).round().astype(int)).tolist()


def _speeds(window: WindowMaps) -> np.ndarray:
    return np.hypot(window.optical_flow[..., 0], window.optical_flow[..., 1]).mean(axis=(1, 2))


def _longest(window: WindowMaps) -> float:
    # a few wild pixels must not pale all others
    return float(np.quantile(np.hypot(window.optical_flow[..., 0], window.optical_flow[..., 1]), 0.995))

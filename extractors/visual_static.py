"""Pictures of what the static network sees: layer activations, filters, and maps laid over the frame.

Colour maps are viridis and inferno, which people with any kind of colour vision, and grey prints, can read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

SHOWN_DPI = 150
MAP_COLOURS = "inferno"
MOST_OPAQUE = 0.75


def plot_activations(
    picture: np.ndarray, maps: Mapping[str, np.ndarray], channels: Mapping[str, Sequence[int]]
) -> Figure:
    """Draw the picture and, in a row for each layer, some of its feature maps.

    Args:
        picture: uint8 RGB [H, W, 3].
        maps: layer -> float [h, w, C].
        channels: layer -> which maps to draw, each in a panel scaled to its own range.
    """
    columns = 1 + max(len(chosen) for chosen in channels.values())
    figure = Figure(figsize=(1.5 * columns, 1.75 * len(maps)), dpi=SHOWN_DPI, layout="constrained")
    grid = figure.subplots(len(maps), columns, squeeze=False)
    for row, (layer, values) in zip(grid, maps.items(), strict=True):
        row[0].imshow(picture)
        row[0].set_title(f"{layer}\n{values.shape[0]} x {values.shape[1]}, {values.shape[2]} features", fontsize=6)
        for axes, channel in zip(row[1:], channels[layer], strict=False):
            axes.imshow(values[..., channel], cmap="viridis", interpolation="nearest")
            axes.set_title(f"feature {channel}\nup to {values[..., channel].max():.4g}", fontsize=6)
        for axes in row:
            axes.set_axis_off()
    return figure


def enlarged(relevance: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring maps [h, w] to the size of a picture, smoothly; float32 [height, width]."""
    return cv2.resize(relevance.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def placed(relevance: np.ndarray, box: tuple[int, int, int], height: int, width: int) -> np.ndarray:
    """Lay a face crop's map where the crop was cut from its frame.

    Args:
        relevance: float [h, w], of the crop.
        box: x, y, side of the crop in px of the frame; may hang over its edges.
        height: of the frame.
        width: of the frame.

    Returns:
        float32 [height, width], NaN outside the crop.
    """
    x, y, side = box
    whole = np.full((height, width), np.nan, np.float32)
    top, bottom = max(0, y), max(0, min(height, y + side))
    left, right = max(0, x), max(0, min(width, x + side))
    whole[top:bottom, left:right] = enlarged(relevance, side, side)[top - y : bottom - y, left - x : right - x]
    return whole


def draw_overlay(axes: Axes, picture: np.ndarray, relevance: np.ndarray, largest: float) -> None:
    """Draw a grey picture and over it a map of the same size, the more opaque the larger its values.

    Args:
        axes: to draw in.
        picture: uint8 RGB [H, W, 3] or grey [H, W].
        relevance: float [H, W]; NaN shows the picture alone.
        largest: value that gets the full colour.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    share = np.clip(np.nan_to_num(relevance) / (largest if largest > 0 else 1.0), 0, 1)
    axes.imshow(share, cmap=MAP_COLOURS, vmin=0, vmax=1, alpha=MOST_OPAQUE * share)
    known = np.isfinite(relevance)
    if not known.all() and known.any():
        rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
        corners = [(columns[0], rows[0]), (columns[-1], rows[0]), (columns[-1], rows[-1]), (columns[0], rows[-1])]
        axes.add_patch(_outline(corners))
    axes.set_axis_off()


def plot_overlays(
    pictures: Sequence[np.ndarray], relevance: Sequence[np.ndarray], titles: Sequence[str], *, heading: str, unit: str
) -> Figure:
    """Draw maps over their pictures, all on one scale, so that pictures can be compared.

    Args:
        pictures: uint8 RGB [H, W, 3] each.
        relevance: float [h, w] each, stretched over its picture; or [H, W] from `placed`.
        titles: one each.
        heading: of the figure.
        unit: what the colours mean.
    """
    if not len(pictures) == len(relevance) == len(titles) > 0:
        raise ValueError(f"got {len(pictures)} pictures, {len(relevance)} maps and {len(titles)} titles")
    columns = min(4, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    shape = pictures[0].shape[0] / pictures[0].shape[1]
    size = (2.4 * columns + 0.9, (2.4 * shape + 0.3) * rows + 0.5)
    figure = Figure(figsize=size, dpi=SHOWN_DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    largest = max(float(np.nanmax(values, initial=0.0)) for values in relevance)
    for axes, picture, values, title in zip(grid, pictures, relevance, titles, strict=False):
        height, width = picture.shape[:2]
        whole = values if values.shape == (height, width) else enlarged(values, height, width)
        draw_overlay(axes, picture, whole, largest)
        axes.set_title(title, fontsize=8)
    for axes in grid[len(pictures) :]:
        axes.set_axis_off()
    drawn = grid[0].images[-1]
    bar = figure.colorbar(drawn, ax=list(grid), shrink=0.9)
    bar.set_label(unit, fontsize=8)
    bar.set_ticks([0, 0.5, 1], labels=[f"{share * largest:.2g}" for share in (0, 0.5, 1)])
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(heading, fontsize=10)
    return figure


def plot_filters(patterns: Sequence[np.ndarray], titles: Sequence[str], *, heading: str) -> Figure:
    """Draw the inputs that excite filters most, each scaled to its own range; grey stands for zero.

    Args:
        patterns: float [s, s, 3] in RGB order, or [s, s, C] of which each channel gets a grey panel.
        titles: one each.
        heading: of the figure.
    """
    panels = [panel for pattern in patterns for panel in _panels(pattern)]
    names = [name for pattern, name in zip(patterns, titles, strict=True) for name in _names(pattern, name)]
    columns = min(8, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(3.5, 1.3 * columns), 1.55 * rows + 0.4), dpi=SHOWN_DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, panel, name in zip(grid, panels, names, strict=False):
        axes.imshow(panel, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name, fontsize=7)
    figure.suptitle(heading, fontsize=9)
    return figure


def _panels(pattern: np.ndarray) -> list[np.ndarray]:
    shown = np.clip(0.5 + pattern / (2 * max(float(np.abs(pattern).max()), 1e-12)), 0, 1)
    return [shown] if pattern.shape[-1] == 3 else list(np.moveaxis(shown, -1, 0))


def _names(pattern: np.ndarray, name: str) -> list[str]:
    return [name] if pattern.shape[-1] == 3 else [f"{name}, {part}" for part in range(pattern.shape[-1])]


def _outline(corners: list[tuple[int, int]]) -> Polygon:
    return Polygon(corners, closed=True, fill=False, edgecolor="white", linewidth=1.0)

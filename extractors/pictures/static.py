"""Pictures of the static network's features: activations, filters, and maps drawn over frames.

The colour maps, viridis and inferno, remain readable with any colour vision and in grey prints.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from extractors.faces.levelling import View

MAPS_ACROSS = 6
FRAMES_ACROSS = 4
FILTERS_ACROSS = 8
MAP_COLOURS = "inferno"
MAX_OPACITY = 0.75
BAR_IN = 0.9  # width of the colour bar
MIN_WIDTH_IN = 85 / 25.4  # width of a figure, one column of a page
MAX_FRAME_IN = 3.2  # height of a frame


def plot_activations(
    picture: np.ndarray, maps: Mapping[str, np.ndarray], channels: Mapping[str, Sequence[int]], *, heading: str
) -> Figure:
    """Draw feature maps, those of each layer beside the picture.

    Args:
        picture: uint8 RGB [H, W, 3].
        maps: layer -> float [h, w, C].
        channels: layer -> the maps to draw, each scaled to its own range.
    """
    lines = [
        (layer, chosen[at : at + MAPS_ACROSS])
        for layer, chosen in channels.items()
        for at in range(0, len(chosen), MAPS_ACROSS)
    ]
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 1.42 * len(lines) + 0.3), layout="constrained")
    figure.suptitle(heading)
    across = min(MAPS_ACROSS, max(len(chosen) for chosen in channels.values()))
    grid = figure.subplots(len(lines), 1 + across, squeeze=False, width_ratios=[1.15] + [1] * across)
    before = None
    for row, (layer, chosen) in zip(grid, lines, strict=True):
        if layer != before:
            row[0].imshow(picture)
            size = " x ".join(map(str, maps[layer].shape))
            row[0].set_title(f"{textwrap.fill(layer, 16)}\n{size}", loc="left")
        before = layer
        for axes, channel in zip(row[1:], chosen, strict=False):
            axes.imshow(maps[layer][..., channel], cmap="viridis", interpolation="nearest")
            axes.set_title(f"feature {channel}\nup to {rounded(maps[layer][..., channel].max())}")
        for axes in row:
            axes.set_axis_off()
    return figure


def enlarged(relevance: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a map [h, w] to the size of a picture by linear interpolation; float32 [height, width]."""
    return cv2.resize(relevance.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def placed(relevance: np.ndarray, view: View, height: int, width: int) -> np.ndarray:
    """Place a face crop's map at the crop's position in its frame.

    Args:
        relevance: float [h, w], of the crop.
        view: of the crop; may extend beyond the frame.
        height, width: of the frame, in px.

    Returns:
        float32 [height, width], NaN outside the crop.
    """
    size = max(1, round(view.side))
    crop = enlarged(relevance, size, size)
    place = view.to_picture(size)
    whole: np.ndarray = cv2.warpAffine(
        crop, place, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=math.nan
    )
    return whole


def draw_overlay(axes: Axes, picture: np.ndarray, relevance: np.ndarray, largest: float) -> None:
    """Draw a map over a grey picture of the same size; larger values are more opaque.

    Args:
        picture: uint8 RGB [H, W, 3] or grey [H, W].
        relevance: float [H, W]; NaN leaves the picture uncovered.
        largest: value that gets the full colour.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    share = np.clip(np.nan_to_num(relevance) / (largest if largest > 0 else 1.0), 0, 1)
    axes.imshow(share, cmap=MAP_COLOURS, vmin=0, vmax=1, alpha=MAX_OPACITY * share)
    known = np.isfinite(relevance)
    if not known.all() and known.any():
        places = np.argwhere(known)[:, ::-1].astype(np.float32)
        corners = cv2.boxPoints(cv2.minAreaRect(places)).tolist()
        axes.add_patch(Polygon(corners, closed=True, fill=False, edgecolor="white", linewidth=1.0))
    axes.set_axis_off()


def plot_overlays(
    pictures: Sequence[np.ndarray],
    relevance: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    heading: str,
    unit: str,
    across: int = FRAMES_ACROSS,
) -> Figure:
    """Draw maps over their pictures on one common scale.

    Args:
        pictures: uint8 RGB [H, W, 3] each.
        relevance: one map per picture, float [h, w], enlarged to the picture's size; or [H, W] from `placed`.
        titles: one per picture.
        unit: label of the colour bar.
        across: most pictures in a row.
    """
    if not len(pictures) == len(relevance) == len(titles) > 0:
        raise ValueError(f"got {len(pictures)} pictures, {len(relevance)} maps and {len(titles)} titles")
    columns = min(across, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    shape = pictures[0].shape[0] / pictures[0].shape[1]
    panel_in = min((rcParams["figure.figsize"][0] - BAR_IN) / columns, MAX_FRAME_IN / shape)
    height_in = (panel_in * shape + 0.25) * rows + 0.45
    figure = Figure(figsize=(max(panel_in * columns + BAR_IN, MIN_WIDTH_IN), height_in), layout="constrained")
    figure.suptitle(heading)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    largest = max(float(np.nanmax(values, initial=0.0)) for values in relevance)
    for axes, picture, values, title in zip(grid, pictures, relevance, titles, strict=False):
        height, width = picture.shape[:2]
        whole = values if values.shape == (height, width) else enlarged(values, height, width)
        draw_overlay(axes, picture, whole, largest)
        axes.set_title(title)
    for axes in grid[len(pictures) :]:
        axes.set_axis_off()
    key = ScalarMappable(Normalize(0, 1), overlay_colours())
    bar = figure.colorbar(key, ax=list(grid), shrink=0.9, aspect=15 * rows)
    bar.set_label(unit)
    bar.set_ticks([0, 0.5, 1], labels=[rounded(share * largest) for share in (0, 0.5, 1)])
    return figure


def overlay_colours() -> ListedColormap:
    """Return the colours of `draw_overlay` on middle grey, for its colour bar."""
    share = np.linspace(0, 1, 256)[:, None]
    opaque = MAX_OPACITY * share
    return ListedColormap(opaque * colormaps[MAP_COLOURS](share[:, 0])[:, :3] + (1 - opaque) * 0.5)


def rounded(value: float) -> str:
    """Format a number as a label: three digits (0.0123), or a whole number from 1,000 upwards (1,150)."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def plot_filters(patterns: Sequence[np.ndarray], titles: Sequence[str], *, heading: str) -> Figure:
    """Draw the inputs that activate filters most, each scaled to its own range; grey stands for zero.

    Args:
        patterns: float [s, s, 3] in RGB order, or [s, s, C], each of whose channels gets a grey panel.
        titles: one per pattern.
    """
    panels: list[np.ndarray] = []
    names: list[str] = []
    for pattern, title in zip(patterns, titles, strict=True):
        shown = np.clip(0.5 + pattern / (2 * max(float(np.abs(pattern).max()), 1e-12)), 0, 1)
        coloured = pattern.shape[-1] == 3
        panels += [shown] if coloured else list(np.moveaxis(shown, -1, 0))
        names += [title] if coloured else [f"{title}, {channel}" for channel in range(pattern.shape[-1])]
    columns = min(FILTERS_ACROSS, len(panels))
    rows = math.ceil(len(panels) / columns)
    panel_in = min(rcParams["figure.figsize"][0] / columns, 1.2)
    figure = Figure(
        figsize=(max(panel_in * columns, MIN_WIDTH_IN), (panel_in + 0.33) * rows + 0.3), layout="constrained"
    )
    figure.suptitle(heading)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, panel, name in zip(grid, panels, names, strict=False):
        axes.imshow(panel, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name)
    return figure

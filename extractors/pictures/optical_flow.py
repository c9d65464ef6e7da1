"""Optical flow as colours (hue shows direction, saturation shows speed) and as arrows."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

# Number of hues from red to yellow, to green, cyan, blue, magenta, and back to red.
HUE_STEPS = (15, 6, 4, 11, 13, 6)
ARROWS_ACROSS = 9


def colour_wheel() -> np.ndarray:
    """Return the 55 colours of the wheel: float64 RGB [55, 3], 0 to 255.

    Sources:
        Baker et al., "A Database and Evaluation Methodology for Optical Flow", ICCV 2007; Middlebury's flow-code,
        colorcode.cpp.
    """
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], float)
    parts = []
    for steps, start, end in zip(HUE_STEPS, corners[:-1], corners[1:], strict=True):
        # The changing channel has whole levels, as published.
        level = np.floor(255 * np.arange(steps) / steps)[:, None]
        parts.append(np.where(end > start, level, np.where(end < start, 255 - level, 255 * start)))
    return np.concatenate(parts)


def optical_flow_colours(field: np.ndarray, largest: float) -> np.ndarray:
    """Colour a field as Middlebury does: right is red, down yellow, left cyan, up violet, and no motion white.

    Args:
        field: float [..., H, W, 2], dx (rightwards) and dy (down).
        largest: length that gets the full colour; longer vectors are darker.

    Returns:
        uint8 RGB [..., H, W, 3].
    """
    length = np.hypot(field[..., 0], field[..., 1])
    radius = (length / (largest if largest > 0 else 1.0))[..., None]
    wheel = colour_wheel() / 255
    # atan2 maps -0.0 and 0.0 to opposite angles; adding 0.0 turns -0.0 into 0.0.
    angle = np.arctan2(-(field[..., 1] + 0.0), -(field[..., 0] + 0.0)) / np.pi
    place = (angle + 1) / 2 * (len(wheel) - 1)
    lower = np.floor(place).astype(int)
    share = (place - lower)[..., None]
    colour = (1 - share) * wheel[lower] + share * wheel[(lower + 1) % len(wheel)]
    colour = np.where(radius <= 1, 1 - radius * (1 - colour), colour * 0.75)
    return np.asarray(np.floor(255 * colour), np.uint8)


def draw_wheel(axes: Axes, largest: float) -> None:
    """Draw the wheel as a legend; its rim stands for `largest` px per frame."""
    y, x = np.mgrid[-1:1:129j, -1:1:129j]
    disc = optical_flow_colours(np.stack([x, y], axis=-1), 1.0)
    disc[np.hypot(x, y) > 1] = 255
    axes.imshow(disc)
    axes.set_title(f"optical flow towards\n(rim: {largest:.2g} px per frame)")
    axes.set_axis_off()


def draw_arrows(axes: Axes, field: np.ndarray, largest: float) -> None:
    """Draw arrows over a picture of the same size, each for the mean motion of a square.

    Args:
        axes: with a picture drawn by `imshow`.
        field: float [H, W, 2].
        largest: length that spans a square.
    """
    step = max(1, field.shape[1] // ARROWS_ACROSS)
    rows, columns = field.shape[0] // step, field.shape[1] // step
    means = field[: rows * step, : columns * step].reshape(rows, step, columns, step, 2).mean(axis=(1, 3))
    lengths = np.hypot(means[..., 0], means[..., 1])
    y, x = np.mgrid[0:rows, 0:columns] * step + (step - 1) / 2
    moving = lengths > 0.05 * largest
    arrows = means[moving] * (step / largest if largest > 0 else 1.0)
    # Small heads: with larger ones, short arrows would consist of nothing else.
    heads: dict[str, Any] = {"width": 0.01, "headwidth": 3.5, "headlength": 3, "headaxislength": 2.7, "minlength": 0}
    # With angles="xy", arrows follow the axes, which point down like dy.
    scale: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
    axes.quiver(x[moving], y[moving], arrows[:, 0], arrows[:, 1], color="black", **scale, **heads)

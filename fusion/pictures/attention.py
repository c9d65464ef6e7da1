"""The attention of face tokens to motion tokens, as numbers and as a picture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops
from matplotlib import rcParams
from matplotlib.figure import Figure

from fusion.errors import InputError
from fusion.model.inputs import by_name, check_inputs
from fusion.model.kinds import PersonalityModel
from fusion.model.layers import CrossAttention

PANELS_ACROSS = 3
MAX_TICKS = 4


def get_attention_weights(
    model: PersonalityModel | CrossAttention, inputs: Any, dynamic: Any | None = None
) -> np.ndarray:
    """Return how much each static token attends to each dynamic token, per head.

    Args:
        model: the model, or its `cross_attention` layer alone.
        inputs: the model's inputs (a pair, or a dict with masks and times); or, with `dynamic`, the static tokens, as
            in `get_attention_weights(model.cross_attention, static, dynamic)`.
        dynamic: dynamic tokens, if `inputs` are static tokens.

    Returns:
        float32 [B, heads, Ts, Td]. The row of a real static token sums to 1 over the real dynamic tokens and is 0 at
        padding; the rows of padding are 0. For vectors, Ts = Td = 1 and every weight is 1. A bilinear model has one
        head, whose weights follow from the times.

    Raises:
        InputError: the inputs do not fit the model; or a bilinear model is in vector form, or they have no times.
    """
    if dynamic is not None:
        inputs = (inputs, dynamic)
    with warnings.catch_warnings():
        # In the vector form there is one key, whose weight of 1 is correct.
        warnings.filterwarnings("ignore", message="You are using a softmax over axis", category=UserWarning)
        if isinstance(model, CrossAttention):
            tokens = by_name(inputs)
            _, weights = model(**tokens, return_attention=True)
        else:
            tokens = model.token_inputs(check_inputs(inputs, model.static_dim, model.dynamic_dim))
            weights = model.attention(tokens)
    if weights is None:
        raise InputError("a bilinear model attends by time: it needs static_time_s and dynamic_time_s, and token form")
    numbers: np.ndarray = ops.convert_to_numpy(weights).astype(np.float32)
    if tokens.get("static_mask") is not None:
        numbers = numbers * ops.convert_to_numpy(tokens["static_mask"])[:, None, :, None]
    return numbers


def plot_attention_map(
    weights: np.ndarray,
    *,
    clip: int = 0,
    static_time_s: np.ndarray | None = None,
    dynamic_time_s: np.ndarray | None = None,
    title: str | None = None,
    save_path: str | Path | None = None,
) -> Figure:
    """Draw the attention of one clip: a panel per head and one for their mean; rows are faces, columns are motion.

    Args:
        weights: float [B, heads, Ts, Td] or, for one clip, [heads, Ts, Td]; in [0, 1], without padding.
        clip: index of the clip in the batch.
        static_time_s: [Ts], row labels in seconds; None numbers the rows.
        dynamic_time_s: [Td], column labels in seconds; None numbers the columns.
        title: heading of the figure.
        save_path: if given, also write the figure to this file, in the format of its suffix, in a folder that is
            created if needed.

    Returns:
        The figure. It belongs to no window and needs no display.

    Raises:
        ValueError: the shape is wrong, or the number of times differs from the number of tokens.
    """
    weights = np.asarray(weights)
    if weights.ndim == 4:
        weights = weights[clip]
    if weights.ndim != 3:
        raise ValueError(f"weights must be [B, heads, Ts, Td] or [heads, Ts, Td], got {weights.shape}")
    heads, rows, columns = weights.shape
    panels = [(f"head {head + 1}", weights[head]) for head in range(heads)] + [("mean of heads", weights.mean(axis=0))]
    across = min(PANELS_ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 1.9 * down + 0.3), layout="constrained")
    figure.suptitle(title if title is not None else "")
    grid = figure.subplots(down, across, squeeze=False)
    peak = float(weights.max())
    images = []
    for axes, (name, panel) in zip(grid.ravel(), panels, strict=False):
        image = axes.imshow(panel, aspect="auto", cmap="viridis", vmin=0.0, vmax=peak, interpolation="nearest")
        images.append(image)
        axes.set_title(name)
        _label_ticks(axes.xaxis, dynamic_time_s, columns)
        _label_ticks(axes.yaxis, static_time_s, rows)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("motion token" if dynamic_time_s is None else "motion at (s)")
    figure.supylabel("face token" if static_time_s is None else "face at (s)")
    figure.colorbar(images[-1], ax=list(grid.ravel()), label="attention weight", aspect=30)
    if save_path is not None:
        Path(save_path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(save_path)
    return figure


def _label_ticks(axis: Any, time_s: np.ndarray | None, count: int) -> None:
    """Set a few ticks, so that the labels of a long clip do not overlap."""
    if time_s is not None and len(time_s) != count:
        raise ValueError(f"{count} tokens need {count} times, got {len(time_s)}")
    shown = range(0, count, -(-count // MAX_TICKS))
    axis.set_ticks(shown, [f"{i + 1}" if time_s is None else f"{time_s[i]:.1f}" for i in shown])

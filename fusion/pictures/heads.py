"""The attention of each head: its spread, its distance in time, and the tokens that it relates."""

from __future__ import annotations

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

DYNAMIC_COLOUR, STATIC_COLOUR = "C0", "C1"


def head_scores(weights: np.ndarray, static_time_s: np.ndarray, dynamic_time_s: np.ndarray) -> dict[str, np.ndarray]:
    """Describe each head by two numbers, averaged over the face tokens.

    Args:
        weights: float [heads, Ts, Td], each row summing to 1.
        static_time_s: [Ts].
        dynamic_time_s: [Td].

    Returns:
        "spread": float64 [heads], in [0, 1]: entropy of a row as a share of the maximum, 0 attends to one token alone
        and 1 to all equally (0 if there is only one token); "distance_s": float64 [heads], mean time between a face
        and the motion that it attends to, in seconds.
    """
    weights = weights.astype(np.float64)
    logs = np.log(np.where(weights > 0, weights, 1))
    most = np.log(weights.shape[-1]) if weights.shape[-1] > 1 else 1.0
    distance = np.abs(static_time_s[:, None] - dynamic_time_s[None, :])
    return {
        "spread": -(weights * logs).sum(axis=-1).mean(axis=-1) / most,
        "distance_s": (weights * distance).sum(axis=-1).mean(axis=-1),
    }


def plot_head_scores(
    weights: np.ndarray, static_time_s: np.ndarray, dynamic_time_s: np.ndarray, *, heading: str
) -> Figure:
    """Draw the numbers of `head_scores` as bars."""
    scores = head_scores(weights, static_time_s, dynamic_time_s)
    uniform = np.abs(static_time_s[:, None] - dynamic_time_s[None, :]).mean()
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 0.34 * len(weights) + 1.1), layout="constrained")
    figure.suptitle(heading)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [f"head {head + 1}" for head in range(len(weights))]
    for axes, values, colour in (
        (left, scores["spread"], DYNAMIC_COLOUR),
        (right, scores["distance_s"], STATIC_COLOUR),
    ):
        bars = axes.barh(names, values, color=colour)
        axes.bar_label(bars, fmt="%.2f", padding=2)
        axes.margins(x=0.15)
    left.set_xlim(0, 1.15)
    left.invert_yaxis()
    left.set_xlabel("spread (0: one token, 1: all equally)")
    right.set_xlabel("mean time from face to motion (s)")
    right.set_title("dotted: uniform attention")
    right.axvline(uniform, color="black", linestyle=":", linewidth=1)
    return figure


def plot_token_relations(
    weights: np.ndarray, static_time_s: np.ndarray, dynamic_time_s: np.ndarray, *, heading: str
) -> Figure:
    """Connect face tokens (above) to the motion tokens (below) that they attend to, over time; one panel per head.

    Args:
        weights: float [heads, Ts, Td]; a wider and darker line shows a larger weight.
        static_time_s: [Ts].
        dynamic_time_s: [Td].
    """
    heads = len(weights)
    largest = max(float(weights.max()), 1e-12)
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 1.05 * heads + 0.8), layout="constrained")
    figure.suptitle(f"{heading}\nwidest line: a weight of {largest:.2f}")
    panels = figure.subplots(heads, 1, sharex=True, squeeze=False)[:, 0]
    for head, axes in enumerate(panels):
        for face, row in enumerate(weights[head] / largest):
            for motion, share in enumerate(row):
                if share > 0.02:
                    ends = [static_time_s[face], dynamic_time_s[motion]]
                    axes.plot(ends, [1, 0], color="0.15", linewidth=3 * share, alpha=float(np.clip(share, 0.08, 1)))
        axes.scatter(static_time_s, np.ones(len(static_time_s)), color=STATIC_COLOUR, marker="o", s=22, zorder=3)
        axes.scatter(dynamic_time_s, np.zeros(len(dynamic_time_s)), color=DYNAMIC_COLOUR, marker="s", s=30, zorder=3)
        axes.set_yticks([0, 1], labels=["motion", "faces"])
        axes.set_ylim(-0.25, 1.25)
        axes.set_title(f"head {head + 1}", loc="left", pad=2)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[-1].set_xlabel("time in the video (s)")
    return figure

"""Pictures of what features are like: people apart, directions of variance, single dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fusion.feature_dimensions import Components, Dimensions
from fusion.feature_identity import Identity

# Okabe and Ito's colours that can be told apart by everybody, with a shape each for prints without colour.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = "osD^vPX"
SIZE_IN = (7.0, 3.2)  # the width of a page of text


def plot_identity(identity: Identity, title: str) -> Figure:
    """Draw how alike tokens of one person are and how alike those of different people, over the sample's pairs.

    Args:
        identity: with pairs of both kinds, else the picture says that there are none.
        title: heading.
    """
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    axes = figure.subplots()
    if identity.auc is None:
        axes.text(0.5, 0.5, "no two clips of one person, or one person only", ha="center", va="center")
        axes.axis("off")
    else:
        both = np.concatenate([identity.same, identity.different])
        edges = np.linspace(both.min(), max(both.max(), both.min() + 1e-6), 61)
        for values, what, colour, style in (
            (identity.different, "different people", COLOURS[0], "-"),
            (identity.same, "one person, different clips", COLOURS[1], "--"),
        ):
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, color=colour, ls=style, lw=1.8, label=f"{what} ({len(values):,} pairs)")
            axes.axvline(values.mean(), color=colour, ls=":", lw=1)
        axes.set_xlabel("cosine similarity of two tokens (dotted: mean)")
        axes.set_ylabel("share of pairs")
        axes.legend(frameon=False, fontsize=8)
        title = f"{title}: same or different person, AUC {identity.auc:.3f}"
    axes.set_title(title, fontsize=10)
    return figure


def plot_components(components: Components, vectors: np.ndarray, people: Sequence[str], title: str) -> Figure:
    """Draw tokens along the first two principal components, and how much variance the components hold.

    Args:
        components: with at least two axes.
        vectors: float32 [n, D], a sample of tokens.
        people: the person in each, "" where it is not known; the seven with the most tokens get a colour and a shape.
        title: heading.
    """
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    scatter, variance = figure.subplots(1, 2, width_ratios=(3, 2))
    x, y = components.project(vectors)[:, :2].T
    counts = Counter(person for person in people if person)
    shown = [person for person, count in counts.most_common(len(COLOURS)) if count > 1]
    rest = ~np.isin(people, shown)
    size = 14 if len(x) < 500 else 6
    label = "others" if shown else "all people"
    if rest.any():
        scatter.scatter(x[rest], y[rest], size, color="0.75", marker=".", label=label, rasterized=True)
    for name, colour, marker in zip(shown, COLOURS, MARKERS, strict=False):
        theirs = np.asarray(people) == name
        scatter.scatter(x[theirs], y[theirs], size, color=colour, marker=marker, label=name, rasterized=True)
    figure.legend(loc="outside lower left", ncols=len(COLOURS) + 1, fontsize=6, frameon=False, columnspacing=1)
    for axis, (setter, share) in enumerate(
        zip((scatter.set_xlabel, scatter.set_ylabel), components.ratio, strict=False)
    ):
        setter(f"component {axis + 1} ({share:.1%} of variance)", fontsize=8)
    held = np.cumsum(components.ratio)
    variance.semilogx(np.arange(1, len(held) + 1), held, color=COLOURS[0])
    needed = components.needed(0.9)
    variance.axvline(needed, color="0.5", ls=":")
    variance.axhline(0.9, color="0.5", ls=":")
    variance.set_title(f"{needed:,} components hold 90 %", fontsize=8)
    variance.set_ylim(0, 1.02)
    variance.set_xlabel("components", fontsize=8)
    variance.set_ylabel("share of variance held", fontsize=8)
    for axes in (scatter, variance):
        axes.tick_params(labelsize=7)
    figure.suptitle(f"{title}: principal components", fontsize=10)
    return figure


def plot_dimensions(dimensions: Dimensions, title: str) -> Figure:
    """Draw the distribution of every dimension, sorted by mean, and the share of tokens in which it is 0.

    Dead, constant and saturated dimensions are marked below.

    Args:
        dimensions: of D dimensions.
        title: heading.
    """
    figure = Figure(figsize=(SIZE_IN[0], 4.2), layout="constrained")
    values, zeros = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    order = np.argsort(dimensions.mean, kind="stable")
    low, lower, median, upper, high = dimensions.quantiles[:, order]
    at = np.arange(len(order))
    values.fill_between(at, low, high, color="#CFE3F1", lw=0, label="5 to 95 %", rasterized=True)
    values.fill_between(at, lower, upper, color="#7FB3D5", lw=0, label="25 to 75 %", rasterized=True)
    values.plot(at, median, color="black", lw=0.8, label="median")
    values.set_ylabel("value", fontsize=8)
    zeros.fill_between(at, dimensions.zeros[order], color="0.6", lw=0, step="mid", rasterized=True)
    zeros.set_ylim(0, 1)
    zeros.set_ylabel("share of 0", fontsize=8)
    zeros.set_xlabel(f"dimensions, sorted by mean ({dimensions.tokens:,} tokens)", fontsize=8)
    place = np.argsort(order)
    for kind, colour, marker in (("dead", "#D55E00", "x"), ("constant", "#CC79A7", "+"), ("saturated", "#009E73", "^")):
        found = list(getattr(dimensions, kind))
        if found:
            height = np.zeros(len(found)) if kind == "dead" else dimensions.highest[found]
            values.plot(place[found], height, marker, color=colour, ms=5, label=f"{kind} ({len(found)})")
    values.legend(fontsize=7, frameon=False, ncols=2)
    for axes in (values, zeros):
        axes.tick_params(labelsize=7)
        axes.margins(x=0.01)
    figure.suptitle(f"{title}: distribution of every dimension", fontsize=10)
    return figure

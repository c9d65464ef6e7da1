"""Pictures of features: separation of people, principal components, single dimensions."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

from fusion.features.dimensions import Components, Dimensions
from fusion.features.identity import Identity

LEGEND_ACROSS = 4
MARKERS = "osD^vPX"  # one shape per colour, for prints without colour


def plot_identity(identity: Identity, title: str) -> Figure:
    """Draw the similarity of tokens of one person and of different people, over the pairs of a sample with both."""
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 3), layout="constrained")
    figure.suptitle(f"{title}: same or different person, AUC {identity.auc:.3f}")
    axes = figure.subplots()
    both = np.concatenate([identity.same, identity.different])
    edges = np.linspace(both.min(), max(both.max(), both.min() + 1e-6), 61)
    for values, pair_kind, colour, style in (
        (identity.different, "different people", "C0", "-"),
        (identity.same, "one person, different clips", "C1", "--"),
    ):
        shares = np.histogram(values, edges)[0] / len(values)
        axes.stairs(shares, edges, color=colour, ls=style, lw=1.8, label=f"{pair_kind} ({len(values):,} pairs)")
        axes.axvline(values.mean(), color=colour, ls=":", lw=1)
    axes.set_xlabel("cosine similarity of two tokens (dotted: mean)")
    axes.set_ylabel("share of pairs")
    axes.legend()
    return figure


def plot_components(components: Components, vectors: np.ndarray, people: Sequence[str], title: str) -> Figure:
    """Draw tokens along the first two principal components, and how much variance the components hold.

    Args:
        components: with at least two axes.
        vectors: float32 [n, D], a sample of tokens.
        people: the person in each, "" if unknown; the seven with the most tokens get a colour and a shape.
    """
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 3.4), layout="constrained")
    figure.suptitle(f"{title}: principal components")
    scatter, variance = figure.subplots(1, 2, width_ratios=(3, 2))
    x, y = components.project(vectors)[:, :2].T
    counts = Counter(person for person in people if person)
    shown = [person for person, count in counts.most_common(len(MARKERS)) if count > 1]
    rest = ~np.isin(people, shown)
    size = 14 if len(x) < 500 else 6
    label = "others" if shown else "all people"
    if rest.any():
        scatter.scatter(x[rest], y[rest], size, color="0.75", marker=".", label=label, rasterized=True)
    for place, (name, marker) in enumerate(zip(shown, MARKERS, strict=False)):
        theirs = np.asarray(people) == name
        scatter.scatter(
            x[theirs], y[theirs], size, color=f"C{place}", marker=marker, label=textwrap.fill(name, 20), rasterized=True
        )
    figure.legend(loc="outside lower left", ncols=LEGEND_ACROSS, columnspacing=1, handletextpad=0.2)
    for axis, (setter, share) in enumerate(
        zip((scatter.set_xlabel, scatter.set_ylabel), components.ratio, strict=False)
    ):
        setter(f"component {axis + 1} ({share:.1%} of variance)")
    held = np.cumsum(components.ratio)
    variance.semilogx(np.arange(1, len(held) + 1), held, color="C0")
    variance.xaxis.set_major_formatter("{x:,.0f}")
    needed = components.needed(0.9)
    variance.axvline(needed, color="0.5", ls=":")
    variance.axhline(0.9, color="0.5", ls=":")
    variance.set_title(f"{needed:,} {'holds' if needed == 1 else 'hold'} 90%")
    variance.set_ylim(0, 1.02)
    variance.set_xlabel("components")
    variance.set_ylabel("share of variance held")
    return figure


def plot_dimensions(dimensions: Dimensions, title: str) -> Figure:
    """Draw the distribution of every dimension, sorted by mean, and the share of tokens in which it is 0.

    Dead, constant and saturated dimensions are marked below.
    """
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 4.2), layout="constrained")
    figure.suptitle(f"{title}: distribution of every dimension")
    values, zeros = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    order = np.argsort(dimensions.mean, kind="stable")
    low, lower, median, upper, high = dimensions.quantiles[:, order]
    at = np.arange(len(order))
    values.fill_between(at, low, high, color="#CFE3F1", lw=0, label="5 to 95%", rasterized=True)
    values.fill_between(at, lower, upper, color="#7FB3D5", lw=0, label="25 to 75%", rasterized=True)
    values.plot(at, median, color="black", lw=0.8, label="median")
    values.set_ylabel("value")
    zeros.fill_between(at, dimensions.zeros[order], color="0.6", lw=0, step="mid", rasterized=True)
    zeros.set_ylim(0, 1)
    zeros.set_ylabel("share of 0")
    zeros.set_xlabel(f"dimensions, sorted by mean ({dimensions.tokens:,} tokens)")
    place = np.argsort(order)
    for kind, colour, marker in zip(("dead", "constant", "saturated"), ("C1", "C2", "C3"), "x+^", strict=True):
        found = list(getattr(dimensions, kind))
        if found:
            height = np.zeros(len(found)) if kind == "dead" else dimensions.highest[found]
            values.plot(place[found], height, marker, color=colour, ms=5, label=f"{kind} ({len(found)})")
    values.legend(ncols=2)
    for axes in (values, zeros):
        axes.margins(x=0.01)
    return figure

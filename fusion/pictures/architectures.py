"""Pictures that compare networks: their architectures and their costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, NullFormatter

from fusion.model.architecture import Architecture, Block

COLUMNS = 4
A3_IN = 297 / 25.4
ROW_IN = 0.52
BOX_HEIGHT = 0.84  # share of the distance between rows
WIDTH = 0.92  # of a column; arrows past boxes use the rest
TITLE_IN = 0.75
DARK = 0.6  # share of the work above which text is white


def plot_architectures(architectures: Mapping[str, Architecture]) -> Figure:
    """Draw networks side by side, input on top, with a box for each block that states its parameters and operations.

    The darker a box, the larger its share of the network's multiplications.

    Args:
        architectures: title -> network, at least one.

    Returns:
        The figure: as wide as a page for up to three networks, otherwise an A3 sheet. It belongs to no window.
    """
    columns = min(COLUMNS, len(architectures))
    titles = list(architectures)
    rows = [titles[at : at + columns] for at in range(0, len(titles), columns)]
    heights = [max(max(_ranks(architectures[title])) + 1 for title in row) for row in rows]
    width_in = A3_IN if columns == COLUMNS else rcParams["figure.figsize"][0]
    height_in = sum(ROW_IN * height + TITLE_IN for height in heights) + 0.05
    figure = Figure(figsize=(width_in, height_in))
    # Constrained layout would shrink the axes to make room for the text in the boxes.
    grid = figure.add_gridspec(
        len(rows),
        columns,
        height_ratios=heights,
        left=0.01,
        right=0.99,
        top=1 - TITLE_IN / height_in,
        bottom=0.05 / height_in,
        wspace=0.04,
        hspace=TITLE_IN / (ROW_IN * np.mean(heights)),
    )
    for row, (names, height) in enumerate(zip(rows, heights, strict=True)):
        for column, title in enumerate(names):
            _draw(figure.add_subplot(grid[row, column]), title, architectures[title], height)
    return figure


def plot_costs(names: Sequence[str], costs: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the costs of networks as dots on logarithmic scales, one panel per kind of cost.

    Args:
        costs: kind of cost, with its unit -> a positive number per network, or NaN if unknown.
    """
    figure = Figure(figsize=(rcParams["figure.figsize"][0], 0.25 * len(names) + 0.8), layout="constrained")
    figure.suptitle("What networks cost")
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(panels, costs.items(), strict=True):
        known = np.asarray(values, float)
        axes.semilogx(known, range(len(names)), "o", color="C0")
        axes.grid(axis="y", color="0.85")
        for row, value in enumerate(known):
            if np.isfinite(value):
                axes.annotate(short(value), (value, row), (6, 0), textcoords="offset points", va="center")
        axes.set_xlabel(title)
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        axes.xaxis.set_minor_formatter(NullFormatter())
        positive = known[known > 0]
        axes.set_xlim(positive.min() / 3, positive.max() * 100)  # room for the numbers
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    return figure


def short(count: float) -> str:
    """Format a number with three digits and k, M, G or T, as in 23.6M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def _ranks(architecture: Architecture) -> list[int]:
    """Return the row of each block: one below the lowest of its sources."""
    ranks = [0] * len(architecture.blocks)
    for source, target in sorted(architecture.edges, key=lambda edge: edge[1]):
        ranks[target] = max(ranks[target], ranks[source] + 1)
    return ranks


def _draw(axes: Axes, title: str, architecture: Architecture, height: int) -> None:
    ranks = _ranks(architecture)
    places = _places(architecture, ranks)
    for source, target in architecture.edges:
        _arrow(axes, (places[source], ranks[source]), (places[target], ranks[target]))
    for at, (block, rank) in enumerate(zip(architecture.blocks, ranks, strict=True)):
        width = WIDTH / ranks.count(rank)
        _box(axes, block, places[at], rank, width, block.macs / max(architecture.macs, 1))
    total = f"{architecture.parameters:,} parameters\n{short(architecture.macs)} multiply-adds"
    axes.set_title(f"{title}\n{total}")
    axes.set_xlim(0, 1)
    axes.set_ylim(height - 0.5, -0.5)
    axes.axis("off")


def _places(architecture: Architecture, ranks: Sequence[int]) -> list[float]:
    """Return each block's position across its column, 0 to 1: beside the other blocks of its row, in order."""
    places = []
    for at, rank in enumerate(ranks):
        beside = [other for other, theirs in enumerate(ranks) if theirs == rank]
        places.append(0.5 + WIDTH * ((beside.index(at) + 0.5) / len(beside) - 0.5))
    return places


def _arrow(axes: Axes, start: tuple[float, int], end: tuple[float, int]) -> None:
    """Draw an arrow from box to box, along the margin if there are rows in between."""
    half = BOX_HEIGHT / 2
    points = [(start[0], start[1] + half), (end[0], end[1] - half)]
    if end[1] - start[1] > 1:
        side = -1 if start[0] <= 0.5 else 1
        margin, edge = 0.5 + side * 0.49, 0.5 + side * (WIDTH / 2 - 0.01)
        points = [(edge, start[1]), (margin, start[1]), (margin, end[1]), (edge, end[1])]
    axes.plot(*zip(*points[:-1], strict=True), color="0.35", lw=0.8)
    arrow = {"arrowstyle": "-|>", "color": "0.35", "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", points[-1], points[-2], arrowprops=arrow)


def _box(axes: Axes, block: Block, x: float, rank: int, width: float, share: float) -> None:
    width -= 0.02  # beside the next box
    corner = (x - width / 2, rank - BOX_HEIGHT / 2)
    face = colormaps["Blues"](0.05 + 0.85 * share)
    shape = FancyBboxPatch(corner, width, BOX_HEIGHT, "round,pad=0,rounding_size=0.02", fc=face, ec="0.25", lw=0.6)
    axes.add_patch(shape)
    numbers = [f"{short(block.parameters)} par."] if block.parameters else []
    numbers += [f"{short(block.macs)} mult."] if block.macs else []
    between = ", " if width > WIDTH / 2 else "\n"
    text = block.name.rpartition("/")[2] + ("\n" + between.join(numbers) if numbers else "")
    colour = "white" if share > DARK else "black"
    axes.text(x, rank, text, ha="center", va="center", color=colour, linespacing=1.1)  # three lines fit the box

"""The style of pictures: as wide as a printed page, with text of 8 pt, in colours for all kinds of colour vision.

It equals the style in `extractors`, which nothing here imports.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import matplotlib
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

PAGE_IN = 180 / 25.4  # two columns of a journal
SHOWN_DPI = 200
MOVING_DPI = 100
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
LINES = ("-", "--", "-.", ":")
LETTERS_PER_IN = 12.5  # of a heading

STYLE: dict[RcKeyType, float | bool] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 9,
    "figure.labelsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "text.parse_math": False,  # a video's name may have a $
}

P = ParamSpec("P")
Drawn = TypeVar("Drawn", Figure, FuncAnimation)


def printed(draw: Callable[P, Drawn]) -> Callable[P, Drawn]:
    """Make a function draw in this style, whatever the user's style is."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Drawn:
        with matplotlib.rc_context(STYLE):
            drawn = draw(*args, **kwargs)
        figure = drawn if isinstance(drawn, Figure) else drawn._fig  # type: ignore[attr-defined]  # not public
        for axes in figure.axes:  # ticks are created when the figure is shown, in the style that is active then
            axes.tick_params(which="both", labelsize=STYLE["font.size"])
        return drawn

    return styled


def page(height_in: float, heading: str, *, width_in: float = PAGE_IN) -> Figure:
    """Create a figure that belongs to no window, with a heading and automatic layout."""
    figure = Figure(figsize=(width_in, height_in), dpi=SHOWN_DPI, layout="constrained")
    figure.suptitle(folded(heading, int(LETTERS_PER_IN * width_in)))
    return figure


def settle(figure: Figure) -> None:
    """Fix the layout, so that nothing trembles while a picture moves."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def folded(text: str, letters: int) -> str:
    """Break a text into lines of at most `letters` letters: after spaces, and long words also after . _ / and -."""
    lines = []
    for line in text.splitlines():
        lines.append("")
        for word in re.findall(r"[^ ]+ ?| ", line):
            short = len(word) <= letters // 2
            for part in [word] if short else re.findall(rf"[^ ._/-]{{1,{letters - 1}}}[ ._/-]?|[ ._/-]", word):
                if len(lines[-1] + part.rstrip()) > letters:
                    lines.append("")
                lines[-1] += part
    return "\n".join(line.strip(" ") for line in lines)

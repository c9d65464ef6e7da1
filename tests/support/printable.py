"""Whether a picture can be printed: as wide as a page at most, and every text there of 8 pt, whole and by itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from matplotlib.animation import FuncAnimation
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from flows.visualize.files import finish, picture_style

PAGE_MM, LARGER_PAGE_MM = 180, 297  # two columns of a journal, A3
SLACK_PX = 1.5


def faults_of(draw: Callable[[], Figure | FuncAnimation], width_mm: float = PAGE_MM) -> list[str]:
    """Return what is wrong with a picture in the commands' style, in words."""
    with picture_style():
        drawn = draw()
        if isinstance(drawn, FuncAnimation):
            drawn._draw_was_started = True  # it is looked at, and never played
            drawn = drawn._fig
        finish(drawn)
        return _faults(drawn, width_mm)


def _faults(figure: Figure, width_mm: float) -> list[str]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, edge = canvas.get_renderer(), figure.bbox
    found = [f"{figure.get_figwidth() * 25.4:.0f} mm wide"] if figure.get_figwidth() * 25.4 > width_mm + 0.1 else []
    boxes = []
    for text in shown_texts(figure):
        box = text.get_window_extent(renderer)
        boxes.append((text.get_text(), box.padded(-SLACK_PX)))
        if text.get_fontsize() < 8:
            found.append(f"{text.get_text()!r} has {text.get_fontsize()} pt")
        if min(box.x0 - edge.x0, box.y0 - edge.y0, edge.x1 - box.x1, edge.y1 - box.y1) < -SLACK_PX:
            found.append(f"{text.get_text()!r} leaves the picture")
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        if first.overlaps(second):
            found.append(f"{one!r} lies over {other!r}")
    return found


def shown_texts(figure: Figure) -> list[Text]:
    """All texts that are drawn and have a letter."""
    texts = [*figure.texts]
    for part in (figure, *figure.subfigs):
        texts += [text for text in (part._suptitle, part._supxlabel, part._supylabel) if text is not None]
        texts += [text for legend in part.legends for text in legend.get_texts()]
    for axes in [part for outer in figure.axes for part in (outer, *outer.child_axes)]:
        texts += [axes.title, axes._left_title, axes._right_title, *axes.texts]
        texts += axes.get_legend().get_texts() if axes.get_legend() is not None else []
        if axes.axison:
            for axis in axes._axis_map.values():
                texts += [axis.label, *(tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible())]
    return list({id(text): text for text in texts if text.get_visible() and text.get_text().strip()}.values())

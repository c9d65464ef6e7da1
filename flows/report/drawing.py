"""Charts as SVG in the page: colours follow the reader's theme, and text stays text.

A drawing is a list of marks with plain attributes. The template writes them with every value escaped, so that names of
videos may hold anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

TEXT_PX = 12
TICK_PX = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """One SVG element: its name, its attributes, and its text."""

    kind: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Drawing:
    """A picture with its title and a description in words.

    Args:
        description: the contents, for readers who do not see it.
        width, height: in CSS pixels.
    """

    title: str
    description: str
    width: int
    height: int
    marks: list[Mark] = field(default_factory=list)

    def rect(self, x: float, y: float, width: float, height: float, style: str, hint: str = "") -> None:
        """Add a filled box; `style` is its class in the page's style sheet, `hint` its tooltip."""
        sizes = {"x": x, "y": y, "width": max(width, 0), "height": max(height, 0)}
        self._add("rect", sizes, style, hint)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Add a straight line."""
        self._add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, style)

    def path(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """Add a line through points."""
        self.marks.append(Mark("polyline", {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points), "class": style}))

    def points(self, places: Sequence[tuple[float, float]], style: str) -> None:
        """Add many small points as one element, so that a page with thousands stays small."""
        strokes = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in places)  # round ends make a stroke of length 0 a point
        self.marks.append(Mark("path", {"d": strokes, "class": style}))

    def dot(self, x: float, y: float, style: str, hint: str = "", *, square: bool = False) -> None:
        """Add a round or square point."""
        if square:
            self.rect(x - 4, y - 4, 8, 8, style, hint)
        else:
            self._add("circle", {"cx": x, "cy": y, "r": 4.5}, style, hint)

    def text(self, x: float, y: float, text: str, anchor: str = "middle", style: str = "label") -> None:
        """Add a line of text with its baseline at y; `anchor`: start, middle or end."""
        self.marks.append(
            Mark("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "class": style}, text=text)
        )

    def _add(self, kind: str, sizes: dict[str, float], style: str, hint: str = "") -> None:
        attributes = {name: f"{value:.1f}" for name, value in sizes.items()}
        self.marks.append(Mark(kind, {**attributes, "class": style}, hint))


@dataclass(frozen=True)
class Axes:
    """The area of a drawing that has scales.

    Args:
        x_range: numbers at the left and at the right.
        y_range: numbers at the bottom and at the top.
        left, top, right, bottom: margins, in px.
    """

    drawing: Drawing
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 44
    top: float = 12
    right: float = 12
    bottom: float = 38

    def x(self, value: float) -> float:
        """Return the horizontal position of a number, in px."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.drawing.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Return the vertical position of a number, in px."""
        low, high = self.y_range
        floor = self.drawing.height - self.bottom
        return floor - (value - low) / (high - low) * (floor - self.top)

    def frame(self, x_label: str, y_label: str, *, x_ticks: int, y_ticks: int) -> None:
        """Draw both axes with ticks; the label of the vertical axis is horizontal, above it.

        With 0 `y_ticks`, the caller draws the vertical axis.
        """
        floor, right = self.y(self.y_range[0]), self.x(self.x_range[1])
        for value in ticks(*self.y_range, y_ticks) if y_ticks else ():
            self.drawing.line(self.left, self.y(value), right, self.y(value), "grid")
            self.drawing.text(self.left - 6, self.y(value) + TEXT_PX / 3, number(value), "end")
        for value in ticks(*self.x_range, x_ticks):
            self.drawing.line(self.x(value), floor, self.x(value), floor + TICK_PX, "axis")
            self.drawing.text(self.x(value), floor + TICK_PX + TEXT_PX, number(value))
        self.drawing.line(self.left, floor, right, floor, "axis")
        self.drawing.text((self.left + right) / 2, floor + TICK_PX + 2 * TEXT_PX + 4, x_label)
        self.drawing.text(2, TEXT_PX, y_label, "start")


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` + 1 round numbers in a range, in steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * power for step in (1, 2, 5, 10) if (high - low) / (step * power) <= most + 1e-9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def number(value: float) -> str:
    """Format a number for an axis, with thousands separators and no superfluous digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

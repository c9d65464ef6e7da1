"""The charts of the report. Each has a description that states its numbers in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flows.report.drawing import TEXT_PX, Axes, Drawing
from flows.session.console import counted

if TYPE_CHECKING:
    from fusion.pictures.timeline import TimeLine

SMALL = (236, 170)
SQUARE = (236, 248)  # with the margins of `Axes` and a top of 30, the area within both axes is square
WIDE_PX, CLIP_PX = 680, 350  # a clip's chart fits the screen of a telephone
LABELS_PX = 60  # such as "+0.00096"
ROW_PX = 26
TRAIT_BINS = 30
CHARACTER_PX = 7.2


def histogram(title: str, values: np.ndarray, edges: np.ndarray, unit: str, *, x_ticks: int = 5) -> Drawing:
    """Draw a histogram; a dashed line marks the mean.

    Args:
        title: what the numbers are.
        values: float [N], N >= 1.
        edges: float [bins + 1]; values outside count for the outermost bins.
        x_ticks: maximum number of steps on the axis.
    """
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    mean, middle = float(values.mean()), float(np.median(values))
    drawing = Drawing(
        title,
        f"{counted(len(values), 'video')}. Mean {mean:.3f}, standard deviation {values.std():.3f}, median "
        f"{middle:.3f}, from {values.min():.3f} to {values.max():.3f}.",
        *SMALL,
    )
    axes = Axes(drawing, (float(edges[0]), float(edges[-1])), (0, max(int(counts.max()), 1)), top=30)
    axes.frame(unit, "videos", x_ticks=x_ticks, y_ticks=min(3, max(int(counts.max()), 1)))
    for count, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            left, top = axes.x(low), axes.y(count)
            hint = f"{low:.3g} to {high:.3g}: {counted(count, 'video')}"
            drawing.rect(left, top, axes.x(high) - left - 1, axes.y(0) - top, "fill-a", hint)
    place = axes.x(float(np.clip(mean, *axes.x_range)))
    drawing.line(place, 20, place, axes.y(0), "mark")
    anchor = "end" if place > drawing.width / 2 else "start"
    shown = f"{mean:.3f}" if abs(mean) < 2 else f"{mean:.1f}"
    drawing.text(place + (-5 if anchor == "end" else 5), 26, f"mean {shown}", anchor, "label strong")
    return drawing


def trait_edges(scores: np.ndarray) -> np.ndarray:
    """Return one scale for all traits: the labels' range, extended if scores leave it; outliers count at the ends."""
    low, high = np.quantile(scores, [0.001, 0.999])
    return np.linspace(min(0.0, float(low)), max(1.0, float(high)), TRAIT_BINS + 1)


def against(title: str, description: str, points: Sequence[tuple[float, float]], labels: tuple[str, str]) -> Drawing:
    """Draw points beside the line on which both numbers are equal.

    Args:
        points: x and y; one or more.
    """
    both = np.array(points)
    low, high = float(both.min()), float(both.max())
    margin = max(0.05 * (high - low), 0.02)
    edges = (
        max(0.0, low - margin) if low >= 0 else low - margin,  # values in 0 to 1 get axes within that range
        min(1.0, high + margin) if high <= 1 else high + margin,
    )
    drawing, axes = _square(title, description, edges, labels)
    places = [(axes.x(x), axes.y(y)) for x, y in points]
    drawing.path(places, "line-a")
    for (x, y), place in zip(points, places, strict=True):
        drawing.dot(*place, "fill-a", f"{labels[0]} {x:.3f}, {labels[1]} {y:.3f}")
    return drawing


def scatter(title: str, scores: Sequence[float], labels: Sequence[float], edges: tuple[float, float]) -> Drawing:
    """Draw labels against scores, a point per clip, beside the line on which both are equal; `edges` end both axes."""
    correlation = float(np.corrcoef(scores, labels)[0, 1]) if np.std(scores) and np.std(labels) else 0.0
    description = f"{counted(len(scores), 'clip')}, score and label; their correlation is {correlation:.2f}."
    drawing, axes = _square(title, description, edges, ("score", "label"))
    drawing.points([(axes.x(x), axes.y(y)) for x, y in zip(scores, labels, strict=True)], "points")
    return drawing


def _square(title: str, description: str, edges: tuple[float, float], labels: tuple[str, str]) -> tuple[Drawing, Axes]:
    """Return a drawing whose axes both have these ends, with the line on which both numbers are equal."""
    drawing = Drawing(title, description, *SQUARE)
    axes = Axes(drawing, edges, edges, top=30)
    axes.frame(*labels, x_ticks=4, y_ticks=4)
    drawing.line(axes.x(edges[0]), axes.y(edges[0]), axes.x(edges[1]), axes.y(edges[1]), "mark")
    return drawing, axes


def intervals(
    title: str, label: str, rows: Sequence[tuple[str, Mapping[str, tuple[float, float, float]]]], marked: float | None
) -> Drawing:
    """Draw measures with intervals, a row per name; the first kind has round points, the second square ones.

    Args:
        rows: name -> by kind the value, and the ends of its interval.
        marked: position of a dashed line; None draws none.
    """
    kinds = list(dict.fromkeys(kind for _, cells in rows for kind in cells))
    numbers = [value for _, cells in rows for cell in cells.values() for value in cell]
    numbers += [marked] if marked is not None else []
    low, high = min(numbers), max(numbers)
    margin = max(0.05 * (high - low), 0.01)
    words = [f"{name}: {', '.join(f'{kind} {cell[0]:.3f}' for kind, cell in cells.items())}" for name, cells in rows]
    top = 24
    drawing = Drawing(title, "; ".join(words) + ".", WIDE_PX, top + ROW_PX * len(rows) + 40)
    left = 16 + CHARACTER_PX * max(len(name) for name, _ in rows)
    axes = Axes(drawing, (low - margin, high + margin), (len(rows), 0), left=left, top=top)  # the first row on top
    axes.frame(label, "", x_ticks=6, y_ticks=0)
    if marked is not None:
        drawing.line(axes.x(marked), top, axes.x(marked), axes.y(len(rows)), "mark")
    for place, kind in enumerate(kinds):
        _legend(drawing, left + place * 170 + 8, kind, place)
    for row, (name, cells) in enumerate(rows):
        drawing.text(left - 10, axes.y(row + 0.5) + TEXT_PX / 3, name, "end")
        for place, kind in enumerate(kinds):
            if kind in cells:
                value, below, above = cells[kind]
                y = axes.y(row + 0.5) + (5 if place else -5) * (len(kinds) > 1)
                drawing.line(axes.x(below), y, axes.x(above), y, "line-b" if place else "line-a")
                hint = f"{name}, {kind}: {value:.4f} [{below:.4f}, {above:.4f}]"
                drawing.dot(axes.x(value), y, _fill(place), hint, square=bool(place))
    return drawing


def shares(title: str, parts: Sequence[tuple[str, int]]) -> Drawing:
    """Draw one bar of shares; a legend names each part with its number and percentage."""
    total = max(sum(count for _, count in parts), 1)
    words = [f"{name}: {count:,} ({count / total:.1%})" for name, count in parts]
    drawing = Drawing(title, "; ".join(words) + ".", WIDE_PX, 52 + 20 * len(parts))
    left = 2.0
    for place, (name, count) in enumerate(parts):
        width = count / total * (WIDE_PX - 4)
        drawing.rect(left, 4, width, 30, f"share-{place}", words[place])
        left += width
        y = 58 + 20 * place
        drawing.rect(2, y - 10, 12, 12, f"share-{place}")
        drawing.text(22, y, f"{name}: {count:,} ({count / total:.1%})", "start")
    return drawing


@dataclass(frozen=True, slots=True)
class Scale:
    """The largest attention and the largest effect of several time lines, which are all drawn on this one scale."""

    attention: float
    effect: float

    @classmethod
    def of(cls, lines: Sequence[TimeLine]) -> Scale:
        """Return the scale of one or more time lines."""
        from fusion.pictures.timeline import LEAST_EFFECT  # Matplotlib takes its time to import

        effects = [float(np.abs(line.spoken()).max()) for line in lines]
        return cls(max(float(line.by_moment().max()) for line in lines), max(LEAST_EFFECT, *effects))


def time_line(title: str, line: TimeLine, scale: Scale) -> Drawing:
    """Draw the attention to each moment (upper bars) and its effect on the trait (lower bars).

    `fusion.pictures.timeline` draws the same for files. Its SVG is not used here because the content-security policy
    refuses its inline styles, it does not follow the theme, and its bars have no tooltips.
    """
    from fusion.pictures.timeline import SILENCE

    attention, spoken = line.by_moment(), line.spoken()
    most = int(attention.argmax())
    strongest = int(np.abs(spoken).argmax())
    effect = f"{line.trait.capitalize()}: {SILENCE}."
    if spoken[strongest]:
        effect = (
            f"The strongest effect {'for' if spoken[strongest] > 0 else 'against'} {line.trait}, "
            f"{spoken[strongest]:+.2g}, was from {line.start_s[strongest]:.1f} to {line.end_s[strongest]:.1f} s."
        )
    drawing = Drawing(
        title,
        f"{counted(len(attention), 'window')} of motion. Most attention, {attention[most]:.0%}, from "
        f"{line.start_s[most]:.1f} to {line.end_s[most]:.1f} s. {effect}",
        CLIP_PX,
        242,
    )
    end_s, limit = float(line.end_s.max()), scale.effect
    upper = Axes(drawing, (0, end_s), (0, scale.attention), left=LABELS_PX, top=22, bottom=242 - 100)
    lower = Axes(drawing, (0, end_s), (-limit, limit), left=LABELS_PX, top=138)
    lower.frame("time in the video (s)", "", x_ticks=5, y_ticks=0)
    drawing.line(LABELS_PX, upper.y(0), upper.x(end_s), upper.y(0), "axis")
    drawing.text(LABELS_PX - 6, upper.y(scale.attention) + TEXT_PX / 2, f"{scale.attention:.0%}", "end")
    for value in (limit, 0, -limit):
        drawing.text(LABELS_PX - 6, lower.y(value) + TEXT_PX / 3, f"{value:+.2g}" if value else "0", "end")
    drawing.text(2, 12, "attention, mean of heads", "start")
    drawing.text(2, 122, f"raises (+) or lowers (-) {line.trait}", "start")
    for start, end, weight, value in zip(line.start_s, line.end_s, attention, spoken, strict=True):
        when = f"{start:.1f} to {end:.1f} s"
        width = upper.x(end) - upper.x(start) - 2
        hint = f"{when}: {weight:.1%}"
        drawing.rect(upper.x(start), upper.y(weight), width, upper.y(0) - upper.y(weight), "fill-n", hint)
        top, floor = sorted((lower.y(value), lower.y(0)))
        style = "fill-a" if value >= 0 else "fill-b"
        if value:
            drawing.rect(lower.x(start), top, width, floor - top, style, f"{when}: {value:+.2g}")
    drawing.line(LABELS_PX, lower.y(0), lower.x(end_s), lower.y(0), "axis")
    return drawing


def learning_curve(history: Mapping[str, Sequence[float]], loss: str, baseline: float | None) -> Drawing:
    """Draw loss by epoch, in training and in validation if there was any, beside that of always predicting the mean."""
    kinds = {"training": history["loss"]}
    if "validation_loss" in history:
        kinds["validation"] = history["validation_loss"]
    words = [f"{kind} from {values[0]:.4g} to {values[-1]:.4g}" for kind, values in kinds.items()]
    numbers = [value for values in kinds.values() for value in values] + ([baseline] if baseline is not None else [])
    low, high = min(numbers), max(numbers)
    margin = max(0.06 * (high - low), 1e-6)
    epochs = len(history["loss"])
    words = [f"{counted(epochs, 'epoch')}: {'; '.join(words)}"]
    words += [f"constant mean {baseline:.4g}"] if baseline is not None else []
    drawing = Drawing("Loss by epoch", "; ".join(words) + ".", WIDE_PX, 240)
    axes = Axes(drawing, (1, max(epochs, 2)), (low - margin, high + margin), left=64, top=32)
    axes.frame("epoch", loss, x_ticks=min(8, max(epochs - 1, 1)), y_ticks=4)
    if baseline is not None:
        drawing.line(axes.x(1), axes.y(baseline), axes.x(axes.x_range[1]), axes.y(baseline), "mark")
        x = 130 + 120 * len(kinds)
        drawing.line(x - 12, 9, x + 12, 9, "mark")
        drawing.text(x + 18, 9 + TEXT_PX / 3, "always the mean", "start")
    for place, (kind, values) in enumerate(kinds.items()):
        points = [(axes.x(epoch), axes.y(value)) for epoch, value in enumerate(values, start=1)]
        drawing.path(points, "line-b" if place else "line-a")
        drawing.dot(*points[-1], _fill(place), square=bool(place))
        _legend(drawing, 130 + 120 * place, kind, place)
    return drawing


def _legend(drawing: Drawing, x: float, kind: str, place: int) -> None:
    drawing.dot(x, 9, _fill(place), square=bool(place))
    drawing.text(x + 10, 9 + TEXT_PX / 3, kind, "start")


def _fill(place: int) -> str:
    return "fill-b" if place else "fill-a"

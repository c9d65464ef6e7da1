"""The style of the pictures, and their files: PNG, SVG, or GIF for animations, by the suffix of the name."""

from __future__ import annotations

import re
import shutil
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib import font_manager
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from flows.session import console
from storage.files.commit import commit_file

FONT_WITH_MOST = "Noto Sans CJK JP"  # of those that the style sheet adds to DejaVu Sans
_MISSING = re.compile(r"Glyph (\d+) .*missing from font")
MOVING_DPI = 100
LETTERS_PER_IN = 12.5  # of a heading


@contextmanager
def picture_style() -> Iterator[None]:
    """Apply the style sheet, and name on the terminal the letters that no font has.

    Draw and save in one such context: Matplotlib makes ticks when it saves a figure.
    """
    with warnings.catch_warnings(record=True) as caught, matplotlib.style.context("flows.visualize.print"):
        installed = set(font_manager.get_font_names())
        matplotlib.rcParams["font.family"] = [name for name in matplotlib.rcParams["font.family"] if name in installed]
        yield
    missing = set()
    for warning in caught:
        if found := _MISSING.match(str(warning.message)):
            missing.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        letters = console.one_line("".join(sorted(missing)))
        console.say(f"No font of this machine has {letters}: install one, such as {FONT_WITH_MOST}", style="yellow")


def heading_of(weights: str, text: str) -> str:
    """Return the heading of a picture, which says so if weights are random."""
    return f"{text} (random\N{NO-BREAK SPACE}weights)" if weights == "random" else text


def wrapped(heading: str, figure: Figure) -> str:
    """Break a heading into lines that fit the figure's width."""
    letters = int(LETTERS_PER_IN * figure.get_figwidth())
    return "\n".join(textwrap.fill(line, letters) for line in heading.splitlines())


def finish(figure: Figure) -> None:
    """Break the figure's heading into lines that fit its width."""
    if heading := figure.get_suptitle():
        figure.suptitle(wrapped(heading, figure))


def save_picture(drawn: Figure | FuncAnimation, out: Path) -> None:
    """Write a figure, or an animation as a GIF, by the suffix of `out`.

    Raises:
        storage.errors.StoreError: the operating system refused.
    """
    with commit_file(out) as temporary, tempfile.TemporaryDirectory(prefix="traitline-") as folder:
        if isinstance(drawn, Figure):
            finish(drawn)
            drawn.savefig(temporary, format=out.suffix.lower()[1:])
            return
        figure = drawn._fig  # type: ignore[attr-defined]  # Matplotlib has no public name for it, nor for the interval
        figure.set_dpi(MOVING_DPI)
        finish(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # so that the layout stays fixed in all frames
        # Pillow takes the format from the suffix, and the temporary name has none.
        frames_per_s = 1000 / drawn._interval  # type: ignore[attr-defined]  # as above
        drawn.save(Path(folder) / "moving.gif", writer=PillowWriter(fps=frames_per_s))
        shutil.copyfile(Path(folder) / "moving.gif", temporary)

"""The style of the pictures, and their files: PNG, SVG, or GIF for animations, by the suffix of the name."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.style
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from storage.files.commit import commit_file

MOVING_DPI = 100
LETTERS_PER_IN = 12.5  # of a heading


def picture_style() -> AbstractContextManager[None]:
    """Apply the style sheet. Draw and save in one such context: Matplotlib makes ticks when it saves a figure."""
    return matplotlib.style.context("flows.visualize.print")


def heading_of(weights: str, text: str) -> str:
    """Return the heading of a picture, which says so if weights are random."""
    return f"{text} (random\N{NO-BREAK SPACE}weights)" if weights == "random" else text


def is_moving(out: Path) -> bool:
    """Return whether the suffix asks for a GIF."""
    return out.suffix.lower() == ".gif"


def finish(figure: Figure) -> None:
    """Break the figure's heading into lines that fit its width."""
    letters = int(LETTERS_PER_IN * figure.get_figwidth())
    if heading := figure.get_suptitle():
        figure.suptitle("\n".join(textwrap.fill(line, letters) for line in heading.splitlines()))


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

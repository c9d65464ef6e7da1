"""Pictures into files: PNG, SVG, or GIF for what moves, by the ending of the name; and their headings."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from flows.config.settings import RunConfig
from storage.files.commit import commit_file


def heading_of(config: RunConfig, text: str) -> str:
    """The heading of a picture, which says so where weights are random."""
    return f"{text} (random\N{NO-BREAK SPACE}weights)" if config.weights == "random" else text


def is_moving(out: Path) -> bool:
    """Whether a GIF is asked for."""
    return out.suffix.lower() == ".gif"


def save_picture(drawn: Figure | FuncAnimation, out: Path) -> None:
    """Write a figure, or as a GIF an animation.

    Raises:
        storage.errors.StoreError: the operating system refused.
    """
    ending = out.suffix.lower()
    with commit_file(out) as temporary, tempfile.TemporaryDirectory(prefix="traitline-") as folder:
        if isinstance(drawn, FuncAnimation):
            # Pillow knows formats by endings, and the temporary name has none
            drawn.save(Path(folder) / "moving.gif", writer=PillowWriter(fps=1000 / drawn._interval))
            shutil.copyfile(Path(folder) / "moving.gif", temporary)
        else:
            drawn.savefig(temporary, format=ending[1:])

"""How a model came about: the versions of the libraries and of this program."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version as installed_version
from pathlib import Path

_LIBRARIES = ("keras", "numpy", "h5py")


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a model's numbers depend on, by name."""
    import keras  # takes seconds to import, and only models need it

    names = (*_LIBRARIES, keras.config.backend())
    return {"python": platform.python_version(), **{name: installed_version(name) for name in names}}


def program_version() -> dict[str, str | None]:
    """Return this program's `version` and the git `commit` that it runs from, with "-dirty" appended if files changed.

    The commit is None if the program is installed rather than run from a checkout, or if git is missing.
    """
    return {"version": installed_version("traitline"), "commit": _commit(Path(__file__))}


def clip_marks(recipe: str, video_ids: Iterable[str]) -> set[str]:
    """Return a mark of each clip of a model, by which those who know the clip's name can tell whether it was one.

    Args:
        recipe: digest of what the model was made from, so that marks of two models cannot be compared.
        video_ids: of the clips.
    """
    return {hashlib.sha256(f"{recipe} {video_id}".encode()).hexdigest()[:16] for video_id in video_ids}


def _commit(file: Path) -> str | None:
    # An environment inside another project's checkout is not a checkout of this program.
    tracked = _git(file.parent, "ls-files", "--error-unmatch", file.name)
    if tracked is None:
        return None
    return _git(file.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

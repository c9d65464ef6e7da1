"""What made a model: versions of the libraries and of this program."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version as installed_version
from pathlib import Path

_LIBRARIES = ("keras", "numpy", "h5py")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a model's numbers depend on, by name."""
    import keras  # takes seconds, and only models need it

    names = (*_LIBRARIES, keras.config.backend())
    return {"python": platform.python_version(), **{name: installed_version(name) for name in names}}


def program_version() -> dict[str, str | None]:
    """This program's `version`, and the git `commit` that it runs from, "-dirty" at its end where files were changed.

    The commit is None where the program is installed rather than run from a checkout, or there is no git.
    """
    return {"version": installed_version("traitline"), "commit": _commit(Path(__file__))}


def _commit(file: Path) -> str | None:
    # An environment within some other project's checkout is not a checkout of this program.
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

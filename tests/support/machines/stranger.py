"""Another account of this machine, as which tests attack what Traitline starts and writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")

# Imported before the account changes, which may not be able to read Python's own folder.
_BECOME = """
import base64, encodings.idna, http.client, json, os, pathlib, sys
{imports}
os.setgroups({groups})
os.setgid({account})
os.setuid({account})
"""


def as_stranger(code: str, *arguments: object, imports: str = "", groups: tuple[int, ...] = ()) -> str:
    """Run code of Python as another account; what it prints. AssertionError if it fails."""
    program = _BECOME.format(imports=imports, groups=list(groups), account=NOBODY) + code
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def readable_by_stranger(paths: Iterator[Path] | list[Path], *, groups: tuple[int, ...] = ()) -> list[str]:
    """Those of the files that another account can open; AssertionError if it is refused for any reason but access."""
    code = """
for path in sys.argv[1:]:
    try:
        open(path, "rb").close()
    except PermissionError:
        continue
    print(path)
"""
    return as_stranger(code, *paths, groups=groups).splitlines()


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that every account can enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="traitline-public-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)

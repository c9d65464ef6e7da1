"""Images built and run by buildah, as root without a daemon, in a folder that goes with them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
BASE = "docker.io/library/python:3.11-slim-bookworm"
# How this machine reaches package indexes; builds use both as they are.
OF_MACHINE = ("/etc/ssl/certs", "/etc/pip.conf")
PULL_S = 30


class Buildah:
    """Keeps images and containers in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = [
            "buildah",
            "--storage-driver",
            "vfs",
            "--root",
            f"{folder}/images",
            "--runroot",
            f"{folder}/run",
        ]

    def __call__(self, *arguments: str | Path, limit_s: float = 1800) -> str:
        """Run one of its commands, and return what it prints."""
        command = [*self.program, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout.strip()

    def take_base(self) -> None:
        """Have the image that the Dockerfile begins with; where no registry answers, Debian's packages of the same."""
        try:
            self("pull", BASE, limit_s=PULL_S)
        except (AssertionError, subprocess.TimeoutExpired):
            tree = self.folder / "bookworm"
            packages = "ca-certificates,python-is-python3,python3,python3-venv"
            debootstrap = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", tree]
            subprocess.run(debootstrap, check=True, capture_output=True)
            container = self("from", "scratch")
            self("copy", "--quiet", container, tree, "/")
            self("commit", "--quiet", "--rm", container, BASE)
            shutil.rmtree(tree)

    def build(self, worker: str) -> str:
        """Build an image of the Dockerfile; return its name."""
        name = f"traitline:{worker}"
        volumes = [f"--volume={path}:{path}:ro" for path in OF_MACHINE if Path(path).exists()]
        way = ["--isolation=chroot", "--pull-never", "--format=docker"]  # other formats have no health check
        self("bud", *way, *volumes, f"--build-arg=WORKER={worker}", f"--tag={name}", "--file=docker/Dockerfile", ".")
        return name

    def settings_of(self, image: str) -> dict[str, Any]:
        """What an image says about itself, by the names of Docker."""
        return json.loads(self("inspect", "--type=image", image))["Docker"]["config"]

    def in_container(self, container: str, command: Sequence[str], *options: str) -> list[str]:
        """The command line that runs a command in a container, which has this machine's network."""
        return [*self.program, "run", "--isolation=chroot", *options, container, "--", *command]

    def close(self) -> None:
        """Remove everything."""
        subprocess.run([*self.program, "rm", "--all"], check=True, capture_output=True)
        shutil.rmtree(self.folder)

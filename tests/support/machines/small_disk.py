"""A real disk that is soon full: a tmpfs of a chosen size, which the kernel refuses to fill beyond it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class SmallDisk:
    """A mounted tmpfs. Mounting needs root; `unshare --user --map-root-user --mount make test` gives a user just that.

    Args:
        folder: where it is mounted; must exist.
        size: in bytes; the kernel gives out whole pages.
        files: how many files and folders there may be.

    Raises:
        PermissionError: mounting is not permitted here.
    """

    def __init__(self, folder: Path, size: int, files: int = 10_000) -> None:
        self.folder = folder
        self._mount("-t", "tmpfs", "-o", f"size={_pages(size)},nr_inodes={files + 1}", "tmpfs")

    def resize(self, size: int, files: int = 10_000) -> None:
        """Make it larger or smaller, whatever it holds."""
        self._mount("-o", f"remount,size={_pages(size)},nr_inodes={files + 1}")

    def make_read_only(self) -> None:
        """Let nobody write there any more."""
        self._mount("-o", "remount,ro")

    @property
    def used(self) -> int:
        """Bytes taken."""
        status = os.statvfs(self.folder)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def close(self) -> None:
        """Unmount it; what it held is gone."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _mount(self, *options: str) -> None:
        try:
            done = subprocess.run(["mount", *options, str(self.folder)], capture_output=True, text=True)
        except FileNotFoundError as error:
            raise PermissionError("there is no mount command") from error
        if done.returncode:
            raise PermissionError(done.stderr.strip())


def _pages(size: int) -> int:
    return max(size, os.sysconf("SC_PAGESIZE"))  # 0 would mean without a limit

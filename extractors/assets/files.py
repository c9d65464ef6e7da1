"""Assets: small folders of files with known sizes and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1 << 20  # of one read from a source
LICENCE_NAME = "LICENCE.txt"  # beside the files of an asset that came from a bundle

# Called with a file and the number of its bytes that have arrived.
OnBytes = Callable[["AssetFile", int], None]


class AssetError(Exception):
    """An asset is unavailable, or its bytes differ from the published ones; the message names the cure."""


@dataclass(frozen=True)
class AssetFile:
    """One file of an asset.

    Args:
        digest: "<algorithm>:<hex>" with algorithm sha256, md5 or git-blob-sha1.
        size: bytes.
        sources: where to fetch it from, in order of preference.
    """

    name: str
    digest: str
    size: int
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asset:
    """A named set of files that belong together, with their licence.

    Args:
        name: also the name of its folder.
        licence: SPDX name, with a remark if necessary.
        files: at least one.
    """

    name: str
    title: str
    version: str
    purpose: str
    licence: str
    licence_text: str
    files: tuple[AssetFile, ...]

    @property
    def digest(self) -> str:
        """The digests of all files, joined; identifies these weights in a feature key."""
        return " ".join(file.digest for file in self.files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def file_names(self) -> str:
        """The names of its files, for messages."""
        return " and ".join(file.name for file in self.files)


def digest_of(path: Path, algorithm: str) -> str:
    """Return the digest of a file in the notation of `assets.toml`, "<algorithm>:<hex>"."""

    def start() -> hashlib._Hash:
        if algorithm == "git-blob-sha1":  # git hashes the size first
            return hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        return hashlib.new(algorithm, usedforsecurity=False)

    with path.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, start).hexdigest()}"


def find_damage(file: AssetFile, path: Path) -> str | None:
    """Read every byte of a file and describe the damage, with both digests; return None if the file is intact."""
    found = digest_of(path, file.digest.partition(":")[0])
    return None if found == file.digest else f"{path} has digest {found}, not the published {file.digest}"

"""What an asset is: a small folder of files with known sizes and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1 << 20
LICENCE_NAME = "LICENCE.txt"  # beside the files of an asset, where it came out of a bundle

# Told the number of bytes of a file that are there by now.
OnBytes = Callable[["AssetFile", int], None]


class AssetError(Exception):
    """An asset cannot be had, or its bytes are not the published ones; the message names the cure."""


@dataclass(frozen=True)
class AssetFile:
    """One file of an asset.

    Args:
        name: file name inside the asset's folder.
        digest: "<algorithm>:<hex>" with algorithm sha256, md5 or git-blob-sha1.
        size: bytes.
        sources: places to fetch it from, tried in order.
    """

    name: str
    digest: str
    size: int
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asset:
    """A named set of files that belong together, with the licence that they come under.

    Args:
        name: of its folder too.
        title: what it is.
        version: as its publisher counts them.
        purpose: what Traitline needs it for.
        licence: SPDX name, with a remark where there is something to say.
        licence_text: that of the licence.
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
        """The digests of all files, joined: what identifies these weights in a feature key."""
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
    """Digest of a file in the notation of `assets.toml`, "<algorithm>:<hex>"."""
    digest = start_digest(algorithm, path.stat().st_size)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return f"{algorithm}:{digest.hexdigest()}"


def start_digest(algorithm: str, size: int) -> hashlib._Hash:
    """Begin a digest over `size` bytes; git's begins with their number."""
    if algorithm == "git-blob-sha1":
        return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    return hashlib.new(algorithm, usedforsecurity=False)


def find_damage(file: AssetFile, path: Path) -> str | None:
    """Read every byte of a file and say what is wrong with it, with both digests; None where all is well."""
    found = digest_of(path, file.digest.partition(":")[0])
    return None if found == file.digest else f"{path} has digest {found}, not the published {file.digest}"

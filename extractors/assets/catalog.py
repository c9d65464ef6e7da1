"""Find, or fetch once, the files that Traitline needs but does not include: detector and network weights.

An asset is a small folder of files named in `assets.toml` with digests, licence and sources. It is searched for in
the folder that `TRAITLINE_ASSETS` names, then in the user's cache; only then is it downloaded into the cache. The
digest of each file is checked before use; a file with another digest is refused, never silently replaced.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs

from extractors.assets.download import fetch_asset
from extractors.assets.files import Asset, AssetError, AssetFile, OnBytes, find_damage

ENVIRONMENT_VARIABLE = "TRAITLINE_ASSETS"
HOW_TO_GET = (
    "`traitline assets fetch` downloads what is missing; without a network, `traitline assets unpack BUNDLE` takes it "
    "from a file that `traitline assets bundle` wrote elsewhere"
)


@cache
def known_assets() -> dict[str, Asset]:
    """Return all assets of `assets.toml` by name."""
    return read_table(Path(__file__).parent / "assets.toml")


def read_table(path: Path) -> dict[str, Asset]:
    """Read a table of assets beside a folder `licences` with their texts. Raises AssetError if it is damaged."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).items()
        return {name: _asset(name, entry, path.parent / "licences") for name, entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AssetError(f"{path} is damaged ({type(error).__name__}: {error}); reinstall Traitline") from error


def _asset(name: str, entry: dict[str, Any], licences: Path) -> Asset:
    files = tuple(AssetFile(**{**file, "sources": tuple(file["sources"])}) for file in entry.pop("files"))
    licence_file = entry.pop("licence_file")
    for part in (name, licence_file, *(file.name for file in files)):
        if part != Path(part).name:
            raise ValueError(f"{part!r} is not a plain name")
    return Asset(name=name, licence_text=(licences / licence_file).read_text(encoding="utf-8"), files=files, **entry)


def select(names: list[str]) -> list[Asset]:
    """Return the named assets, or all assets without a name. Raises AssetError if one is unknown."""
    known = known_assets()
    for name in names:
        if name not in known:
            raise AssetError(f"there is no asset {name}; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def user_cache() -> Path:
    """Return the folder into which assets are downloaded."""
    return Path(platformdirs.user_cache_dir("traitline")) / "assets"


def places(folder: Path | None = None) -> list[tuple[str, Path]]:
    """Return the places to search for assets, each with its label: only the given folder, or the usual places."""
    if folder is not None:
        return [("path", folder)]
    cached = [("cache", user_cache())]
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return [("asset folder", Path(named)), *cached] if named else cached


def find(asset: Asset, folder: Path | None = None) -> tuple[str, Path] | None:
    """Return the label and the folder of the first place with all files of an asset, without reading their bytes."""
    for place, parent in places(folder):
        if _is_in(asset, parent / asset.name):
            return place, parent / asset.name
    return None


def resolve(name: str, *, folder: Path | None = None, download: bool = True) -> Path:
    """Return the folder that holds an asset's files, each checked, fetching them first if necessary.

    Args:
        folder: search only here, as `FOLDER/<file>`; for users who keep the files themselves.
        download: whether to use the network if the files are not on this machine.

    Raises:
        AssetError: the asset is unknown, damaged or unavailable; says what to do.
    """
    (asset,) = select([name])
    if folder is not None:
        if not _is_in(asset, folder):
            raise AssetError(
                f"{folder} does not hold {asset.file_names}; leave the folder out, or put the files there, as "
                f"`traitline assets unpack BUNDLE --folder {folder.parent}` does"
            )
        return _checked(asset, folder)
    if not download and find(asset) is None:
        raise AssetError(f"{asset.title} is not on this machine. {_cure(asset)}")
    return fetch(asset)


def origin_of(weights: str, seed: int, name: str) -> dict[str, Any]:
    """Describe a network's weights for a cache key: the seed of random ones, the digest of pretrained ones."""
    return {"weights": weights} | ({"seed": seed} if weights == "random" else {"digest": known_assets()[name].digest})


def fetch(asset: Asset, on_bytes: OnBytes = lambda file, done: None) -> Path:
    """Return the folder that holds an asset's files, each checked, downloading them into the user's cache if necessary.

    Raises:
        AssetError: the asset is damaged or unavailable; names each source with its fault.
    """
    found = find(asset)
    if found is not None:
        return _checked(asset, found[1])
    try:
        fetch_asset(asset, user_cache() / asset.name, on_bytes)
    except AssetError as error:
        raise AssetError(f"{error}. {_cure(asset)}") from error
    return _checked(asset, user_cache() / asset.name)


def read_through(asset: Asset, folder: Path | None = None) -> Iterator[tuple[Path, str | None]]:
    """Read every byte of an asset's files in all places; yield each path with its damage, or None."""
    for _, parent in places(folder):
        for file in asset.files:
            path = parent / asset.name / file.name
            if path.is_file():
                yield path, find_damage(file, path)


def _cure(asset: Asset) -> str:
    return f"{HOW_TO_GET}. Or put {asset.file_names} into {places()[0][1] / asset.name}"


def _is_in(asset: Asset, folder: Path) -> bool:
    return all((folder / file.name).is_file() for file in asset.files)


def _checked(asset: Asset, folder: Path) -> Path:
    for file in asset.files:
        damage = find_damage(file, folder / file.name)
        if damage is not None:
            raise AssetError(f"{damage}; delete it and fetch it again: {HOW_TO_GET}")
    return folder

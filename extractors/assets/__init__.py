"""Files that Traitline needs but does not include: detector and network weights."""

from extractors.assets.catalog import fetch, known_assets, resolve
from extractors.assets.files import Asset, AssetError

__all__ = ["Asset", "AssetError", "fetch", "known_assets", "resolve"]

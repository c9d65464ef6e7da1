"""Assets that were made here by fine-tuning: weights with a description, in a folder of their own beside the others.

`<name>-<version>/asset.json` gives size and SHA-256 of the weights. Features get their key from that digest: whoever
changes both makes other features under another key, and never mixes them with those of before.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, with_config

from extractors.assets.catalog import places
from extractors.assets.files import Asset, AssetError, AssetFile, digest_of, find_damage

DESCRIPTION = "asset.json"
WEIGHTS = "resnet50.weights.h5"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class OwnAsset:
    """A fine-tuned ResNet-50.

    Args:
        name: with its version, as in "faces-1"; of its folder too.
        base: whether it was made from pretrained or from random weights.
        size: bytes of the weights.
        digest: of the weights, "sha256:<hex>".
        training: what it was trained on, and what came of it; JSON-able.
    """

    name: str
    base: str
    size: int
    digest: str
    training: dict[str, Any]

    @property
    def asset(self) -> Asset:
        """As the published ones are described."""
        file = AssetFile(WEIGHTS, self.digest, self.size)
        title = f"ResNet-50 fine-tuned from {self.base} weights"
        version = self.name.rpartition("-")[2]
        return Asset(self.name, title, version, "static features", "your own", "", (file,))


_OWN_ASSET = TypeAdapter(OwnAsset)


def own_assets(folder: Path | None = None) -> list[OwnAsset]:
    """All that lie where assets are looked for, or in a given folder of assets' folders."""
    found = {}
    for _, place in reversed(places(folder)):
        for path in sorted(place.glob(f"*/{DESCRIPTION}")):
            found[path.parent.name] = _read(path)
    return list(found.values())


def find_own(name: str, folder: Path | None = None) -> OwnAsset:
    """The description of one; its weights are not looked at.

    Raises:
        AssetError: there is none of this name, or its description is none.
    """
    return _read(_folder_of(name, folder) / DESCRIPTION)


def resolve_own(name: str, folder: Path | None = None) -> Path:
    """The weights' file of one, every byte of it checked.

    Args:
        name: such as "faces-1".
        folder: with the assets' folders, in place of the usual ones.

    Raises:
        AssetError: there is none of this name, or its weights are not the ones that were made.
    """
    path = _folder_of(name, folder) / WEIGHTS
    (file,) = find_own(name, folder).asset.files
    if not path.is_file():
        raise AssetError(f"{path} is missing; copy the folder {name} anew, or fine-tune again")
    damage = find_damage(file, path)
    if damage is not None:
        raise AssetError(f"{damage.replace('published', 'described')}; copy the folder {name} anew, or fine-tune again")
    return path


def save_own(
    name: str, base: str, training: Mapping[str, Any], write: Callable[[Path], None], folder: Path | None = None
) -> OwnAsset:
    """Keep weights as the next version of a name, all or nothing.

    Args:
        name: without version.
        base: "pretrained" or "random".
        training: to be kept with it.
        write: writes the weights into a file of the given path.
        folder: with the assets' folders, in place of the first of the usual ones.

    Raises:
        AssetError: the folder cannot be written to.
    """
    place = places(folder)[0][1]
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=".own-") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            write(made / WEIGHTS)
            size, digest = (made / WEIGHTS).stat().st_size, digest_of(made / WEIGHTS, "sha256")
            version = 1
            while True:
                own = OwnAsset(f"{name}-{version}", base, size, digest, dict(training))
                (made / DESCRIPTION).write_text(json.dumps(asdict(own), indent=2) + "\n", encoding="utf-8")
                for path in (made / WEIGHTS, made / DESCRIPTION):
                    with path.open("rb") as stream:
                        os.fsync(stream.fileno())
                try:
                    os.rename(made, place / own.name)  # which fails where that version is there already
                    return own
                except OSError:
                    if not (place / own.name).exists():
                        raise
                version += 1
    except OSError as error:
        raise AssetError(f"cannot keep {name} in {place}: {error.strerror or error}") from error


def _folder_of(name: str, folder: Path | None) -> Path:
    # A name comes from a settings file and must not lead out of the folder.
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._]*-[1-9][0-9]*", name):
        for _, place in places(folder):
            if (place / name / DESCRIPTION).is_file():
                return place / name
    names = ", ".join(own.name for own in own_assets(folder)) or "none as yet: `traitline finetune` makes one"
    raise AssetError(f"there is no fine-tuned asset {name!r}; there are: {names}")


def _read(path: Path) -> OwnAsset:
    try:
        own = _OWN_ASSET.validate_json(path.read_text(encoding="utf-8"), strict=True)
    except (OSError, ValueError) as error:
        raise AssetError(f"{path} does not describe a fine-tuned asset; copy its folder anew") from error
    well_formed = re.fullmatch("sha256:[0-9a-f]{64}", own.digest) and own.base in ("pretrained", "random")
    if not well_formed or own.name != path.parent.name:
        raise AssetError(f"{path} does not describe the fine-tuned asset {path.parent.name}; copy its folder anew")
    return own

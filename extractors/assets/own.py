"""Assets made by fine-tuning: weights with a description, in their own folder beside the other assets.

`<name>-<version>/asset.json` holds the size and SHA-256 of the weights. The digest enters the key of features, so that
features of other weights never mix with them.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, StringConstraints, TypeAdapter, with_config

from extractors.assets.catalog import places
from extractors.assets.files import Asset, AssetError, AssetFile, digest_of, find_damage

DESCRIPTION = "asset.json"
WEIGHTS = "resnet50.weights.h5"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class OwnAsset:
    """A fine-tuned ResNet-50.

    Args:
        name: with its version, as in "faces-1"; also the name of its folder.
        base: "pretrained" or "random", the weights that it was made from.
        size: bytes of the weights.
        digest: of the weights, "sha256:<hex>".
        training: its data and results; JSON-able.
    """

    name: str
    base: Annotated[str, StringConstraints(pattern="^(pretrained|random)$")]
    size: int
    digest: Annotated[str, StringConstraints(pattern="^sha256:[0-9a-f]{64}$")]
    training: dict[str, Any]

    @property
    def asset(self) -> Asset:
        """The same as an `Asset`, like a published one."""
        file = AssetFile(WEIGHTS, self.digest, self.size)
        title = f"ResNet-50 fine-tuned from {self.base} weights"
        version = self.name.rpartition("-")[2]
        return Asset(self.name, title, version, "static features", "your own", "", (file,))


_OWN_ASSET = TypeAdapter(OwnAsset)


def own_assets(folder: Path | None = None) -> list[OwnAsset]:
    """Return all fine-tuned assets in the usual places, or in a given folder of asset folders."""
    found = {}
    for _, place in reversed(places(folder)):
        for path in sorted(place.glob(f"*/{DESCRIPTION}")):
            found[path.parent.name] = _read(path)
    return list(found.values())


def find_own(name: str, folder: Path | None = None) -> OwnAsset:
    """Describe a fine-tuned asset without reading its weights. Raises AssetError if it is missing or damaged."""
    return _read(_folder_of(name, folder) / DESCRIPTION)


def resolve_own(name: str, folder: Path | None = None) -> Path:
    """Return the weight file of a fine-tuned asset after checking every byte.

    Args:
        folder: folder of asset folders, in place of the usual places.

    Raises:
        AssetError: it does not exist, or its weights are damaged.
    """
    path = _folder_of(name, folder) / WEIGHTS
    (file,) = find_own(name, folder).asset.files
    if not path.is_file():
        raise AssetError(f"{path} is missing; copy the folder {name} again, or repeat the fine-tuning")
    damage = find_damage(file, path)
    if damage is not None:
        raise AssetError(
            f"{damage.replace('published', 'described')}; copy the folder {name} again, or repeat the fine-tuning"
        )
    return path


def save_own(
    name: str, base: str, training: Mapping[str, Any], write: Callable[[Path], None], folder: Path | None = None
) -> OwnAsset:
    """Save weights as the next version of a name, completely or not at all.

    Args:
        name: without version.
        base: "pretrained" or "random".
        folder: folder of asset folders, in place of the first usual place.

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
                    os.rename(made, place / own.name)  # fails if that version exists
                    return own
                except OSError:
                    if not (place / own.name).exists():
                        raise
                version += 1
    except OSError as error:
        raise AssetError(f"cannot keep {name} in {place}: {error.strerror or error}") from error


def _folder_of(name: str, folder: Path | None) -> Path:
    # The name comes from a settings file and must not lead out of the folder.
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._]*-[1-9][0-9]*", name):
        for _, place in places(folder):
            if (place / name / DESCRIPTION).is_file():
                return place / name
    names = ", ".join(own.name for own in own_assets(folder)) or "none yet: `traitline finetune` makes one"
    raise AssetError(f"there is no fine-tuned asset {name!r}; there are: {names}")


def _read(path: Path) -> OwnAsset:
    try:
        own = _OWN_ASSET.validate_json(path.read_text(encoding="utf-8"), strict=True)
    except (OSError, ValueError) as error:
        raise AssetError(f"{path} does not describe a fine-tuned asset; copy its folder again") from error
    if own.name != path.parent.name:
        raise AssetError(f"{path} does not describe the fine-tuned asset {path.parent.name}; copy its folder again")
    return own

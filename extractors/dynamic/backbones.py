"""The network that the settings choose for dynamic tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from extractors.assets import catalog
from extractors.assets.files import AssetError
from extractors.dynamic.settings import ASSET, FEATURES, I3D, REVISION, DynamicSettings
from extractors.networks import SIDE_PX, is_network_file
from extractors.networks.backbone import Backbone, Choices, Describer
from extractors.networks.network_file import FileBackbone, read_file
from extractors.networks.signature import Shape

COMPONENTS = 2  # of displacement


def dynamic_backbone(
    settings: DynamicSettings,
    weights: Literal["pretrained", "random"],
    fields: int,
    seed: int = 0,
    assets: Path | None = None,
) -> Backbone:
    """Return the network that the settings choose, not built yet.

    Args:
        weights: of i3d.
        fields: optical-flow fields in a window.
        assets: folder of asset folders, in place of the usual places.

    Raises:
        extractors.assets.AssetError: a file of one's own cannot be used.
    """
    if not is_network_file(settings.base_model):
        return _I3D(settings, weights, seed, assets)
    path = Path(settings.base_model)
    components = _layout(path, read_file(path)[1].input, fields)
    adapt = partial(_adapted, components=components)
    return FileBackbone(path, "window", adapt, {}, settings.output, settings.output_dim, "dynamic")


@dataclass(frozen=True)
class _I3D(Choices[DynamicSettings]):
    name = I3D
    dim = FEATURES

    @property
    def numerics(self) -> dict[str, Any]:
        origin = catalog.origin_of(self.weights, self.seed, ASSET)
        return {"network": I3D, "revision": REVISION, "precision": self.settings.precision, **origin}

    def fetch(self) -> None:
        if self.weights == "pretrained":
            catalog.resolve(ASSET, folder=self.folder(ASSET))

    def build(self) -> Describer:
        from extractors.dynamic.extractor import DynamicFeatureExtractor

        return DynamicFeatureExtractor(
            self.weights,
            precision=self.settings.precision,
            seed=self.seed,
            batch_size=self.settings.batch_size,
            asset_folder=self.folder(ASSET),
        )


def _layout(path: Path, shape: Shape, fields: int) -> Literal["first", "last"]:
    """Return where dx and dy are in a network's input."""
    shown = f"{path} takes {list(shape)}"
    if len(shape) != 5 or shape[0] not in (None, 1):
        raise AssetError(
            f"{shown}, not one window [N, fields, 224, 224, 2] or [N, 2, fields, 224, 224] at a time (N free or 1)"
        )
    first, last = shape[1] == COMPONENTS, shape[4] == COMPONENTS
    if first == last:
        raise AssetError(f"{shown}; one axis, the second or the last, must have dx and dy")
    length, *sides = shape[2:] if first else shape[1:4]
    if length not in (None, fields):
        raise AssetError(f"{shown}, windows of {length} fields; set crops.window_fields to it, which is {fields}")
    if set(sides) - {None, SIDE_PX}:
        raise AssetError(f"{shown}; fields are {SIDE_PX} x {SIDE_PX}, and scaling them would change displacements")
    return "first" if first else "last"


def _adapted(window: np.ndarray, *, components: Literal["first", "last"]) -> np.ndarray:
    """Bring windows, float32 [N, T, 224, 224, 2], into the form of a network's input."""
    if window.dtype != np.float32 or window.ndim != 5 or window.shape[2:] != (SIDE_PX, SIDE_PX, COMPONENTS):
        raise ValueError(f"windows must be float32 [N, T, {SIDE_PX}, {SIDE_PX}, 2]; got {window.dtype} {window.shape}")
    return window.transpose(0, 4, 1, 2, 3) if components == "first" else window

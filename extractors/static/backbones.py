"""The network that the settings choose for static tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from extractors.assets import catalog
from extractors.assets.files import AssetError
from extractors.assets.own import find_own, resolve_own
from extractors.networks import SIDE_PX, Preprocessing, is_network_file
from extractors.networks.backbone import Backbone, Choices, Describer
from extractors.networks.joined import JoinedBackbone
from extractors.networks.network_file import FileBackbone, read_file
from extractors.networks.preprocessing import check_crops, preprocess, scaled
from extractors.networks.signature import Shape
from extractors.static.application_network import ApplicationBackbone
from extractors.static.settings import ASSET, FEATURES, RESNET50, REVISION, StaticSettings

COLOURS = 3


def static_backbone(
    settings: StaticSettings, weights: Literal["pretrained", "random"], seed: int = 0, assets: Path | None = None
) -> Backbone:
    """Return the network that the settings choose, or several as one, not built yet.

    Args:
        weights: of resnet50 and the other networks of keras.applications, unless the settings name others.
        assets: folder of asset folders, in place of the usual places.

    Raises:
        extractors.assets.AssetError: a file of one's own cannot be used.
    """
    chosen = [_single(network, weights, seed, assets) for network in settings.networks]
    return JoinedBackbone(chosen) if len(chosen) > 1 else chosen[0]


def _single(
    settings: StaticSettings, weights: Literal["pretrained", "random"], seed: int, assets: Path | None
) -> Backbone:
    if is_network_file(settings.base_model):
        return _in_a_file(settings)
    if settings.base_model == RESNET50:
        return _ResNet50(settings, weights, seed, assets)
    own = Path(settings.weights) if settings.weights is not None else weights
    return ApplicationBackbone(settings.base_model, own, seed, settings.batch_size)


@dataclass(frozen=True)
class _ResNet50(Choices[StaticSettings]):
    name = RESNET50
    dim = FEATURES

    @property
    def numerics(self) -> dict[str, Any]:
        if self.settings.weights is not None:
            origin = {"weights": "fine-tuned", "digest": find_own(self.settings.weights, self.assets).digest}
        else:
            origin = catalog.origin_of(self.weights, self.seed, ASSET)
        return {"network": RESNET50, "revision": REVISION, "precision": self.settings.precision, **origin}

    def fetch(self) -> None:
        if self.settings.weights is not None:
            resolve_own(self.settings.weights, self.assets)
        elif self.weights == "pretrained":
            catalog.resolve(ASSET, folder=self.folder(ASSET))

    def build(self) -> Describer:
        from extractors.static.extractor import StaticFeatureExtractor

        return StaticFeatureExtractor(
            self.settings.weights if self.settings.weights is not None else self.weights,
            frozen_layers=self.settings.frozen_layers,
            precision=self.settings.precision,
            seed=self.seed,
            batch_size=self.settings.batch_size,
            asset_folder=self.folder(self.settings.weights or ASSET),
        )


def _in_a_file(settings: StaticSettings) -> FileBackbone:
    path = Path(settings.base_model)
    channels, side = _layout(path, read_file(path)[1].input, settings.input_side)
    if settings.preprocessing is None:
        raise ValueError(f"preprocessing must say what {path} takes")
    return FileBackbone(
        path,
        "face crop",
        partial(_adapted, side=side, channels=channels, preprocessing=settings.preprocessing),
        {"preprocessing": settings.preprocessing, "side": side},
        settings.output,
        settings.output_dim,
        "static",
    )


def _layout(path: Path, shape: Shape, wanted: int | None) -> tuple[Literal["first", "last"], int]:
    """Return where the colours are in a network's input, and its side in pixels."""
    shown = f"{path} takes {list(shape)}"
    if len(shape) != 4 or shape[0] not in (None, 1):
        raise AssetError(f"{shown}, not one picture [N, 3, side, side] or [N, side, side, 3] at a time (N free or 1)")
    first, last = shape[1] == COLOURS, shape[3] == COLOURS
    if first == last:
        raise AssetError(f"{shown}; one axis, the second or the last, must have the 3 colours")
    sides = set(shape[2:] if first else shape[1:3]) - {None}
    if len(sides) > 1:
        raise AssetError(f"{shown}; face crops are square, and so must be its input")
    stated = next(iter(sides), None)
    if stated is not None and wanted not in (None, stated):
        raise AssetError(f"{shown}, which is not static.input_side {wanted}; leave the setting out")
    return "first" if first else "last", stated or wanted or SIDE_PX


def _adapted(
    crop: np.ndarray, *, side: int, channels: Literal["first", "last"], preprocessing: Preprocessing
) -> np.ndarray:
    """Bring face crops, uint8 RGB [N, 224, 224, 3], into the form of a network's input."""
    check_crops(crop)
    prepared = preprocess(scaled(crop, side), preprocessing)
    return prepared.transpose(0, 3, 1, 2) if channels == "first" else prepared

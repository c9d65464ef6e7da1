"""What the pipeline asks of a network that describes face crops or windows of optical flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

Settings = TypeVar("Settings")


class Describer(Protocol):
    """A network that is ready to work."""

    def extract(self, items: np.ndarray, /) -> np.ndarray:
        """Describe face crops or windows of optical flow. A vector depends neither on its neighbours nor on N.

        Takes crops, uint8 RGB [N, 224, 224, 3], or windows, float32 [N, T, 224, 224, 2] in [-1, 1], and gives float32
        [N, dim].
        """


class Backbone(Protocol):
    """A network that is described by its settings alone, and built only where it has to work.

    Attributes:
        name: for people, such as "resnet50" or "faces.onnx".
        dim: numbers in each vector.
        numerics: everything that changes those numbers, for a cache key, as JSON values: network, preprocessing, digest
            of the weights.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def numerics(self) -> Mapping[str, Any]: ...  # noqa: D102

    def fetch(self) -> None:
        """Ensure that the weights are on this machine and intact, downloading them if they are published.

        Raises:
            extractors.assets.AssetError: they are not; the message says what to do.
        """

    def build(self) -> Describer:
        """Build the network.

        Raises:
            extractors.assets.AssetError: the weights are unavailable, or are not those that the key stands for.
            extractors.errors.DeviceError: this machine does not support the precision.
        """


@dataclass(frozen=True)
class Choices(Generic[Settings]):
    """What decides on a network whose weights are an asset: settings, weights, their seed, the folder of assets."""

    settings: Settings
    weights: Literal["pretrained", "random"]
    seed: int
    assets: Path | None

    def folder(self, asset: str) -> Path | None:
        """Return the folder of an asset if the user keeps all assets in one folder."""
        return self.assets / asset if self.assets is not None else None

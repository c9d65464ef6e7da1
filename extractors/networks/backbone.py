"""What the pipeline asks of a network that describes face crops or windows of optical flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class Describer(Protocol):
    """A network that is ready to work."""

    def extract(self, items: np.ndarray, /) -> np.ndarray:
        """Describe face crops or windows of optical flow. A vector depends neither on its neighbours nor on N.

        Args:
            items: face crops, uint8 RGB [N, 224, 224, 3], or windows, float32 [N, T, 224, 224, 2] in [-1, 1].

        Returns:
            float32 [N, dim].
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

"""Several networks that describe the same items as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extractors.networks.backbone import Backbone, Describer


@dataclass(frozen=True)
class JoinedBackbone:
    """Networks whose vectors are concatenated, in their order. See `extractors.networks.backbone.Backbone`."""

    networks: Sequence[Backbone]

    @property
    def name(self) -> str:
        """All names, as in "resnet50 + faces.onnx"."""
        return " + ".join(network.name for network in self.networks)

    @property
    def dim(self) -> int:
        """Numbers in each concatenated vector."""
        return sum(network.dim for network in self.networks)

    @property
    def numerics(self) -> dict[str, Any]:
        """Everything that changes the numbers."""
        return {"joined": [dict(network.numerics) for network in self.networks]}

    def fetch(self) -> None:
        """Ensure that the weights of all networks are on this machine."""
        for network in self.networks:
            network.fetch()

    def build(self) -> Describer:
        """Build all networks."""
        return _Joined([network.build() for network in self.networks])


@dataclass(frozen=True)
class _Joined:
    describers: Sequence[Describer]

    def extract(self, items: np.ndarray) -> np.ndarray:
        return np.concatenate([describer.extract(items) for describer in self.describers], axis=1)

"""How windows of optical flow become dynamic tokens."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from extractors.assets import catalog
from extractors.networks import Precision

ASSET = "i3d_flow_imagenet"
FEATURES: Final = 1024
REVISION = 2  # part of the cache key: raise it if this code's results change


class DynamicSettings(BaseModel, frozen=True, extra="forbid"):
    """How windows of optical flow become dynamic tokens."""

    base_model: Literal["i3d"] = Field("i3d", description="Network that describes a window of optical flow.")
    output_dim: Literal[1024] = Field(FEATURES, description="Numbers per dynamic token.")
    precision: Precision = Field(
        "float32",
        description="Precision of weights and activations: float32, or bfloat16: half the time on CPUs that have it "
        "(AVX512_BF16, AMX), features about 2 % off (random weights).",
    )
    batch_size: int = Field(
        1,
        ge=1,
        description="Windows in one pass through the network, at most: 1 suits a CPU, more a GPU; halved if GPU "
        "memory runs out. It changes no result.",
    )

    def numerics(self, weights: Literal["pretrained", "random"], seed: int) -> dict[str, Any]:
        """All settings that change the numbers, for a cache key; JSON-able."""
        origin = catalog.origin_of(weights, seed, ASSET)
        return {"network": self.base_model, "revision": REVISION, "precision": self.precision, **origin}

"""How face crops become static tokens, and how their network is fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from extractors.assets import catalog
from extractors.assets.own import find_own
from extractors.networks import Precision

ASSET = "resnet50_imagenet"
FEATURES: Final = 2048
REVISION = 2  # part of the cache key: raise it if this code's results change


class StaticSettings(BaseModel, frozen=True, extra="forbid"):
    """How face crops become static tokens."""

    base_model: Literal["resnet50"] = Field("resnet50", description="Network that describes a face crop.")
    weights: str | None = Field(None, description="Fine-tuned asset, such as faces-1, in place of the usual weights.")
    frozen_layers: int = Field(4, ge=0, le=53, description="First convolutional layers that training leaves unchanged.")
    output_dim: Literal[2048] = Field(FEATURES, description="Numbers per static token.")
    precision: Precision = Field(
        "float32",
        description="Precision of weights and activations: float32, or bfloat16: half the time on CPUs that have it "
        "(AVX512_BF16, AMX), features about 1 % off (random weights).",
    )
    batch_size: int = Field(
        16,
        ge=1,
        description="Face crops in one pass through the network, at most; halved if GPU memory runs out. It changes "
        "no result.",
    )

    def numerics(
        self, weights: Literal["pretrained", "random"], seed: int, assets_folder: Path | None = None
    ) -> dict[str, Any]:
        """All settings that change the numbers, for a cache key; JSON-able.

        Raises:
            extractors.assets.AssetError: the fine-tuned asset does not exist.
        """
        if self.weights is not None:
            origin = {"weights": "fine-tuned", "digest": find_own(self.weights, assets_folder).digest}
        else:
            origin = catalog.origin_of(weights, seed, ASSET)
        return {"network": self.base_model, "revision": REVISION, "precision": self.precision, **origin}


class FinetuneSettings(BaseModel, frozen=True, extra="forbid"):
    """How the unfrozen layers of ResNet-50 are trained on face crops and labels."""

    name: str = Field(
        "faces",
        pattern="^[A-Za-z0-9][A-Za-z0-9._]*$",
        description="Name of the new asset; its version is added, as in faces-1.",
    )
    epochs: int = Field(20, ge=1, description="Maximum passes over the training videos.")
    patience: int = Field(3, ge=1, description="Passes without a lower validation error after which training stops.")
    learning_rate: float = Field(3e-5, gt=0, description="Step size of Adam.")
    batch_size: int = Field(16, ge=1, description="Face crops in one step (count).")
    validation_fraction: float = Field(0.2, gt=0, lt=1, description="Share of the videos, by person, that is held out.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the split, the order of the crops and the mirroring.")

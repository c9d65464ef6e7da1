"""How windows of optical flow become dynamic tokens."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field, model_validator

from extractors.networks import Precision, is_network_file

ASSET = "i3d_flow_imagenet"
I3D: Final = "i3d"
FEATURES: Final = 1024
REVISION = 2  # part of the cache key: raise it if this code's results change


class DynamicSettings(BaseModel, frozen=True, extra="forbid"):
    """How windows of optical flow become dynamic tokens."""

    base_model: str = Field(
        I3D, description="Network that describes a window of optical flow: i3d, or a file of your own, .onnx or .keras."
    )
    output: str | None = Field(None, description="Only for a file with several outputs: the one that is the vector.")
    output_dim: int | None = Field(None, ge=1, description="Numbers per dynamic token; those of a file are in it.")
    precision: Precision = Field(
        "float32",
        description="Precision of weights and activations of i3d: float32; tf32: products rounded to 10 bits, on "
        "NVIDIA GPUs since Ampere, and for all networks or none; or bfloat16: half the time on CPUs that have it "
        "(AVX512_BF16, AMX), features about 2% off (random weights).",
    )
    batch_size: int = Field(
        1,
        ge=1,
        description="Windows in one pass through the network, at most: 1 suits a CPU, more a GPU; halved if GPU "
        "memory runs out. It changes no result on a CPU, and on a GPU at most the last bits.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_dim(cls, given: Any) -> Any:
        """State the dimension of i3d."""
        if isinstance(given, dict) and given.get("output_dim") is None and given.get("base_model", I3D) == I3D:
            return {**given, "output_dim": FEATURES}
        return given

    @model_validator(mode="after")
    def _fits(self) -> DynamicSettings:
        if is_network_file(self.base_model):
            if self.precision != "float32":
                raise ValueError(f"precision {self.precision} is for i3d alone, not for {self.base_model}")
            return self
        if self.base_model != I3D:
            raise ValueError(f"base_model {self.base_model!r} is neither a file, .onnx or .keras, nor i3d")
        if self.output is not None:
            raise ValueError("output is for networks in files; i3d is known")
        if self.output_dim != FEATURES:
            raise ValueError(f"i3d gives {FEATURES} numbers per token, not output_dim {self.output_dim}")
        return self

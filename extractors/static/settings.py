"""How face crops become static tokens, and how their network is fine-tuned."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel, Field, model_validator

from extractors.networks import Precision, Preprocessing, is_network_file
from extractors.static.applications import APPLICATIONS

ASSET = "resnet50_imagenet"
RESNET50: Final = "resnet50"
FEATURES: Final = 2048
REVISION = 2  # part of the cache key: raise it if this code's results change
WEIGHTS_ENDING = ".weights.h5"


class StaticSettings(BaseModel, frozen=True, extra="forbid"):
    """How face crops become static tokens."""

    base_model: str = Field(
        RESNET50,
        description="Network that describes a face crop: resnet50; another of keras.applications in lower case, such "
        "as resnet101, efficientnetv2s, convnexttiny; or a file of your own, .onnx or .keras.",
    )
    weights: str | None = Field(
        None,
        description="In place of the usual weights: a fine-tuned asset of resnet50, such as faces-1; or a .weights.h5 "
        "file for another network of keras.applications.",
    )
    preprocessing: Preprocessing | None = Field(
        None,
        description="Only for a file, which needs it: what its input is made of, imagenet-torch, imagenet-caffe (BGR), "
        "or RGB in a range, minus1-1, 0-1 or 0-255.",
    )
    input_side: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="Only for a file: pixels of a side of its input, to which crops of 224 are scaled; by default what "
        "the file states, or 224.",
    )
    output: str | None = Field(None, description="Only for a file with several outputs: the one that is the vector.")
    frozen_layers: int = Field(
        4, ge=0, le=53, description="First convolutional layers of resnet50 that training leaves unchanged."
    )
    output_dim: int | None = Field(
        None, ge=1, description="Numbers per static token of this network; those of a file are in it."
    )
    precision: Precision = Field(
        "float32",
        description="Precision of weights and activations of resnet50: float32; tf32: products rounded to 10 bits, on "
        "NVIDIA GPUs since Ampere, and for all networks or none; or bfloat16: half the time on CPUs that have it "
        "(AVX512_BF16, AMX), features about 1% off (random weights).",
    )
    also: tuple[StaticSettings, ...] = Field(
        (),
        description="Further networks on the same crops, whose numbers follow in the same token, each with its own "
        "settings of this section, as in [{base_model: faces.onnx, preprocessing: minus1-1}].",
    )
    batch_size: int = Field(
        16,
        ge=1,
        description="Face crops in one pass through the network, at most; halved if GPU memory runs out. It changes "
        "no result on a CPU, and on a GPU at most the last bits.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_dim(cls, given: Any) -> Any:
        """State the dimension of a known network."""
        if not isinstance(given, dict) or given.get("output_dim") is not None:
            return given
        known = _DIMS.get(str(given.get("base_model", RESNET50)))
        return given if known is None else {**given, "output_dim": known}

    @model_validator(mode="after")
    def _fits(self) -> StaticSettings:
        name, of_file = self.base_model, is_network_file(self.base_model)
        if not of_file and name not in _DIMS:
            near = get_close_matches(name, _DIMS, n=1)
            hint = f", did you mean {near[0]}?" if near else f"; there are {', '.join(_DIMS)}"
            raise ValueError(f"base_model {name!r} is neither a file, .onnx or .keras, nor a known network{hint}")
        if of_file and self.preprocessing is None:
            raise ValueError(f"preprocessing must say what {name} takes: {', '.join(get_args(Preprocessing))}")
        if not of_file:
            for setting in ("preprocessing", "input_side", "output"):
                if getattr(self, setting) is not None:
                    raise ValueError(f"{setting} is for networks in files; {name} is known")
            if self.output_dim != _DIMS[name]:
                raise ValueError(f"{name} gives {_DIMS[name]} numbers per token, not output_dim {self.output_dim}")
        if name != RESNET50 and self.precision != "float32":
            raise ValueError(f"precision {self.precision} is for resnet50 alone, not for {name}")
        if name != RESNET50 and self.weights is not None and (of_file or not self.weights.endswith(WEIGHTS_ENDING)):
            cure = "a file has its own" if of_file else f"a file that ends in {WEIGHTS_ENDING} is"
            raise ValueError(f"weights {self.weights!r} are not for {name}: {cure}")
        if any(network.also for network in self.also):
            raise ValueError("also must be one list; its networks have no also of their own")
        if len(set(self.networks)) <= len(self.also):
            raise ValueError("also must list further networks, each once, without base_model itself")
        return self

    @property
    def networks(self) -> tuple[StaticSettings, ...]:
        """The settings of each network whose numbers a token has, in their order."""
        return (self.model_copy(update={"also": ()}), *self.also)


_DIMS = {RESNET50: FEATURES} | {name: known.dim for name, known in APPLICATIONS.items()}


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

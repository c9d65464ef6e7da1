"""What a user may choose about training; apart from the code that needs Keras, which takes seconds to import."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Form = Literal["sequence", "vector"]


class TrainSettings(BaseModel, frozen=True, extra="forbid"):
    """How the model is trained."""

    form: Form = Field(
        "sequence",
        description="What the model sees of a clip: 'sequence' (all its tokens, with their times) or 'vector' (the "
        "mean of its tokens; attention then has nothing to choose from).",
    )
    epochs: int = Field(100, ge=1, description="Most passes over the training clips; early stopping may end sooner.")
    batch_size: int = Field(32, ge=1, description="Most clips per training step.")
    learning_rate: float = Field(1e-3, gt=0, description="Step size of the Adam optimiser (no unit).")
    loss: Literal["mse", "mae"] = Field(
        "mse", description="Error to minimise: 'mse' (mean squared) or 'mae' (mean absolute)."
    )
    validation_fraction: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the clips held out, by whole subjects, to choose the best epoch; 0: none.",
    )
    patience: int = Field(10, ge=1, description="Epochs without a better validation loss after which training stops.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the split, the weights, the order of clips and dropout.")

"""Settings of training, separate from the code that needs Keras, which takes seconds to import."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Form = Literal["sequence", "vector"]
LossName = Literal["mse", "mae", "ccc", "nll"]

# Settings that determine where training runs and how safely, but not what the model learns.
WITHOUT_EFFECT = ("devices", "checkpoint_s")


class TrainSettings(BaseModel, frozen=True, extra="forbid"):
    """How the model is trained."""

    form: Form = Field(
        "sequence",
        description="The model's view of a clip: 'sequence' (all its tokens, with their times) or 'vector' (the mean "
        "of its tokens, which leaves attention nothing to choose from).",
    )
    epochs: int = Field(100, ge=1, description="Most passes over the training clips; early stopping may end sooner.")
    batch_size: int = Field(64, ge=1, description="Most clips per training step.")
    learning_rate: float = Field(1e-3, gt=0, description="Largest step size of the Adam optimiser (no unit).")
    warmup_epochs: float = Field(
        1.0, ge=0, description="Epochs over which the step size rises linearly from 0 to learning_rate."
    )
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        "cosine",
        description="After the warm-up: 'cosine' (falls to 0 at the last of `epochs` along half a cosine), 'plateau' "
        "(is halved after every plateau_epochs without a better validation loss) or 'constant'.",
    )
    plateau_epochs: int = Field(3, ge=1, description="Epochs without a better validation loss that make a plateau.")
    clip_norm: float = Field(
        1.0,
        gt=0,
        description="Largest norm of the gradient over all weights; a longer gradient is shortened to it. The loss is "
        "measured in multiples of the loss of the mean label, so the unit does not depend on the labels' scale.",
    )
    dropout_rate: float = Field(0.3, ge=0, lt=1, description="Share of the fused numbers dropped in training.")
    loss: LossName = Field(
        "mse",
        description="Error to minimise: 'mse' (mean squared), 'mae' (mean absolute), 'ccc' (1 minus the concordance "
        "correlation coefficient of a batch, averaged over traits) or 'nll' (negative log-likelihood of a Gaussian "
        "whose variance is that of each trait's recent residuals: traits that are easy to predict weigh more).",
    )
    validation_fraction: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the clips held out, by whole subjects, to choose the best epoch; 0: none.",
    )
    patience: int = Field(10, ge=1, description="Epochs without a better validation loss after which training stops.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the split, the weights, the order of clips and dropout.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Number format of a training step: 'bfloat16' (with float32 weights) is faster on GPUs that "
        "support it. The saved model computes in float32 either way.",
    )
    devices: int = Field(
        1, ge=0, description="GPUs that share each batch (count); 0: all available. Without a GPU: CPU devices."
    )
    memory_mb: int = Field(
        1024,
        ge=1,
        description="Most memory for features (MiB). A set that fits is read once; a larger one is read again in every "
        "epoch, in shuffled order of neighbours, through a shuffle buffer of half this size.",
    )
    checkpoint_s: float = Field(
        600, ge=0, description="Seconds between checkpoints within an epoch; there is one after each epoch too."
    )

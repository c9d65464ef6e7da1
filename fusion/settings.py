"""Settings of training and evaluation, apart from code that imports Keras, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

Form = Literal["sequence", "vector"]
LossName = Literal["mse", "mae", "ccc", "nll"]
Kind = Literal["bilinear", "specified"]

# Settings that determine where training runs, how safely, and what becomes of a model, but not what it learns.
WITHOUT_EFFECT = ("devices", "keep_useless")


class TrainSettings(BaseModel, frozen=True, extra="forbid"):
    """How the model is trained."""

    kind: Kind = Field(
        "bilinear",
        description="The model: 'bilinear' (linear in the mean tokens and in products of face and motion at the same "
        "moment, fitted in closed form; of the settings below, only folds, components, ridge_components, form, seed "
        "and memory_mb affect it) or 'specified' (the specified cross-attention network, trained by gradient descent).",
    )
    folds: int = Field(
        5, ge=2, description="Parts of the people that a bilinear model's own quality is measured on in turn (count)."
    )
    components: int = Field(
        48,
        ge=1,
        description="Principal components of each kind of token whose products a bilinear model takes (count).",
    )
    ridge_components: int = Field(
        24,
        ge=1,
        description="Of them, the strongest whose products each have a coefficient of their own (count); all of them "
        "are described by one look and one movement for each trait.",
    )
    keep_useless: bool = Field(
        False,
        description="Keep a model that is no better than the mean of the labels on people whom it has not seen. Its "
        "card, its report and each of its scores then say so.",
    )
    form: Form = Field(
        "sequence",
        description="The model's view of a clip: 'sequence' (all its tokens, with their times) or 'vector' (the mean "
        "of its tokens, with which attention has no effect).",
    )
    epochs: int = Field(100, ge=1, description="Maximum passes over the training clips; early stopping may end sooner.")
    batch_size: int = Field(64, ge=1, description="Maximum clips per training step (count).")
    learning_rate: float = Field(1e-3, gt=0, description="Largest step size of the Adam optimiser (no unit).")
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="Share of each weight, times the step size, by which a step shrinks it (AdamW; biases and norms "
        "are left alone).",
    )
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
    width: int = Field(
        128,
        ge=2,
        multiple_of=2,
        description="Numbers in a fused token of a specified model, and in a key of each head; the specification has "
        "128, and a model of another width says so (count).",
    )
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
        description="Maximum memory for features (MiB). A set that fits is read once; a larger one is read again in "
        "every epoch, in shuffled order of neighbours, through a shuffle buffer of half this size.",
    )

    @property
    def steps(self) -> int:
        """Number of steps of progress that a training shows at most."""
        return self.epochs if self.kind == "specified" else 1

    @property
    def effective(self) -> dict[str, Any]:
        """Return the settings that affect what a model of this kind learns, as JSON values."""
        return effective(self.model_dump(mode="json"))


def effective(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a training's settings, as JSON values, that affect what a model of their kind learns."""
    if settings.get("kind") == "bilinear":
        products = ("components", "ridge_components") if settings.get("form") == "sequence" else ()
        names = {"kind", "form", "seed", "folds", *products}
    else:
        names = settings.keys() - {*WITHOUT_EFFECT, "folds", "components", "ridge_components"}
        if settings.get("schedule") != "plateau":
            names -= {"plateau_epochs"}
    return {name: value for name, value in settings.items() if name in names}


class UncertaintySettings(BaseModel, frozen=True, extra="forbid"):
    """The confidence of intervals, and the limits beyond which a score is flagged as unusable."""

    confidence: float = Field(0.9, gt=0, lt=1, description="Share of clips whose label the intervals should contain.")
    calibration_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the clips held out from the training of a specified model, by whole subjects, to "
        "calibrate intervals and to measure its quality; none are held out if they would show too few people for the "
        "confidence (9 for 0.9). A bilinear model holds out each fold in turn.",
    )
    min_face_coverage: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Abstain below this share of frames with the main person's face: tokens then represent less than "
        "half of the clip.",
    )
    min_static_tokens: int = Field(
        8,
        ge=1,
        description="Abstain below this number of face tokens: half of the usual 16, whose mean is 1.4 times as noisy.",
    )
    min_dynamic_tokens: int = Field(
        2, ge=1, description="Abstain below this number of motion tokens: one covers 2.6 s, or a shorter clip, looped."
    )
    max_width_ratio: float = Field(
        1.0,
        gt=0,
        description="Abstain if the interval is wider than this many times the one around the mean of the labels, "
        "which needs no video (average over traits): the video then adds no information.",
    )


class EvaluateSettings(BaseModel, frozen=True, extra="forbid"):
    """How `traitline evaluate` compares the model with baselines, ablations and controls."""

    seeds: int = Field(
        5,
        ge=1,
        description="Repetitions, with seeds 0, 1, ...: each divides the people into other folds, and trains every "
        "random predictor from other weights (count).",
    )
    folds: int = Field(5, ge=2, description="Subject-disjoint folds (count).")
    only: tuple[str, ...] = Field(
        (), description="Names of the predictors to evaluate, such as ridge_both or bilinear; empty: all of them."
    )

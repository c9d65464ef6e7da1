"""Training the model on clips in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from fusion.batches import ClipBatches
from fusion.errors import TrainingError
from fusion.model import CompletePersonalityModel
from fusion.moments import mean_and_std
from fusion.scoring import predict
from fusion.settings import Form, TrainSettings
from fusion.split import split_by_subject
from fusion.tokens import ClipTokens
from fusion.traits import TRAITS

log = logging.getLogger(__name__)

# Predictions that vary less than this share of the labels' spread say nearly the same of everybody.
COLLAPSE_SD_RATIO = 0.2


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What `on_epoch` receives: epoch (from 1) of epochs, and the losses, without validation None."""

    epoch: int
    epochs: int
    loss: float
    validation_loss: float | None


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, its losses by epoch, and JSON-able facts about how it came about.

    Attributes:
        model: with the weights of the best epoch (of the last one, without validation).
        history: "loss" and, with validation, "validation_loss": one number per epoch; "loss" is taken with dropout on.
        metadata: see `train`.
    """

    model: CompletePersonalityModel
    history: dict[str, list[float]]
    metadata: dict[str, Any]


def train(
    clips: Sequence[ClipTokens],
    labels: np.ndarray,
    subjects: Sequence[str],
    settings: TrainSettings,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> Trained:
    """Train the specified model with Adam, keeping the weights of the epoch with the least validation loss.

    Sets the global seeds of Python, NumPy and Keras (`keras.utils.set_random_seed`); the same clips and settings on
    the same machine give the same model.

    Args:
        clips: N >= 2 clips with the same token dimensions.
        labels: float32 [N, 5] in [0, 1], trait order.
        subjects: the person in each clip; nobody is in both training and validation.
        settings: how to train.
        on_epoch: called after each epoch.

    Returns:
        The model, its history, and metadata: "traits", "static_dim", "dynamic_dim", "settings"; counts
        ("train_clips", "validation_clips", "train_subjects", "validation_subjects"), "epochs_run" and "best_epoch"
        (from 1); "train_loss", "validation_loss" and "baseline_loss" (of the constant that says the training mean, on
        the validation clips), all by the chosen loss without dropout; "sd_ratio" by trait (standard deviation of the
        predictions over that of the labels, on the validation clips; None where the labels do not vary) and
        "warnings". Without validation clips "validation_loss" and "baseline_loss" are None and sd_ratio is taken on
        the training clips.

    Raises:
        TrainingError: fewer than two clips, or losses that are no longer finite.
        ValueError: labels or subjects do not fit the clips.
    """
    labels = np.asarray(labels, np.float32)
    if len(clips) < 2:
        raise TrainingError(
            f"training needs at least 2 labelled clips with features, there are {len(clips)}: add labels or videos"
        )
    if labels.shape != (len(clips), len(TRAITS)) or not np.isfinite(labels).all():
        raise ValueError(f"labels must be finite and [{len(clips)}, {len(TRAITS)}], got {labels.shape}")
    if len(subjects) != len(clips):
        raise ValueError(f"{len(clips)} clips need {len(clips)} subjects, got {len(subjects)}")

    train_rows, validation_rows = split_by_subject(subjects, settings.validation_fraction, settings.seed)
    warnings = []
    if len(validation_rows) == 0 and settings.validation_fraction > 0:
        warnings.append(
            "all clips show the same subject, so there is no validation and no early stopping: "
            f"the model of the last of {settings.epochs} epochs is kept, and nothing says how well it does on others"
        )
    train_clips = [clips[row] for row in train_rows]
    validation_clips = [clips[row] for row in validation_rows]

    keras.utils.set_random_seed(settings.seed)
    model = _start(train_clips, labels[train_rows], settings.form)
    model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=settings.loss,
        jit_compile=False,  # on a CPU compiling costs more than it saves
    )
    history = _fit(
        model,
        _batches(train_clips, labels[train_rows], settings, shuffle=True),
        _batches(validation_clips, labels[validation_rows], settings, shuffle=False) if validation_clips else None,
        settings,
        on_epoch,
    )
    best_epoch = 1 + int(np.argmin(history["validation_loss"])) if validation_clips else len(history["loss"])

    train_scores = predict(model, train_clips, settings.batch_size)
    judged, judged_labels = train_scores, labels[train_rows]
    if validation_clips:
        judged, judged_labels = predict(model, validation_clips, settings.batch_size), labels[validation_rows]
    sd_ratio = _sd_ratio(judged, judged_labels)
    collapsed = [trait for trait, ratio in sd_ratio.items() if ratio is not None and ratio < COLLAPSE_SD_RATIO]
    if collapsed:
        warnings.append(
            f"predictions of {', '.join(collapsed)} hardly vary (under {COLLAPSE_SD_RATIO:.0%} of the labels' standard "
            "deviation): the model says nearly the same of everybody"
        )
    for warning in warnings:
        log.warning("%s", warning)

    baseline = labels[train_rows].mean(axis=0)
    metadata = {
        "traits": list(TRAITS),
        "static_dim": model.static_dim,
        "dynamic_dim": model.dynamic_dim,
        "settings": settings.model_dump(mode="json"),
        "train_clips": len(train_rows),
        "validation_clips": len(validation_rows),
        "train_subjects": len({subjects[row] for row in train_rows}),
        "validation_subjects": len({subjects[row] for row in validation_rows}),
        "epochs_run": len(history["loss"]),
        "best_epoch": best_epoch,
        "train_loss": _loss(train_scores, labels[train_rows], settings.loss),
        "validation_loss": _loss(judged, judged_labels, settings.loss) if validation_clips else None,
        "baseline_loss": _loss(baseline, judged_labels, settings.loss) if validation_clips else None,
        "sd_ratio": sd_ratio,
        "warnings": warnings,
    }
    return Trained(model, history, metadata)


def _start(clips: Sequence[ClipTokens], labels: np.ndarray, form: Form) -> CompletePersonalityModel:
    """A fresh model that knows the statistics of its inputs and says about the mean of the labels."""
    model = CompletePersonalityModel(clips[0].static.shape[1], clips[0].dynamic.shape[1], form=form)
    pooled = form == "vector"  # means of tokens vary less than tokens do
    static = mean_and_std(clip.static.mean(axis=0, keepdims=True) if pooled else clip.static for clip in clips)
    dynamic = mean_and_std(clip.dynamic.mean(axis=0, keepdims=True) if pooled else clip.dynamic for clip in clips)
    model.set_statistics(*static, *dynamic)
    # Random outputs around 0 would spend a small archive's epochs on reaching the labels' range: after 40 epochs on
    # 300 drawn clips R2 was below -2 from that start, and 0.88 from this one.
    outputs = model.head.scores
    outputs.kernel.assign(outputs.kernel * labels.std(axis=0))
    outputs.bias.assign(labels.mean(axis=0))
    return model


def _batches(clips: Sequence[ClipTokens], labels: np.ndarray, settings: TrainSettings, *, shuffle: bool) -> ClipBatches:
    return ClipBatches(clips, labels, batch_size=settings.batch_size, seed=settings.seed, shuffle=shuffle)


def _fit(
    model: CompletePersonalityModel,
    batches: ClipBatches,
    validation: ClipBatches | None,
    settings: TrainSettings,
    on_epoch: Callable[[EpochReport], None] | None,
) -> dict[str, list[float]]:
    callbacks = []
    if validation is not None:
        callbacks.append(
            keras.callbacks.EarlyStopping("val_loss", patience=settings.patience, restore_best_weights=True)
        )
    if on_epoch is not None:
        callbacks.append(
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: on_epoch(
                    EpochReport(epoch + 1, settings.epochs, logs["loss"], logs.get("val_loss"))
                )
            )
        )
    # the batches shuffle themselves
    fitted = model.fit(
        batches,
        validation_data=validation,
        epochs=settings.epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )
    history = {"loss": fitted.history["loss"]}
    if validation is not None:
        history["validation_loss"] = fitted.history["val_loss"]
    if not np.isfinite([*history.values()]).all():
        raise TrainingError(f"training diverged: lower learning_rate (now {settings.learning_rate})")
    return {name: [float(value) for value in losses] for name, losses in history.items()}


def _loss(scores: np.ndarray, labels: np.ndarray, loss: str) -> float:
    error = scores.astype(np.float64) - labels
    return float(np.mean(error**2) if loss == "mse" else np.mean(np.abs(error)))


def _sd_ratio(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    predicted, true = scores.std(axis=0), labels.std(axis=0)
    return {trait: float(predicted[i] / true[i]) if true[i] > 0 else None for i, trait in enumerate(TRAITS)}

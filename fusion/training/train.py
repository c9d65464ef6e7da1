"""Training: from labelled clips to a model and a record of how it was made."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusion.clips.moments import Moments
from fusion.clips.sources import ClipsInMemory, ClipSource, KeptClips, RowsOf, bytes_of, clips_of
from fusion.clips.tokens import ClipTokens
from fusion.errors import TrainingError
from fusion.labels.split import folds_by_subject, split_by_subject
from fusion.model.kinds import PersonalityModel
from fusion.model.model import CompletePersonalityModel
from fusion.settings import TrainSettings
from fusion.training.bilinear import fit_bilinear
from fusion.training.checkpoint import CHECKPOINT
from fusion.training.fit import EpochReport, LabelledSource, fit, sd_ratio
from fusion.training.losses import loss_of
from fusion.training.seeds import seeded
from fusion.traits import TRAITS

__all__ = ["CHECKPOINT", "EpochReport", "TrainSettings", "Trained", "train"]

log = logging.getLogger(__name__)

# Predictions that vary less than this share of the labels' spread are nearly the same for every clip.
COLLAPSE_SD_RATIO = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Scores of the training clips by models that have not seen their people.

    Attributes:
        scores: float64 [N, 5].
        mean: float64 [N, 5], the mean label of the clips that such a model has learned from.
        folds: int [N], the fold of each clip; clips of one fold were scored by the same model.
    """

    scores: np.ndarray
    mean: np.ndarray
    folds: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained model, its losses by epoch, and JSON-compatible facts about its training.

    Attributes:
        model: a specified one has the weights of the best epoch (of the last one, without validation).
        history: "loss" and, with validation, "validation_loss": one number per epoch; "loss" is taken with dropout on.
            Empty for a bilinear model.
        metadata: see `train`.
        out_of_fold: for a bilinear model of at least two people; else None.
    """

    model: PersonalityModel
    history: dict[str, list[float]]
    metadata: dict[str, Any]
    out_of_fold: OutOfFold | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Survey:
    """The result of one pass over the clips: statistics of the training clips, and the sources to use from now on."""

    static: Moments
    dynamic: Moments
    train: ClipSource
    validation: ClipSource
    buffer_clips: int


def train(
    clips: Sequence[ClipTokens] | ClipSource,
    labels: np.ndarray,
    subjects: Sequence[str],
    settings: TrainSettings,
    on_epoch: Callable[[EpochReport], None] | None = None,
    *,
    folder: Path | None = None,
) -> Trained:
    """Train a model: the bilinear one in closed form, or the specified one with Adam.

    A specified model keeps the weights of the epoch with the lowest validation loss. Its training sets the global seeds
    of Python, NumPy and Keras (`keras.utils.set_random_seed`); the same clips and settings on the same machine give the
    same model, even if the training was interrupted and resumed from its checkpoint.

    Args:
        clips: N >= 2 clips with the same token dimensions: in memory, or a source that reads them again in every epoch.
        labels: float32 [N, 5] in [0, 1], trait order.
        subjects: the person in each clip; no person is in both training and validation.
        folder: on this machine, for `checkpoint.npz`, `history.csv` and TensorBoard's logs; None writes no files. A
            training that finds its own checkpoint there resumes from it.

    Returns:
        The model, which computes in float32, its history, and metadata. Of both kinds: "traits", "static_dim",
        "dynamic_dim", "settings", "train_clips", "train_subjects", "sd_ratio" by trait (standard deviation of the
        scores over that of the labels; None if the labels do not vary) and "warnings".
        Of a bilinear model, sd_ratio is that of the scores out of fold, and "parts" has the weight of each part of the
        stack by trait.
        Of a specified model, "validation_clips", "validation_subjects", "epochs_run" and "best_epoch" (from 1);
        "train_loss", "validation_loss" and "baseline_loss" (of always predicting the training mean, on the validation
        clips), all measured by the chosen loss without dropout; "noise_sd" by trait (of the residuals in training,
        including dropout's noise, for "nll"; None for other losses); sd_ratio is that on the validation clips. Without
        them "validation_loss" and "baseline_loss" are None and sd_ratio is computed on the training clips.

    Raises:
        TrainingError: there are fewer than two clips, a loss is no longer finite, a requested device does not exist, or
            the checkpoint belongs to another training or cannot be written.
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

    source: ClipSource = ClipsInMemory(clips) if isinstance(clips, Sequence) else clips
    if settings.kind == "bilinear":
        return _train_bilinear(source, labels, subjects, settings)
    train_rows, validation_rows = split_by_subject(subjects, settings.validation_fraction, settings.seed)
    survey = _survey(RowsOf(source, train_rows), RowsOf(source, validation_rows), settings)
    training = LabelledSource(survey.train, labels)
    validation = LabelledSource(survey.validation, labels) if len(validation_rows) else None
    with seeded(settings.seed):
        fitted = fit(
            lambda: _start(survey, labels[train_rows], settings),
            settings,
            training,
            validation,
            buffer_clips=survey.buffer_clips,
            folder=folder,
            identity=_identity(labels, subjects, settings),
            on_epoch=on_epoch,
        )
    model, history = _kept(fitted.model), fitted.history
    metadata = {
        **_facts(model, settings, [subjects[row] for row in train_rows]),
        "validation_clips": len(validation_rows),
        "validation_subjects": len({subjects[row] for row in validation_rows}),
        "epochs_run": len(history["loss"]),
        "best_epoch": 1 + int(np.argmin(history["validation_loss"])) if validation else len(history["loss"]),
        **_verdict(model, settings, training, validation, fitted.log_variance, labels[train_rows]),
    }
    return Trained(model, history, metadata)


def _train_bilinear(
    source: ClipSource, labels: np.ndarray, subjects: Sequence[str], settings: TrainSettings
) -> Trained:
    names, people = np.unique(np.asarray(subjects, str), return_inverse=True)
    warnings = []
    if len(names) < 2:
        warnings.append(
            "all clips show the same subject, so clips of that subject have chosen the penalties, and the model's "
            "quality on other people is unknown"
        )
        people = np.arange(len(labels))
    folds = folds_by_subject(people.astype(str).tolist(), settings.folds, settings.seed)
    fitted = fit_bilinear(source, labels, people, folds, settings)
    found = fitted.stack
    metadata = {
        **_facts(fitted.model, settings, subjects),
        "parts": {
            part: dict(zip(TRAITS, weights.tolist(), strict=True))
            for part, weights in zip(fitted.parts, found.weights, strict=True)
        },
        **_spread(found.out_of_fold, labels, warnings),
    }
    out_of_fold = OutOfFold(found.out_of_fold, found.mean_out_of_fold, folds) if len(names) > 1 else None
    return Trained(fitted.model, {}, metadata, out_of_fold)


def _facts(model: PersonalityModel, settings: TrainSettings, subjects: Sequence[str]) -> dict[str, Any]:
    """Return the metadata of both kinds of model; `subjects` has the person in each clip that was trained on."""
    return {
        "traits": list(TRAITS),
        "static_dim": model.static_dim,
        "dynamic_dim": model.dynamic_dim,
        "settings": settings.model_dump(mode="json"),
        "train_clips": len(subjects),
        "train_subjects": len(set(subjects)),
    }


def _survey(train: ClipSource, validation: ClipSource, settings: TrainSettings) -> _Survey:
    """Read every clip once, and keep them all if they fit into the memory limit."""
    limit_bytes = settings.memory_mb * 2**20
    kept = KeptClips(limit_bytes)
    static, dynamic = Moments(), Moments()
    size = 0
    for clip in kept.pass_on(clips_of(train)):
        size += bytes_of(clip)
        for moments, tokens in ((static, clip.static), (dynamic, clip.dynamic)):
            # means of tokens vary less than the tokens themselves
            moments.add(tokens.mean(axis=0, keepdims=True) if settings.form == "vector" else tokens)
    for _ in kept.pass_on(clips_of(validation)):
        pass
    buffer_clips = int(limit_bytes / 2 / (size / len(train)))
    in_memory = kept.instead_of(train)
    if in_memory is not train:
        buffer_clips = len(train)
    return _Survey(static, dynamic, in_memory, kept.instead_of(validation), max(buffer_clips, settings.batch_size))


def _start(survey: _Survey, labels: np.ndarray, settings: TrainSettings) -> CompletePersonalityModel:
    """Build a fresh model that has the statistics of its inputs and predicts roughly the mean of the labels."""
    static, dynamic = survey.static.mean_and_std(), survey.dynamic.mean_and_std()
    model = CompletePersonalityModel(
        len(static[0]),
        len(dynamic[0]),
        settings.width,
        dropout_rate=settings.dropout_rate,
        form=settings.form,
        dtype="mixed_bfloat16" if settings.precision == "bfloat16" else "float32",
    )
    model.set_statistics(*static, *dynamic)
    # From random outputs around 0, a small archive spends its epochs on reaching the labels' range: after 40 epochs on
    # 300 drawn clips R2 was below -2 from that start, and 0.88 from this one.
    outputs = model.head.scores
    outputs.kernel.assign(outputs.kernel * labels.std(axis=0))
    outputs.bias.assign(labels.mean(axis=0))
    return model


def _kept(trained: CompletePersonalityModel) -> CompletePersonalityModel:
    """Return the same model on one device, in float32 whatever precision it was trained in."""
    config = trained.get_config()
    del config["dtype"], config["name"]
    model: CompletePersonalityModel = CompletePersonalityModel.from_config(config)
    model.set_weights(trained.get_weights())
    return model


def _verdict(
    model: CompletePersonalityModel,
    settings: TrainSettings,
    training: LabelledSource,
    validation: LabelledSource | None,
    log_variance: np.ndarray,
    train_labels: np.ndarray,
) -> dict[str, Any]:
    """Measure how well the model does, and collect warnings."""

    def loss(scores: np.ndarray, labels: np.ndarray, log_variance: np.ndarray) -> float:
        return float(loss_of(settings.loss, scores.astype(np.float32), labels, log_variance))

    scores, labels = training.scored_by(model, settings.batch_size)
    train_loss = loss(scores, labels, log_variance)
    validation_loss = baseline_loss = None
    if validation is not None:
        scores, labels = validation.scored_by(model, settings.batch_size)
        validation_loss = loss(scores, labels, log_variance)
        constant = np.broadcast_to(train_labels.mean(axis=0), labels.shape)
        baseline_loss = loss(constant, labels, np.log(np.maximum(train_labels.var(axis=0), 1e-12)))
    warnings = []
    if validation is None and settings.validation_fraction > 0:
        warnings.append(
            "all clips show the same subject, so there is no validation and no early stopping: "
            f"the model of the last of {settings.epochs} epochs is kept, and its quality on other people is unknown"
        )
    noise_sd = dict(zip(TRAITS, np.exp(log_variance / 2).tolist(), strict=True))
    return {
        "train_loss": train_loss,
        "validation_loss": validation_loss,
        "baseline_loss": baseline_loss,
        "noise_sd": noise_sd if settings.loss == "nll" else None,
        **_spread(scores, labels, warnings),
    }


def _spread(scores: np.ndarray, labels: np.ndarray, warnings: list[str]) -> dict[str, Any]:
    """Return the metadata "sd_ratio", and "warnings" with one more if scores hardly vary; log the warnings."""
    ratios = sd_ratio(scores, labels)
    collapsed = [trait for trait, ratio in ratios.items() if ratio is not None and ratio < COLLAPSE_SD_RATIO]
    if collapsed:
        warnings = [
            *warnings,
            f"predictions of {', '.join(collapsed)} hardly vary (under {COLLAPSE_SD_RATIO:.0%} of the labels' standard "
            "deviation): the model predicts nearly the same for every clip",
        ]
    for warning in warnings:
        log.warning("%s", warning)
    return {"sd_ratio": ratios, "warnings": warnings}


def _identity(labels: np.ndarray, subjects: Sequence[str], settings: TrainSettings) -> str:
    """Return the SHA-256 of everything that a resumed training must share with that of the checkpoint."""
    facts = json.dumps([list(subjects), settings.effective])
    return hashlib.sha256(facts.encode() + labels.tobytes()).hexdigest()

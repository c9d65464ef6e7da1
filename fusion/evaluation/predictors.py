"""The predictors to compare: baselines, the model, its ablations, and controls that must show no skill."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import numpy as np

from fusion.clips.tokens import ClipTokens
from fusion.errors import TrainingError
from fusion.evaluation import baselines
from fusion.evaluation.folds import Fold
from fusion.labels.parts import Part
from fusion.settings import TrainSettings, UncertaintySettings
from fusion.uncertainty.intervals import ClipQuality, Uncertainty, calibrate, hold_out_for_calibration, least_people

Kind = Literal["baseline", "model", "ablation", "control"]
TokenKind = Literal["static", "dynamic"]
KINDS: tuple[TokenKind, ...] = ("static", "dynamic")
Change = Callable[[list[ClipTokens], int], list[ClipTokens]]


@dataclass(frozen=True, eq=False)
class LabelledClips:
    """N labelled clips.

    Attributes:
        labels: float32 [N, 5].
        parts: the part of the official split of each; None for a clip without one.
        groups: name of a grouping -> the group of each clip, str [N].
        tokens: the model's input for each; None if only labels are available.
        quality: the quality of each clip's material; None without tokens.
    """

    labels: np.ndarray
    subjects: tuple[str, ...]
    parts: tuple[Part | None, ...]
    groups: Mapping[str, np.ndarray]
    tokens: Sequence[ClipTokens] | None = None
    quality: ClipQuality | None = None

    def subjects_of(self, rows: np.ndarray) -> list[str]:
        """Return the people in some clips."""
        return [self.subjects[row] for row in rows]

    @cached_property
    def pooled(self) -> dict[TokenKind, np.ndarray]:
        """The mean token of each kind in each clip, float32 [N, D]. Raises ValueError if only labels are available."""
        if self.tokens is None:
            raise ValueError("clips without tokens cannot be pooled")
        return {kind: np.stack([getattr(clip, kind).mean(axis=0) for clip in self.tokens]) for kind in KINDS}


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a predictor says of the M test clips of a fold.

    Attributes:
        scores: float [M, 5].
        low, high: float [M, 5], the bounds of their intervals; None if the predictor has none.
        fitted_share: share of the fold's training clips that weights were fitted to. The specified network holds out
            the others to decide when training stops, and to calibrate intervals.
    """

    scores: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    seconds: float = 0.0
    fitted_share: float = 1.0


Predict = Callable[[LabelledClips, Fold, int], Prediction]


@dataclass(frozen=True, slots=True)
class Predictor:
    """A predictor that learns from a fold's training clips and scores its test clips.

    Attributes:
        seeded: whether its scores depend on the seed.
        predict: called with the clips, a fold and a seed.
    """

    name: str
    kind: Kind
    seeded: bool
    needs_tokens: bool
    predict: Predict


def all_predictors(train: TrainSettings, uncertainty: UncertaintySettings) -> list[Predictor]:
    """Return all predictors; the one of kind "model" is what the settings train."""

    def baseline(name: str, predict: Predict, *, seeded: bool = False, needs_tokens: bool = False) -> Predictor:
        return Predictor(name, "baseline", seeded, needs_tokens, predict)

    def trained(
        name: str, kind: Kind, settings: TrainSettings, change: Change = lambda clips, seed: clips
    ) -> Predictor:
        return Predictor(name, kind, True, True, partial(_trained, settings, uncertainty, change))

    models = {
        "bilinear": train.model_copy(update={"kind": "bilinear"}),
        "token_form": train.model_copy(update={"kind": "specified", "form": "sequence"}),
        "vector_form": train.model_copy(update={"kind": "specified", "form": "vector"}),
    }
    own = "bilinear" if train.kind == "bilinear" else "token_form" if train.form == "sequence" else "vector_form"
    return [
        baseline("mean", partial(_constant, np.mean)),
        baseline("median", partial(_constant, np.median)),
        baseline("subject_lookup", partial(_look_up, 0.0)),
        baseline("subject_lookup_shrunk", partial(_look_up, 1.0)),
        baseline("ridge_static", partial(_pooled, baselines.ridge, ("static",)), needs_tokens=True),
        baseline("ridge_dynamic", partial(_pooled, baselines.ridge, ("dynamic",)), needs_tokens=True),
        baseline("ridge_both", partial(_pooled, baselines.ridge, KINDS), needs_tokens=True),
        baseline("pca_ridge_both", partial(_pooled, baselines.pca_ridge, KINDS), needs_tokens=True),
        baseline("kernel_ridge_both", partial(_pooled, baselines.kernel_ridge, KINDS), needs_tokens=True),
        baseline("mlp_both", partial(_pooled, baselines.mlp, KINDS), seeded=True, needs_tokens=True),
        *(trained(name, "model" if name == own else "ablation", settings) for name, settings in models.items()),
        trained("static_only", "ablation", train, partial(_blanked, "dynamic")),
        trained("dynamic_only", "ablation", train, partial(_blanked, "static")),
        trained("optical_flow_shuffled", "control", train, partial(_shuffled, "dynamic")),
        trained("faces_shuffled", "control", train, partial(_shuffled, "static")),
    ]


def timed_prediction(predictor: Predictor, clips: LabelledClips, fold: Fold, seed: int) -> Prediction:
    """Train a predictor and score with it, and measure the time."""
    start = time.perf_counter()
    prediction = predictor.predict(clips, fold, seed)
    return replace(prediction, seconds=time.perf_counter() - start)


def chosen_predictors(known: Sequence[Predictor], only: Sequence[str], *, with_tokens: bool) -> list[Predictor]:
    """Select predictors by name, if available. Raises TrainingError if a name is unknown or nothing is left."""
    names = [predictor.name for predictor in known]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise TrainingError(f"evaluate.only: unknown predictor {', '.join(unknown)}; choose from {', '.join(names)}")
    chosen = [p for p in known if (not only or p.name in only) and (with_tokens or not p.needs_tokens)]
    if not chosen:
        raise TrainingError(f"evaluate.only: {', '.join(only)} needs more than labels; leave out --labels-only")
    return chosen


def _constant(average: Callable[..., np.ndarray], clips: LabelledClips, fold: Fold, seed: int) -> Prediction:
    constant = average(clips.labels[fold.train].astype(np.float64), axis=0)
    return Prediction(np.tile(constant, (len(fold.test), 1)))


def _look_up(shrinkage: float, clips: LabelledClips, fold: Fold, seed: int) -> Prediction:
    people, test_people = clips.subjects_of(fold.train), clips.subjects_of(fold.test)
    return Prediction(baselines.look_up_subject(clips.labels[fold.train], people, test_people, shrinkage=shrinkage))


def _pooled(
    regression: baselines.Regression, kinds: Sequence[TokenKind], clips: LabelledClips, fold: Fold, seed: int
) -> Prediction:
    features = np.hstack([clips.pooled[kind] for kind in kinds])
    people = clips.subjects_of(fold.train)
    return Prediction(regression(features[fold.train], clips.labels[fold.train], people, features[fold.test], seed))


def _trained(
    train: TrainSettings, uncertainty: UncertaintySettings, change: Change, clips: LabelledClips, fold: Fold, seed: int
) -> Prediction:
    """Train as `traitline train` does, and calibrate on people not seen; `change` applies to both sides."""
    from fusion.model.scoring import predict
    from fusion.training import train as training  # Keras takes seconds to import

    if clips.tokens is None or clips.quality is None:
        raise ValueError("the model needs tokens and their quality, not labels alone")
    train_clips = change([clips.tokens[row] for row in fold.train], seed)
    test_clips = change([clips.tokens[row] for row in fold.test], seed)
    labels, people = clips.labels[fold.train], clips.subjects_of(fold.train)
    fit, held_out = np.arange(len(people)), np.zeros(0, int)
    if train.kind == "specified":
        fit, held_out = hold_out_for_calibration(people, uncertainty, seed)
    settings = train.model_copy(update={"seed": seed})
    trained = training.train([train_clips[row] for row in fit], labels[fit], [people[row] for row in fit], settings)
    scores = predict(trained.model, test_clips)
    if trained.out_of_fold is not None:
        held_out, known = fit, trained.out_of_fold.scores
    else:
        known = predict(trained.model, (train_clips[row] for row in held_out))
    fitted_share = trained.metadata["train_clips"] / len(people)
    if len({people[row] for row in held_out}) < least_people(uncertainty.confidence):
        return Prediction(scores, fitted_share=fitted_share)
    calibration = calibrate(
        known,
        labels[held_out],
        [people[row] for row in held_out],
        clips.quality.take(fold.train[held_out]),
        centre=labels[fit].mean(axis=0),
        confidence=uncertainty.confidence,
        seed=seed,
    )
    judged = Uncertainty(settings=uncertainty, calibration=calibration).judge(scores, clips.quality.take(fold.test))
    return Prediction(scores, judged.low, judged.high, fitted_share=fitted_share)


def _blanked(kind: TokenKind, clips: list[ClipTokens], seed: int) -> list[ClipTokens]:
    """Replace all tokens of a kind by one token of zeros, which reveals neither their number nor their times."""
    blank = {kind: np.zeros_like(getattr(clips[0], kind)[:1]), f"{kind}_time_s": np.zeros(1, np.float32)}
    return [replace(clip, **blank) for clip in clips]


def _shuffled(kind: TokenKind, clips: list[ClipTokens], seed: int) -> list[ClipTokens]:
    """Give each clip another clip's tokens of one kind; none keeps its own."""
    order = np.random.default_rng(seed).permutation(len(clips))
    donor = np.empty(len(clips), int)
    donor[order] = np.roll(order, 1)
    names = (kind, f"{kind}_time_s")
    return [
        replace(clip, **{name: getattr(clips[other], name) for name in names})
        for clip, other in zip(clips, donor, strict=True)
    ]

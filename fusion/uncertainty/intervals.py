"""The error of a score, and when not to use it: conformal intervals and an abstain flag.

Clips of one person are not exchangeable with those of another, so the units of calibration are people, not clips: one
clip is drawn of each of K people whom the scoring model has not seen, and the width is the conformal quantile of these
K errors, averaged over many draws. For one clip of one more person from the same population, the interval of a trait
then contains the label with the stated probability, on average over the draws of the K people and of the new one. A
single draw guarantees that; the average over draws is tested by simulation with 9, 30 and 100 people. There is no such
guarantee for a group of people, for all five traits at once, or for people of another population: `traitline evaluate
--groups` measures the coverage in each group.

Sources:
    Dunn, Wasserman and Ramdas 2022, "Distribution-free prediction sets for two-layer hierarchical models", JASA 118
    (repeated subsampling).
    Lei et al. 2018, "Distribution-free predictive inference for regression" (locally weighted residuals).
    Vovk 2015, "Cross-conformal predictors" (scores out of fold).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from fusion.labels.split import folds_by_subject, sides_of, split_by_subject
from fusion.settings import UncertaintySettings

# With fewer people, too little is known of what makes a clip hard, so all clips have intervals of the same width.
MIN_PEOPLE_FOR_DIFFICULTY = 60
DIFFICULTY_FOLDS = 5
CLIP_DRAWS = 100
# Which clips are hard is learned as if this many people with equally hard clips had been seen before.
PRIOR_PEOPLE = 20
# The interval of a hard clip is at most this many times as wide as the average one; that of an easy clip, 1 over it.
MAX_DIFFICULTY = 2.0


Difficulty = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class ClipQuality:
    """The material of N clips: face_coverage float [N] in [0, 1], and numbers of tokens, int [N]."""

    face_coverage: np.ndarray
    static_tokens: np.ndarray
    dynamic_tokens: np.ndarray

    def take(self, rows: np.ndarray) -> ClipQuality:
        """Select some clips."""
        return ClipQuality(self.face_coverage[rows], self.static_tokens[rows], self.dynamic_tokens[rows])


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """The result of a calibration; all lists are by trait.

    Attributes:
        half_width: of the interval of a clip of average difficulty.
        blind_half_width: of the interval around `centre` that uses no video.
        centre: mean of the training labels.
        difficulty: [T][5] error by distance from the centre, missing face coverage, 1 / static tokens, 1 / dynamic
            tokens, and constant, relative to the average error.
        adaptive: whether the widths follow the difficulty; otherwise only the decision to abstain does.
        subjects: number of people that the widths come from.
    """

    half_width: tuple[float, ...]
    blind_half_width: tuple[float, ...]
    centre: tuple[float, ...]
    difficulty: Difficulty
    adaptive: bool = True
    subjects: int
    clips: int


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Intervals float64 [N, T], None without a calibration; and the reasons to abstain for each clip, "" if none."""

    low: np.ndarray | None
    high: np.ndarray | None
    abstain: list[str]


class Reliability(BaseModel, frozen=True, extra="forbid"):
    """How well statements about people whom a model has not seen hold, see `fusion.uncertainty.reliability`.

    Attributes:
        levels: L confidences, ascending.
        covered: [L][5], share of labels inside intervals of that confidence; every person counts once.
        scores: [5][bins], mean score of the clips in each bin, ascending.
        labels: [5][bins], mean label of the same clips.
    """

    levels: tuple[float, ...]
    covered: tuple[tuple[float, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    labels: tuple[tuple[float, ...], ...]
    subjects: int
    clips: int


class Uncertainty(BaseModel, frozen=True, extra="forbid"):
    """The part stored with a model: the thresholds, and the calibration if there were enough people for one.

    Attributes:
        useless: whether the model is no better than the mean of the labels on people whom it has not seen.
    """

    settings: UncertaintySettings
    calibration: Calibration | None
    reliability: Reliability | None = None
    useless: bool = False

    def judge(self, scores: np.ndarray, quality: ClipQuality) -> Judged:
        """Return the intervals of scores [N, T], and the reasons to abstain.

        These are face_coverage, few_tokens, wide_interval and, for all scores of a useless model, useless_model.
        """
        low = high = None
        wide = np.zeros(len(scores), bool)
        if self.calibration is not None:
            half_width = half_widths(self.calibration, scores, quality)
            low, high = scores - half_width, scores + half_width
            wide = relative_widths(self.calibration, scores, quality) > self.settings.max_width_ratio
        few = quality.static_tokens < self.settings.min_static_tokens
        few |= quality.dynamic_tokens < self.settings.min_dynamic_tokens
        reasons = {
            "face_coverage": quality.face_coverage < self.settings.min_face_coverage,
            "few_tokens": few,
            "wide_interval": wide,
            "useless_model": np.full(len(scores), self.useless),
        }
        abstain = [" ".join(name for name in reasons if reasons[name][row]) for row in range(len(scores))]
        return Judged(low, high, abstain)


def hold_out_for_calibration(
    subjects: Sequence[str], settings: UncertaintySettings, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the clips to train on and of those to calibrate on, which share no subject.

    The second is empty if it would contain fewer people than a finite interval needs, so that a small archive loses
    nothing.
    """
    fit, held_out = split_by_subject(subjects, settings.calibration_fraction, seed)
    people = len({subjects[row] for row in held_out})
    if people < least_people(settings.confidence):
        return np.arange(len(subjects)), np.zeros(0, int)
    return fit, held_out


def least_people(confidence: float) -> int:
    """Return how many people a finite interval of this confidence needs; an infinite error weighs 1 / (K + 1)."""
    return math.ceil(confidence / (1 - confidence) - 1e-9)


def calibrate(
    scores: np.ndarray,
    labels: np.ndarray,
    subjects: Sequence[str],
    quality: ClipQuality,
    *,
    centre: np.ndarray,
    confidence: float,
    seed: int = 0,
) -> Calibration:
    """Compute the width of intervals from clips of people whom the model has not seen.

    Scores may come from several models, each of which has not seen the people it scored, as long as the one that the
    intervals are for is made like them (cross-conformal prediction): it has learned from more people, so that its
    errors are, if anything, smaller.

    Args:
        scores: float [N, T].
        labels: float [N, T].
        subjects: the person in each, at least `least_people` of them.
        quality: of the same clips.
        centre: float [T], mean of the training labels.
        confidence: share of labels that the intervals should contain, in (0, 1).
        seed: of the draws of clips, and of the folds in which difficulty is learned from other people.

    Raises:
        ValueError: there are too few people.
    """
    scores, labels = scores.astype(np.float64), labels.astype(np.float64)
    errors, blind = np.abs(scores - labels), np.abs(labels - centre)
    adaptive = len(set(subjects)) >= MIN_PEOPLE_FOR_DIFFICULTY
    relative = errors
    if adaptive:
        relative = errors / _difficulty_of_others(errors, scores, subjects, quality, centre, seed)
    return Calibration(
        half_width=tuple(_quantile(relative, subjects, confidence, seed).tolist()),
        blind_half_width=tuple(_quantile(blind, subjects, confidence, seed).tolist()),
        centre=tuple(np.asarray(centre, np.float64).tolist()),
        difficulty=_learn_difficulty(errors, scores, subjects, quality, centre),
        adaptive=adaptive,
        subjects=len(set(subjects)),
        clips=len(scores),
    )


def half_widths(calibration: Calibration, scores: np.ndarray, quality: ClipQuality) -> npt.NDArray[np.float64]:
    """Return half the width of each interval: float64 [N, T], for scores [N, T]."""
    half_width = np.broadcast_to(np.array(calibration.half_width, np.float64), scores.shape)
    return half_width * _difficulty_by(calibration, scores, quality) if calibration.adaptive else half_width


def relative_widths(calibration: Calibration, scores: np.ndarray, quality: ClipQuality) -> npt.NDArray[np.float64]:
    """Return the width of each interval, relative to that of an interval without any video, mean over traits: [N]."""
    ratio = np.array(calibration.half_width) / np.array(calibration.blind_half_width)
    return np.asarray((ratio * _difficulty_by(calibration, scores, quality)).mean(axis=1))


def _quantile(
    errors: npt.NDArray[np.float64], subjects: Sequence[str], confidence: float, seed: int
) -> npt.NDArray[np.float64]:
    """Return the conformal quantile [T] of errors [N, T] of one clip of each person, mean over draws of these clips."""
    _, person, counts = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    if len(counts) < least_people(confidence):
        raise ValueError(
            f"intervals of {confidence:.0%} need at least {least_people(confidence)} people to calibrate on, "
            f"there are {len(counts)}"
        )
    by_person = errors[np.argsort(person, kind="stable")]
    starts = np.cumsum(counts) - counts
    rank = math.ceil(confidence * (len(counts) + 1) - 1e-9)
    rng = np.random.default_rng(seed)
    drawn = [by_person[starts + rng.integers(counts)] for _ in range(1 if counts.max() == 1 else CLIP_DRAWS)]
    quantiles: npt.NDArray[np.float64] = np.mean(
        [np.partition(one, rank - 1, axis=0)[rank - 1] for one in drawn], axis=0
    )
    return quantiles


def _features(scores: np.ndarray, quality: ClipQuality, centre: np.ndarray) -> np.ndarray:
    """Return features that may make a clip hard, by trait: float64 [T, N, 5], the last a constant 1."""
    alike = np.stack([1 - quality.face_coverage, 1 / quality.static_tokens, 1 / quality.dynamic_tokens], axis=1)
    traits = range(scores.shape[1])
    return np.stack([np.column_stack([np.abs(scores[:, t] - centre[t]), alike, np.ones(len(scores))]) for t in traits])


def _difficulty_of_others(
    errors: np.ndarray, scores: np.ndarray, subjects: Sequence[str], quality: ClipQuality, centre: np.ndarray, seed: int
) -> np.ndarray:
    """Return each clip's difficulty, [N, T], as learned from other people: its own would fit its error."""
    found = np.empty(errors.shape)
    for rest, out in sides_of(folds_by_subject(subjects, DIFFICULTY_FOLDS, seed)):
        others = [subjects[row] for row in rest.tolist()]
        weights = _learn_difficulty(errors[rest], scores[rest], others, quality.take(rest), centre)
        found[out] = _difficulty(weights, scores[out], quality.take(out), centre)
    return found


def _learn_difficulty(
    errors: np.ndarray, scores: np.ndarray, subjects: Sequence[str], quality: ClipQuality, centre: np.ndarray
) -> Difficulty:
    """Fit a ridge regression of relative errors on standardised features; return the weights of the raw features."""
    from sklearn.linear_model import Ridge  # takes a second to import

    weights = []
    penalty = PRIOR_PEOPLE * len(errors) / len(set(subjects))
    for trait, features in enumerate(_features(scores, quality, centre)):
        inputs, targets = features[:, :-1], errors[:, trait]
        mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
        spread = np.where(spread > 1e-9, spread, np.inf)  # ignores constant features
        fit = Ridge(alpha=penalty).fit((inputs - mean) / spread, targets / max(targets.mean(), 1e-9))
        slopes = fit.coef_ / spread
        weights.append((*slopes.tolist(), float(fit.intercept_ - slopes @ mean)))
    return tuple(weights)


def _difficulty_by(calibration: Calibration, scores: np.ndarray, quality: ClipQuality) -> npt.NDArray[np.float64]:
    return _difficulty(calibration.difficulty, scores, quality, np.array(calibration.centre))


def _difficulty(
    weights: Difficulty, scores: np.ndarray, quality: ClipQuality, centre: np.ndarray
) -> npt.NDArray[np.float64]:
    """Return each clip's expected error relative to the average one: float64 [N, T], within a factor of 2."""
    expected: npt.NDArray[np.float64] = np.einsum("tnf,tf->nt", _features(scores, quality, centre), np.array(weights))
    return np.clip(expected, 1 / MAX_DIFFICULTY, MAX_DIFFICULTY)

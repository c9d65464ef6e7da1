"""The error of a score, and when not to use it: split-conformal intervals and an abstain flag.

Clips of one person are not exchangeable with those of another, so the units of calibration are people, not clips: each
of K people held out from training weighs 1 / (K + 1), shared by this person's clips. The guarantee: for one clip drawn
from a person whom neither training nor calibration saw, and who comes from the same population as the K, the interval
of a trait contains the label with at least the stated probability, on average over the draws of the K people and of the
new one. Nothing is guaranteed for a group of people separately, for all five traits at once, or for people of another
population: `traitline evaluate --groups` measures the coverage in each group.

Sources:
    Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical data" (HCP).
    Lei et al. 2018, "Distribution-free predictive inference for regression" (locally weighted residuals).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from fusion.labels.split import split_by_subject
from fusion.settings import UncertaintySettings

# With at least this many held-out people, a third of them teach which clips are hard; otherwise all clips count alike.
MIN_PEOPLE_FOR_DIFFICULTY = 60
# The interval of a hard clip is at most this many times as wide as the average one; that of an easy clip, 1 over it.
MAX_DIFFICULTY = 2.0


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
            tokens, and constant, relative to the average error; if it was not learned, 0 except for a constant of 1.
        subjects: number of people that the widths come from.
        clips: number of their clips.
    """

    half_width: tuple[float, ...]
    blind_half_width: tuple[float, ...]
    centre: tuple[float, ...]
    difficulty: tuple[tuple[float, ...], ...]
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
        subjects: number of people.
        clips: number of their clips.
    """

    levels: tuple[float, ...]
    covered: tuple[tuple[float, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    labels: tuple[tuple[float, ...], ...]
    subjects: int
    clips: int


class Uncertainty(BaseModel, frozen=True, extra="forbid"):
    """Stored with a model: the thresholds, and the calibration if there were enough people for one."""

    settings: UncertaintySettings
    calibration: Calibration | None
    reliability: Reliability | None = None

    def judge(self, scores: np.ndarray, quality: ClipQuality) -> Judged:
        """Return the intervals of scores [N, T], and reasons to abstain: face_coverage, few_tokens, wide_interval."""
        low = high = None
        wide = np.zeros(len(scores), bool)
        if self.calibration is not None:
            half_width = half_widths(self.calibration, scores, quality)
            low, high = scores - half_width, scores + half_width
            wide = (half_width / self.calibration.blind_half_width).mean(axis=1) > self.settings.max_width_ratio
        few = quality.static_tokens < self.settings.min_static_tokens
        few |= quality.dynamic_tokens < self.settings.min_dynamic_tokens
        reasons = {
            "face_coverage": quality.face_coverage < self.settings.min_face_coverage,
            "few_tokens": few,
            "wide_interval": wide,
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

    Args:
        scores: float [N, T] of the clips held out.
        labels: float [N, T].
        subjects: the person in each, at least `least_people` of them.
        quality: of the same clips.
        centre: float [T], mean of the training labels.
        confidence: share of labels that the intervals should contain, in (0, 1).
        seed: of the draw of those people who teach which clips are hard.

    Raises:
        ValueError: there are too few people.
    """
    scores, labels = scores.astype(np.float64), labels.astype(np.float64)
    difficulty = np.tile([0.0, 0, 0, 0, 1], (labels.shape[1], 1))
    rows = np.arange(len(scores))
    if len(set(subjects)) >= max(MIN_PEOPLE_FOR_DIFFICULTY, 2 * least_people(confidence)):
        # From other people than the widths, which would otherwise be measured on the data of this fit.
        rows, hard = split_by_subject(subjects, 1 / 3, seed)
        difficulty = _learn_difficulty(scores[hard], labels[hard], quality.take(hard), centre)
    people = [subjects[row] for row in rows.tolist()]
    errors, blind = np.abs(scores - labels)[rows], np.abs(labels - centre)[rows]
    relative = errors / _expected_errors(scores[rows], quality.take(rows), centre, difficulty)
    return Calibration(
        half_width=tuple(_quantile(relative, people, confidence).tolist()),
        blind_half_width=tuple(_quantile(blind, people, confidence).tolist()),
        centre=tuple(np.asarray(centre, np.float64).tolist()),
        difficulty=tuple(tuple(row) for row in difficulty.tolist()),
        subjects=len(set(people)),
        clips=len(rows),
    )


def half_widths(calibration: Calibration, scores: np.ndarray, quality: ClipQuality) -> npt.NDArray[np.float64]:
    """Return half the width of each interval: float64 [N, T], for scores [N, T]."""
    difficulty, centre = np.array(calibration.difficulty), np.array(calibration.centre)
    return np.array(calibration.half_width, np.float64) * _expected_errors(scores, quality, centre, difficulty)


def _quantile(errors: npt.NDArray[np.float64], people: Sequence[str], confidence: float) -> npt.NDArray[np.float64]:
    """Return the quantiles of errors [N, T]; the clips of a person weigh as much as one more, unseen person."""
    names, person_of_clip, counts = np.unique(np.asarray(people, str), return_inverse=True, return_counts=True)
    if len(names) < least_people(confidence):
        raise ValueError(
            f"intervals of {confidence:.0%} need at least {least_people(confidence)} people to calibrate on, "
            f"there are {len(names)}"
        )
    weights = np.append(1 / counts[person_of_clip], 1.0)
    with_unseen = np.vstack([errors, np.full(errors.shape[1], np.inf)])
    return np.asarray(np.quantile(with_unseen, confidence - 1e-9, axis=0, method="inverted_cdf", weights=weights))


def _features(scores: np.ndarray, quality: ClipQuality, centre: np.ndarray) -> np.ndarray:
    """Return features that may make a clip hard, by trait: float64 [T, N, 5], the last a constant 1."""
    alike = np.stack([1 - quality.face_coverage, 1 / quality.static_tokens, 1 / quality.dynamic_tokens], axis=1)
    traits = range(scores.shape[1])
    return np.stack([np.column_stack([np.abs(scores[:, t] - centre[t]), alike, np.ones(len(scores))]) for t in traits])


def _learn_difficulty(scores: np.ndarray, labels: np.ndarray, quality: ClipQuality, centre: np.ndarray) -> np.ndarray:
    """Fit a ridge regression of relative errors on standardised features; return weights [T, 5] of the raw features."""
    weights = []
    for trait, features in enumerate(_features(scores, quality, centre)):
        errors = np.abs(scores - labels)[:, trait]
        inputs = features[:, :-1]
        from sklearn.linear_model import Ridge  # takes a second to import

        mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
        spread = np.where(spread > 1e-9, spread, np.inf)  # ignores constant features
        # With a tenth of the number of clips as penalty, weak evidence leaves all clips alike.
        fit = Ridge(alpha=0.1 * len(errors)).fit((inputs - mean) / spread, errors / max(errors.mean(), 1e-9))
        slopes = fit.coef_ / spread
        weights.append([*slopes, fit.intercept_ - slopes @ mean])
    return np.array(weights)


def _expected_errors(
    scores: np.ndarray, quality: ClipQuality, centre: np.ndarray, difficulty: np.ndarray
) -> npt.NDArray[np.float64]:
    """Return each clip's expected error relative to the average one: float64 [N, T], within 1 / 2 and 2."""
    expected: npt.NDArray[np.float64] = np.einsum("tnf,tf->nt", _features(scores, quality, centre), difficulty)
    return np.clip(expected, 1 / MAX_DIFFICULTY, MAX_DIFFICULTY)

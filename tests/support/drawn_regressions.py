"""Many small data sets at once, and ridge regressions of them whose quality on the population is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusion.evaluation.folds import subject_folds
from fusion.evaluation.metrics import METRICS

DIM = 5
CLIPS_EACH = 3
PENALTY = 5.0
FOLDS = 5


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Scores of N clips in S data sets by the regressions of the other folds.

    Attributes:
        scores: float [N, S].
        learned_mean: float [N, S], the mean label of the training clips of each fold.
        folds: int [N].
        truth: float [6, S], the METRICS of such a regression on the population, mean over folds.
    """

    scores: np.ndarray
    learned_mean: np.ndarray
    folds: np.ndarray
    truth: np.ndarray


class Regressions:
    """S data sets of the same people; features and labels are normal with a variance of 1.

    Half of a feature's variance is the person's, and so are two fifths of the labels' noise.

    Args:
        people: P, with CLIPS_EACH clips each.
        sets: S.
        signal: share of the labels' variance that follows from the features.
    """

    def __init__(self, people: int, sets: int, signal: float, seed: int = 0) -> None:
        rng = np.random.default_rng((seed, people))
        person = np.repeat(np.arange(people), CLIPS_EACH)
        self.subjects = [f"{number:06}" for number in person]
        features = np.sqrt(0.5) * rng.normal(size=(sets, people, DIM))[:, person]
        self._features = features + np.sqrt(0.5) * rng.normal(size=(sets, len(person), DIM))
        slopes = rng.normal(size=(sets, DIM))
        self._slopes = slopes * np.sqrt(signal) / np.linalg.norm(slopes, axis=1, keepdims=True)
        self._noise = 1 - signal
        of_person = np.sqrt(0.4 * self._noise) * rng.normal(size=(sets, people))[:, person]
        rest = np.sqrt(0.6 * self._noise) * rng.normal(size=of_person.shape)
        self._labels = (self._features @ self._slopes[..., None])[..., 0] + of_person + rest
        self.labels = self._labels.T

    def out_of_fold(self, seed: int = 0) -> OutOfFold:
        """Score every clip by the regression of the other folds of people."""
        scores, learned_mean = np.empty_like(self._labels), np.empty_like(self._labels)
        folds, truth = np.empty(scores.shape[1], int), []
        for number, fold in enumerate(subject_folds(self.subjects, FOLDS, seed)):
            inputs, targets = self._features[:, fold.train], self._labels[:, fold.train, None]
            centre, mean = inputs.mean(axis=1, keepdims=True), targets.mean(axis=1, keepdims=True)
            moments = (inputs - centre).transpose(0, 2, 1)
            slopes = np.linalg.solve(moments @ (inputs - centre) + PENALTY * np.eye(DIM), moments @ (targets - mean))
            scores[:, fold.test] = ((self._features[:, fold.test] - centre) @ slopes + mean)[..., 0]
            learned_mean[:, fold.test] = mean[:, 0]
            folds[fold.test] = number
            truth.append(self._on_the_population(slopes[..., 0], (mean - centre @ slopes)[:, 0, 0]))
        return OutOfFold(scores.T, learned_mean.T, folds, np.mean(truth, axis=0))

    def _on_the_population(self, slopes: np.ndarray, bias: np.ndarray) -> np.ndarray:
        mse = np.square(self._slopes - slopes).sum(axis=1) + bias**2 + self._noise
        variance, covariance = np.square(slopes).sum(axis=1), (self._slopes * slopes).sum(axis=1)
        found = {
            "one_minus_mae": 1 - np.sqrt(2 * mse / np.pi),
            "rmse": np.sqrt(mse),
            "r2": 1 - mse,
            "pearson": covariance / np.sqrt(variance),
            "ccc": 2 * covariance / (1 + variance + bias**2),
            "sd_ratio": np.sqrt(variance),
        }
        return np.stack([found[name] for name in METRICS])

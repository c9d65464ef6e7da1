"""Confidence intervals of measures: the bootstrap over subjects.

Clips of one person resemble each other, so the units that are sampled are people, not clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.evaluation.metrics import clip_terms, metrics_of_sums, with_mean

CHUNK = 128


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Measures with their bootstrap draws.

    Attributes:
        value: float64 [6, T + 1]: METRICS by traits and their mean.
        draws: float64 [D, 6, T + 1].
        by_seed: float64 [seeds, 6, T + 1].
    """

    value: np.ndarray
    draws: np.ndarray
    by_seed: np.ndarray

    def interval(self, level: float = 0.95) -> np.ndarray:
        """Return the percentile interval, float64 [2, 6, T + 1]: lower and upper bound; NaN if no draw defines it."""
        return percentile_interval(self.draws, level)


class SubjectDraws:
    """Samples of the subjects with replacement, the same for everything measured on these clips.

    Each fold is measured separately and the results are averaged, because scores of different folds come from different
    models: pooled over five folds, even the training means correlate with the labels. Subjects are drawn within folds.
    """

    def __init__(
        self, subjects: Sequence[str], folds: np.ndarray | None = None, *, draws: int = 1000, seed: int = 0
    ) -> None:
        """Draw the samples.

        Args:
            subjects: the person in each of N clips.
            folds: int [N], the fold of each clip; None means one fold.
            draws: number of samples.
            seed: of the draws.
        """
        self._seed = seed
        self._count = draws
        rng = np.random.default_rng(seed)
        names = np.asarray(subjects, str)
        folds = np.zeros(len(names), int) if folds is None else folds
        self._folds = []
        for fold in np.unique(folds):
            clips = np.flatnonzero(folds == fold)
            people, person_of_clip = np.unique(names[clips], return_inverse=True)
            # how often each person is in each sample; 255 times never happens
            times = np.empty((draws, len(people)), np.uint8)
            for draw in range(draws):
                times[draw] = np.bincount(rng.integers(0, len(people), len(people)), minlength=len(people))
            self._folds.append((clips, person_of_clip, times))

    def measure(self, scores: np.ndarray, labels: np.ndarray) -> Measured:
        """Measure scores of one or more seeds; a draw also samples the seeds, and takes the mean over them.

        Args:
            scores: float [seeds, N, T].
            labels: float [N, T].
        """
        seeds = len(scores)
        chosen = np.random.default_rng((self._seed, seeds)).multinomial(seeds, [1 / seeds] * seeds, self._count) / seeds
        points, samples = zip(*(self._measure_one(one, labels) for one in scores), strict=True)
        by_seed = np.stack(points)
        draws = sum(chosen[:, number, None, None] * sample for number, sample in enumerate(samples))
        return Measured(by_seed.mean(axis=0), draws, by_seed)

    def mean_over_people(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean in which every person counts once, whatever the number of their clips and the fold.

        Args:
            values: float [N, T].

        Returns:
            float64 [T], and its draws, float64 [D, T].
        """
        sums, people = np.zeros((self._count, values.shape[1])), 0
        whole = np.zeros(values.shape[1])
        for clips, person_of_clip, times in self._folds:
            counts = np.bincount(person_of_clip)
            by_person = np.zeros((len(counts), values.shape[1]))
            np.add.at(by_person, person_of_clip, values[clips])
            by_person /= counts[:, None]
            whole += by_person.sum(axis=0)
            sums += times.astype(np.float64) @ by_person
            people += len(counts)
        return whole / people, sums / people

    def _measure_one(self, scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, samples = [], []
        for clips, person_of_clip, times in self._folds:
            terms, offset = clip_terms(scores[clips], labels[clips])
            flat = terms.reshape(len(clips), -1)
            order = np.argsort(person_of_clip, kind="stable")
            starts = np.flatnonzero(np.diff(person_of_clip[order], prepend=-1))
            by_person = np.add.reduceat(flat[order], starts, axis=0)
            drawn = [times[at : at + CHUNK].astype(np.float64) @ by_person for at in range(0, self._count, CHUNK)]
            sums = np.concatenate(drawn).reshape(self._count, *terms.shape[1:])
            points.append(metrics_of_sums(by_person.sum(axis=0).reshape(terms.shape[1:]), offset))
            samples.append(metrics_of_sums(sums, offset))
        return with_mean(np.mean(points, axis=0)), with_mean(np.mean(samples, axis=0))


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Return the central `level` of draws [D, ...] without NaN draws: [2, ...], NaN if all draws are NaN."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    defined = ~np.isnan(draws).all(axis=0)
    interval = np.full((2, *draws.shape[1:]), np.nan)
    interval[:, defined] = np.nanquantile(draws[:, defined], tails, axis=0)
    return interval

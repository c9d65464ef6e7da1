"""How well features distinguish people: similarity within and between people, and same-person discrimination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

SAMPLE_TOKENS = 2048  # makes about two million pairs
MIN_TOKENS = 8  # of each person in the sample; with fewer, hardly any pair would show one person


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """Similarities of tokens within and between people. A value is None if it has no pair.

    Pairs consist of tokens of different clips, because tokens of one clip are similar even to a network that does not
    see the person.

    Attributes:
        people: number of people.
        people_of_several_clips: number of people who have a pair.
        left_out: number of tokens without a direction: all zeros, or with a number that is not finite.
        within_clip: mean cosine similarity of two tokens of one clip.
        consistency: mean cosine similarity of two tokens of different clips of one person, each person counting once.
        consistency_of_pairs: the same, each pair counting once.
        consistency_of: the same by person.
        discriminability: mean cosine distance (1 - similarity) of two tokens of different people, over all pairs.
        auc: chance that two tokens of one person are more similar than two of different people, ties counting half,
            over all pairs of the sample; 0.5 is no better than chance.
        same: cosine similarities of the sample's pairs of one person, float32.
        different: of its pairs of different people, float32.
        sample_tokens: number of tokens in the sample.
    """

    people: int
    people_of_several_clips: int
    left_out: int
    within_clip: float | None
    consistency: float | None
    consistency_of_pairs: float | None
    consistency_of: dict[str, float]
    discriminability: float | None
    auc: float | None
    same: np.ndarray
    different: np.ndarray
    sample_tokens: int


class IdentityMeter:
    """Accumulates tokens clip by clip. The means cover all pairs exactly, without comparing any two tokens.

    The sum of all cosines within a set of unit vectors is the squared length of their sum. The meter therefore stores
    only one sum, float64 [D], for each person whose clips are incomplete, in addition to the sample.

    Args:
        clips_of: person -> number of their clips that will be added.
        seed: of the sample for the AUC: at most 2,048 tokens of people with several clips, equally many of each.
        sample_tokens: another size for the sample.
    """

    def __init__(self, clips_of: Mapping[str, int], *, seed: int = 0, sample_tokens: int = SAMPLE_TOKENS) -> None:
        self._left = dict(clips_of)
        self._clips_of = clips_of
        several = [person for person, clips in clips_of.items() if clips > 1]
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(several))[: max(sample_tokens // MIN_TOKENS, 1)]
        share = max(sample_tokens // max(len(chosen), 1), MIN_TOKENS)
        self._samples = {several[at]: _Sample(share, rng) for at in chosen}
        self._open: dict[str, _Sums] = {}
        self._left_out = self._clips = 0
        self._everybody: np.ndarray | float = 0.0
        self._tokens = self._same_pairs = self._clip_pairs = self._cross_pairs = 0
        self._same_sum = self._clip_sum = self._cross_sum = 0.0
        self._consistency_of: dict[str, float] = {}

    def add(self, person: str, vectors: np.ndarray) -> None:
        """Add the tokens of one clip, float32 [n, D]."""
        rows = vectors.astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1)
        good = np.isfinite(lengths) & (lengths > 0)
        self._left_out += int((~good).sum())
        units = rows[good] / lengths[good, None]
        if person in self._samples:
            self._samples[person].add(self._clips, units)
        self._clips += 1
        sums = self._open.setdefault(person, _Sums(rows.shape[1]))
        sums.add(units)
        self._left[person] -= 1
        if self._left[person] == 0:
            self._close(person, self._open.pop(person))

    def result(self) -> Identity:
        """Return the result.

        Raises:
            ValueError: some person's clips are incomplete.
        """
        if self._open:
            raise ValueError(f"some clips of {next(iter(self._open))} have not been added")
        every = float(np.dot(self._everybody, self._everybody)) if self._tokens else 0.0
        between_sum, between_pairs = every - self._same_sum, self._tokens**2 - self._same_pairs
        same, different, sampled = self._pairs()
        auc = None
        if len(same) and len(different):
            truth = np.repeat([1, 0], [len(same), len(different)])
            auc = float(roc_auc_score(truth, np.concatenate([same, different])))
        consistency = list(self._consistency_of.values())
        return Identity(
            people=len(self._clips_of),
            people_of_several_clips=len(consistency),
            left_out=self._left_out,
            within_clip=_mean(self._clip_sum, self._clip_pairs),
            consistency=_mean(sum(consistency), len(consistency)),
            consistency_of_pairs=_mean(self._cross_sum, self._cross_pairs),
            consistency_of=dict(self._consistency_of),
            discriminability=1 - between_sum / between_pairs if between_pairs else None,
            auc=auc,
            same=same,
            different=different,
            sample_tokens=sampled,
        )

    def _close(self, person: str, sums: _Sums) -> None:
        self._everybody = self._everybody + sums.total
        self._tokens += sums.tokens
        squared = float(np.dot(sums.total, sums.total))
        self._same_sum += squared
        self._same_pairs += sums.tokens**2
        self._clip_sum += sums.clip_squares - sums.tokens
        self._clip_pairs += sums.clip_pairs - sums.tokens
        cross_sum, cross_pairs = squared - sums.clip_squares, sums.tokens**2 - sums.clip_pairs
        if cross_pairs:
            self._consistency_of[person] = cross_sum / cross_pairs
            self._cross_sum += cross_sum
            self._cross_pairs += cross_pairs

    def _pairs(self) -> tuple[np.ndarray, np.ndarray, int]:
        samples = [sample for sample in self._samples.values() if sample.units]
        if not samples:
            return np.empty(0, np.float32), np.empty(0, np.float32), 0
        units = np.array([unit for sample in samples for unit in sample.units], np.float32)
        clips = np.array([clip for sample in samples for clip in sample.clips])
        people = np.repeat(np.arange(len(samples)), [len(sample.units) for sample in samples])
        first, second = np.triu_indices(len(units), k=1)
        cosines = (units @ units.T)[first, second]
        one_person = people[first] == people[second]
        return cosines[one_person & (clips[first] != clips[second])], cosines[~one_person], len(units)


class _Sums:
    """Sums over the unit vectors of one person."""

    def __init__(self, dim: int) -> None:
        self.total = np.zeros(dim)
        self.tokens = self.clip_pairs = 0
        self.clip_squares = 0.0

    def add(self, units: np.ndarray) -> None:
        clip = units.sum(axis=0)
        self.total += clip
        self.tokens += len(units)
        self.clip_pairs += len(units) ** 2
        self.clip_squares += float(np.dot(clip, clip))


class _Sample:
    """A fixed number of tokens of one person, each equally likely to be among them (Vitter's algorithm R)."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size, self._rng, self._seen = size, rng, 0
        self.units: list[np.ndarray] = []
        self.clips: list[int] = []

    def add(self, clip: int, units: np.ndarray) -> None:
        for unit in units.astype(np.float32):
            if self._seen < self._size:
                self.units.append(unit)
                self.clips.append(clip)
            elif (at := int(self._rng.integers(self._seen + 1))) < self._size:
                self.units[at], self.clips[at] = unit, clip
            self._seen += 1


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None

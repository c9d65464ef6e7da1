"""Summary of the videos for the report: one pass that keeps only numbers and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from flows.archive.outcomes import NOT_EXTRACTED, NOT_SCORED
from fusion.traits import TRAITS
from storage.exports.columns import Row, Unscored
from storage.tables.failures import Failure
from storage.tables.scores import QUALITY_FACTS

EXAMPLES_PER_REASON = 5
MOST_VIDEOS = 200
EXTREMES_PER_TRAIT = 8
EXTREMES_OF_QUALITY = 40


@dataclass
class Refusals:
    """Videos without a score for one reason: their number, a few names, and the message of the first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)
    stage: str = ""
    message: str = ""


@dataclass(frozen=True, eq=False)
class Summary:
    """All videos of an archive under one model.

    Attributes:
        names: N video ids with a score.
        scores: float32 [N, 5].
        facts: name -> float32 [N], the quality facts; NaN if unknown.
        tokens: int32 [N, 2], face and motion tokens.
        widths: float32 [N, 5], of the intervals; None if a score has none.
        abstain: by video, codes with a space between.
        weights: number of scores by the weights of the feature networks.
        refusals: by reason.
        unscored: number of videos with features, but without a score.
        unextracted: number of videos that no run has processed.
    """

    names: list[str]
    scores: np.ndarray
    facts: dict[str, np.ndarray]
    tokens: np.ndarray
    widths: np.ndarray | None
    abstain: list[str]
    weights: Counter[str]
    refusals: dict[str, Refusals]
    unscored: int
    unextracted: int

    @property
    def coverage(self) -> np.ndarray:
        """Return the face coverage of each video, float32 [N]."""
        return self.facts["face_coverage"]

    @property
    def refused(self) -> int:
        """Return the number of rejected videos."""
        return sum(entry.count for entry in self.refusals.values())

    @property
    def videos(self) -> int:
        """Return the number of all videos."""
        return len(self.names) + self.refused + self.unscored + self.unextracted

    @property
    def flagged(self) -> int:
        """Return the number of scores that should not be used."""
        return sum(1 for reason in self.abstain if reason)

    def flags(self) -> Counter[str]:
        """Count the scores that each reason to abstain applies to; one score may have several."""
        return Counter(code for reason in self.abstain for code in reason.split())


def summarise(rows: Iterable[Row], failures: Sequence[Failure]) -> Summary:
    """Summarise all videos in one pass.

    Args:
        rows: as for the trait CSV.
        failures: of the same features, for the stage and a message of each reason.
    """
    names, abstain = [], []
    numbers: list[tuple[float, ...]] = []
    facts: list[tuple[float | None, ...]] = []
    widths: list[tuple[float, ...]] = []
    weights: Counter[str] = Counter()
    refusals: dict[str, Refusals] = {}
    for row in rows:
        if isinstance(row, Unscored):
            entry = refusals.setdefault(row.reason, Refusals())
            entry.count += 1
            if len(entry.examples) < EXAMPLES_PER_REASON:
                entry.examples.append(row.video_id)
            continue
        names.append(row.video_id)
        abstain.append(row.abstain)
        numbers.append((*row.traits, row.static_tokens, row.dynamic_tokens))
        facts.append(tuple(getattr(row, name) for name in QUALITY_FACTS))
        weights[row.weights] += 1
        if row.low is not None and row.high is not None:
            widths.append(tuple(high - low for low, high in zip(row.low, row.high, strict=True)))
    table = np.array(numbers, np.float32).reshape(-1, len(TRAITS) + 2)
    known = np.array(facts, np.float32).reshape(-1, len(QUALITY_FACTS))
    unscored, unextracted = (refusals.pop(reason, Refusals()).count for reason in (NOT_SCORED, NOT_EXTRACTED))
    _explain(refusals, failures)
    return Summary(
        names,
        table[:, : len(TRAITS)],
        dict(zip(QUALITY_FACTS, known.T, strict=True)),
        table[:, len(TRAITS) :].astype(np.int32),
        np.array(widths, np.float32) if widths and len(widths) == len(names) else None,
        abstain,
        weights,
        dict(sorted(refusals.items(), key=lambda item: (-item[1].count, item[0]))),
        unscored,
        unextracted,
    )


def noteworthy(summary: Summary) -> list[tuple[int, str]]:
    """Return at most `MOST_VIDEOS` rows with their reasons, in the order of the videos, of an archive with more."""
    why: dict[int, list[str]] = {}
    for row, reasons in extremes(summary, EXTREMES_PER_TRAIT):
        why.setdefault(row, []).extend(reasons)
    few = min(EXTREMES_OF_QUALITY, len(summary.names) // 10)
    for row in np.argsort(summary.coverage, kind="stable")[:few].tolist():
        if summary.coverage[row] < 1:
            why.setdefault(row, []).append("little of the face")
    for row in np.flatnonzero(summary.facts["people"] > 1)[:few].tolist():
        why.setdefault(row, []).append("several people")
    if summary.widths is not None:
        for row in np.argsort(-summary.widths.mean(axis=1), kind="stable")[:few].tolist():
            why.setdefault(row, []).append("wide interval")
    for row in (row for row, reason in enumerate(summary.abstain) if reason):
        if len(why) >= MOST_VIDEOS:
            break
        why.setdefault(row, []).append("flagged")
    return [(row, ", ".join(why[row])) for row in sorted(why)]


def extremes(summary: Summary, count: int) -> list[tuple[int, list[str]]]:
    """Return the videos with the highest and the lowest scores of each trait, each once, with the reasons."""
    why: dict[int, list[str]] = {}
    for trait, values in zip(TRAITS, summary.scores.T, strict=True):
        order = np.argsort(values, kind="stable").tolist()
        for row in order[::-1][:count]:
            why.setdefault(row, []).append(f"high {trait}")
        for row in order[:count]:
            why.setdefault(row, []).append(f"low {trait}")
    return list(why.items())


def _explain(refusals: dict[str, Refusals], failures: Sequence[Failure]) -> None:
    """Look up each reason's stage, and the message of its first example."""
    first = {(entry.examples[0], reason): entry for reason, entry in refusals.items()}
    for failure in failures:
        entry = first.get((failure.video_id, failure.reason))
        if entry is not None:
            entry.stage, entry.message = failure.stage, failure.message

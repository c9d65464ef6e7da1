"""All predictors on the same clips, in repeated trainings, with intervals and tests over people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusion.evaluation.folds import Fold, leakage
from fusion.evaluation.intervals import cell, finite, measure, person_means, share_interval
from fusion.evaluation.metrics import METRICS, with_mean
from fusion.evaluation.predictors import LabelledClips, Prediction, Predictor, timed_prediction
from fusion.evaluation.significance import gain, holm
from fusion.traits import TRAITS

COLUMNS = (*TRAITS, "mean")
EVERYBODY = ("all", "all")

Partition = Sequence[Fold]
"""Folds of which no two test the same clip; an official split is a partition of one fold."""
Predict = Callable[[Predictor, LabelledClips, Fold, int], Prediction]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A predictor's results on all M test clips of a protocol.

    Attributes:
        scores: float64 [R, M, 5], of R repetitions.
        covered: bool [R, M, 5], whether the interval contains the label; None without intervals.
        seconds: time for training and scoring, over all folds and repetitions.
        fitted_share: share of the training clips that weights were fitted to, mean over folds and repetitions.
    """

    predictor: Predictor
    scores: np.ndarray
    covered: np.ndarray | None
    seconds: float
    fitted_share: float


@dataclass(frozen=True, slots=True, eq=False)
class _Tested:
    """The M test clips of a protocol, and what their models learned from.

    Attributes:
        labels: float [M, 5].
        groups: name of a grouping -> the group of each, str [M].
        learned_mean: float64 [partitions, M, 5], the mean label of the training clips of each clip's fold.
        test_share: share of the people that a training is tested on; 0 for a single split.
    """

    labels: np.ndarray
    subjects: list[str]
    groups: dict[str, np.ndarray]
    learned_mean: np.ndarray
    test_share: float


def evaluate_protocols(
    clips: LabelledClips,
    protocols: Mapping[str, Sequence[Partition]],
    predictors: Sequence[Predictor],
    seeds: int,
    on_step: Callable[[str], None],
    predict: Predict = timed_prediction,
) -> dict[str, dict[str, Any]]:
    """Train and evaluate all predictors in every protocol.

    Args:
        protocols: name -> partitions that test the same clips: one for an official split, `seeds` for folds.
        seeds: number of trainings of each predictor that depends on its seed.
        on_step: called with the predictor's name after each of the `runs`.
        predict: performs one of the `runs`, or returns a remembered result; the result must be the same each time.

    Returns:
        JSON values by protocol, NaN as None: "folds", "partitions", "train_clips" (mean over folds) and "leakage";
        "predictors" with "name", "kind", "fitted_share", "seeds" (number of repetitions), "seconds" and "metrics"
        (metric -> trait or "mean" -> "value", "low", "high", and "by_seed" if there are several repetitions); "tests"
        of the model against each baseline, see `_tests`; "slices" by column and group with "clips", "subjects" and
        "metrics" by predictor;
        and "coverage" of the model's intervals, overall and by group.
    """
    found = {}
    for name, partitions in protocols.items():
        outcomes = [_outcome(clips, partitions, predictor, seeds, on_step, predict) for predictor in predictors]
        tested = _tested(clips, partitions)
        folds = [fold for partition in partitions for fold in partition]
        found[name] = {
            "folds": len(partitions[0]),
            "partitions": len(partitions),
            "train_clips": round(float(np.mean([len(fold.train) for fold in folds]))),
            "leakage": _total_leakage(partitions[0], clips.subjects),
            "predictors": [_described(outcome, tested) for outcome in outcomes],
            "tests": _tests(outcomes, tested),
            "slices": _slices(outcomes, tested),
            "coverage": _coverage(outcomes, tested),
        }
    _correct(found)
    return found


def runs(
    partitions: Sequence[Partition], predictors: Sequence[Predictor], seeds: int
) -> Iterator[tuple[Predictor, Fold, int]]:
    """Yield the trainings that `evaluate_protocols` performs in a protocol: predictor, fold and seed."""
    for predictor in predictors:
        for seed, partition in _repetitions(partitions, predictor, seeds):
            yield from ((predictor, fold, seed) for fold in partition)


def _repetitions(partitions: Sequence[Partition], predictor: Predictor, seeds: int) -> Iterator[tuple[int, Partition]]:
    """Yield seeds and partitions: the same partition for all predictors, so that they can be compared."""
    for seed in range(max(len(partitions), seeds if predictor.seeded else 1)):
        yield seed, partitions[seed % len(partitions)]


def _tested(clips: LabelledClips, partitions: Sequence[Partition]) -> _Tested:
    rows = np.sort(np.concatenate([fold.test for fold in partitions[0]]))
    learned_mean = np.empty((len(partitions), len(rows), len(TRAITS)))
    for number, partition in enumerate(partitions):
        for fold in partition:
            learned_mean[number, np.searchsorted(rows, fold.test)] = clips.labels[fold.train].mean(axis=0)
    count = len(partitions[0])
    groups = {name: values[rows] for name, values in clips.groups.items()}
    return _Tested(clips.labels[rows], clips.subjects_of(rows), groups, learned_mean, 1 / count if count > 1 else 0.0)


def _outcome(
    clips: LabelledClips,
    partitions: Sequence[Partition],
    predictor: Predictor,
    seeds: int,
    on_step: Callable[[str], None],
    predict: Predict,
) -> Outcome:
    scores, covered, fitted, seconds = [], [], [], 0.0
    for seed, partition in _repetitions(partitions, predictor, seeds):
        predictions = []
        for fold in partition:
            predictions.append(predict(predictor, clips, fold, seed))
            on_step(predictor.name)
        seconds += sum(prediction.seconds for prediction in predictions)
        fitted += [prediction.fitted_share for prediction in predictions]
        order = np.argsort(np.concatenate([fold.test for fold in partition]))
        scores.append(np.concatenate([prediction.scores for prediction in predictions])[order])
        if all(prediction.low is not None for prediction in predictions):
            labels = [clips.labels[fold.test] for fold in partition]
            inside = [(p.low <= own) & (own <= p.high) for p, own in zip(predictions, labels, strict=True)]
            covered.append(np.concatenate(inside)[order])
    whole = np.stack(covered) if len(covered) == len(scores) else None
    return Outcome(predictor, np.stack(scores).astype(np.float64), whole, seconds, float(np.mean(fitted)))


def _total_leakage(folds: Sequence[Fold], subjects: Sequence[str]) -> dict[str, Any]:
    """Sum the leakage of all folds."""
    found = [leakage(fold, subjects) for fold in folds]
    total = {name: sum(one[name] for one in found) for name in found[0]}
    total["share_of_known_subjects"] = total["test_clips_of_known_subjects"] / total["test_clips"]
    return total


def _described(outcome: Outcome, tested: _Tested) -> dict[str, Any]:
    predictor = outcome.predictor
    return {
        "name": predictor.name,
        "kind": predictor.kind,
        "fitted_share": round(outcome.fitted_share, 3),
        "seeds": len(outcome.scores),
        "seconds": round(outcome.seconds, 3),
        "metrics": _metrics(outcome.scores, tested, np.arange(len(tested.labels))),
    }


def _metrics(scores: np.ndarray, tested: _Tested, rows: np.ndarray) -> dict[str, dict[str, Any]]:
    """Measure scores [R, M, 5] of all test clips on some of them."""
    learned_mean = np.resize(tested.learned_mean, scores.shape)  # an official split has one partition, but many seeds
    people = [tested.subjects[row] for row in rows]
    measured = measure(
        scores[:, rows], tested.labels[rows], people, learned_mean[:, rows], test_share=tested.test_share
    )
    low, high = measured.interval
    table: dict[str, dict[str, Any]] = {}
    for row, metric in enumerate(METRICS):
        table[metric] = {}
        for column, name in enumerate(COLUMNS):
            at = (row, column)
            found: dict[str, Any] = cell(measured.value[at], low[at], high[at])
            if len(scores) > 1:
                found["by_seed"] = [finite(value) for value in measured.by_seed[:, row, column]]
            table[metric][name] = found
    return table


def _tests(outcomes: Sequence[Outcome], tested: _Tested) -> list[dict[str, Any]]:
    """Compare the model with each baseline.

    Returns:
        "baseline", "trait", and the gain with its interval and one-sided p, see `fusion.evaluation.significance.Gain`;
        "copy_of": the name of an earlier baseline with the same scores, or None.
    """
    model = next((outcome for outcome in outcomes if outcome.predictor.kind == "model"), None)
    baselines = [outcome for outcome in outcomes if outcome.predictor.kind == "baseline"]
    if model is None:
        return []
    tests = []
    for number, other in enumerate(baselines):
        earlier = [one for one in baselines[:number] if one.scores.shape == other.scores.shape]
        same = (one.predictor.name for one in earlier if np.allclose(one.scores, other.scores, rtol=0, atol=1e-9))
        copy_of = next(same, None)
        found = gain(model.scores, other.scores, tested.labels, tested.subjects, test_share=tested.test_share)
        tests += [
            {
                "baseline": other.predictor.name,
                "copy_of": copy_of,
                "trait": name,
                **cell(found.value[column], found.low[column], found.high[column]),
                "p": float(found.p[column]),
                "people_better": float(found.people_better[column]),
            }
            for column, name in enumerate(COLUMNS)
        ]
    return tests


def _correct(protocols: Mapping[str, dict[str, Any]]) -> None:
    """Add "p_holm" to the tests of all protocols; a copy of a baseline is not a further test and has its figure.

    The means over traits are one family, with a test for each protocol and baseline; all traits are a second one.
    """
    tests = [(name, test) for name, protocol in protocols.items() for test in protocol["tests"]]
    for family in (COLUMNS[:-1], COLUMNS[-1:]):
        some = [(name, test) for name, test in tests if test["trait"] in family]
        p_values = {(name, test["baseline"], test["trait"]): test["p"] for name, test in some if not test["copy_of"]}
        adjusted = dict(zip(p_values, holm(np.array(list(p_values.values()))).tolist(), strict=True))
        for name, test in some:
            test["p_holm"] = adjusted[name, test["copy_of"] or test["baseline"], test["trait"]]


def _slices(outcomes: Sequence[Outcome], tested: _Tested) -> list[dict[str, Any]]:
    """Measure every predictor in every group."""
    return [
        {
            "column": column,
            "group": group,
            "clips": len(rows),
            "subjects": len({tested.subjects[row] for row in rows}),
            "metrics": {outcome.predictor.name: _metrics(outcome.scores, tested, rows) for outcome in outcomes},
        }
        for (column, group), rows in _group_rows(tested.groups).items()
    ]


def _coverage(outcomes: Sequence[Outcome], tested: _Tested) -> list[dict[str, Any]]:
    """Return the share of labels inside the model's intervals, overall and by group; every person counts once."""
    model = next((outcome for outcome in outcomes if outcome.predictor.kind == "model"), None)
    if model is None or model.covered is None:
        return []
    hits = model.covered.mean(axis=0)
    found = []
    for (column, group), rows in {EVERYBODY: np.arange(len(hits)), **_group_rows(tested.groups)}.items():
        of_people = person_means(hits[rows], [tested.subjects[row] for row in rows])
        value = with_mean(of_people.mean(axis=0))
        low, high = share_interval(value, len(of_people))
        cells = {name: cell(value[at], low[at], high[at]) for at, name in enumerate(COLUMNS)}
        found.append(
            {"column": column, "group": group, "clips": len(rows), "subjects": len(of_people), "traits": cells}
        )
    return found


def _group_rows(groups: dict[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    return {
        (column, str(group)): np.flatnonzero(values == group)
        for column, values in groups.items()
        for group in np.unique(values)
    }

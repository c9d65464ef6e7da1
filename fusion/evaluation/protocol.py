"""All predictors on one protocol, measured on the same clips with the same draws of subjects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusion.evaluation.bootstrap import SubjectDraws, percentile_interval
from fusion.evaluation.folds import Fold, leakage
from fusion.evaluation.metrics import METRICS, with_mean
from fusion.evaluation.predictors import LabelledClips, Prediction, Predictor, timed_prediction
from fusion.evaluation.significance import holm, paired_p_values
from fusion.settings import EvaluateSettings
from fusion.traits import TRAITS

COLUMNS = (*TRAITS, "mean")
EVERYBODY = ("all", "all")


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A predictor's results on all M test clips of a protocol.

    Attributes:
        predictor: the predictor.
        scores: float64 [seeds, M, 5].
        covered: bool [seeds, M, 5], whether the interval contains the label; None without intervals.
        seconds: time for training and scoring, over all folds and seeds.
    """

    predictor: Predictor
    scores: np.ndarray
    covered: np.ndarray | None
    seconds: float


def evaluate_protocol(
    clips: LabelledClips,
    folds: Sequence[Fold],
    predictors: Sequence[Predictor],
    settings: EvaluateSettings,
    on_step: Callable[[str], None],
    predict: Callable[[Predictor, LabelledClips, Fold, int], Prediction] = timed_prediction,
) -> dict[str, Any]:
    """Train and evaluate all predictors on the folds of one protocol.

    Args:
        clips: labelled clips.
        folds: one for an official split, several for folds; no clip is a test clip of two folds.
        predictors: to evaluate.
        settings: number of seeds and draws.
        on_step: called with the predictor's name after each of the `runs`.
        predict: performs one of the `runs`, or returns a remembered result; the result must be the same each time.

    Returns:
        JSON values, NaN as None: "folds", "train_clips" (mean over folds) and "leakage"; "predictors" with "name",
        "kind", "seeds", "seconds" and "metrics" (metric -> trait or "mean" -> "value", "low", "high", and "by_seed" if
        there are several seeds); "tests" of the model against each baseline; "slices" by column and group with "clips",
        "subjects" and "metrics" by predictor; and "coverage" of the model's intervals, overall and by group.
    """
    outcomes = [_outcome(clips, folds, predictor, settings.seeds, on_step, predict) for predictor in predictors]
    rows = np.concatenate([fold.test for fold in folds])
    fold_of_row = np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds])
    labels, subjects = clips.labels[rows], clips.subjects_of(rows)
    draws = SubjectDraws(subjects, fold_of_row, draws=settings.draws)
    groups = {name: values[rows] for name, values in clips.groups.items()}
    return {
        "folds": len(folds),
        "train_clips": round(float(np.mean([len(fold.train) for fold in folds]))),
        "leakage": _total_leakage(folds, clips.subjects),
        "predictors": [_described(outcome, draws, labels) for outcome in outcomes],
        "tests": _tests(outcomes, draws, labels, subjects),
        "slices": _slices(outcomes, labels, subjects, groups, settings.draws),
        "coverage": _coverage(outcomes, subjects, groups, settings.draws),
    }


def runs(
    folds: Sequence[Fold], predictors: Sequence[Predictor], settings: EvaluateSettings
) -> Iterator[tuple[Predictor, Fold, int]]:
    """Yield the trainings that `evaluate_protocol` performs: predictor, fold and seed."""
    for predictor in predictors:
        for seed in _seeds(predictor, settings.seeds):
            yield from ((predictor, fold, seed) for fold in folds)


def _seeds(predictor: Predictor, seeds: int) -> range:
    return range(seeds if predictor.seeded else 1)


def _outcome(
    clips: LabelledClips,
    folds: Sequence[Fold],
    predictor: Predictor,
    seeds: int,
    on_step: Callable[[str], None],
    predict: Callable[[Predictor, LabelledClips, Fold, int], Prediction],
) -> Outcome:
    scores, covered, seconds = [], [], 0.0
    for seed in _seeds(predictor, seeds):
        predictions = []
        for fold in folds:
            predictions.append(predict(predictor, clips, fold, seed))
            on_step(predictor.name)
        seconds += sum(prediction.seconds for prediction in predictions)
        scores.append(np.concatenate([prediction.scores for prediction in predictions]))
        if all(prediction.low is not None for prediction in predictions):
            labels = [clips.labels[fold.test] for fold in folds]
            inside = [(p.low <= own) & (own <= p.high) for p, own in zip(predictions, labels, strict=True)]
            covered.append(np.concatenate(inside))
    whole = np.stack(covered) if len(covered) == len(scores) else None
    return Outcome(predictor, np.stack(scores).astype(np.float64), whole, seconds)


def _total_leakage(folds: Sequence[Fold], subjects: Sequence[str]) -> dict[str, Any]:
    """Sum the leakage of all folds."""
    found = [leakage(fold, subjects) for fold in folds]
    total = {name: sum(one[name] for one in found) for name in found[0]}
    total["share_of_known_subjects"] = total["test_clips_of_known_subjects"] / total["test_clips"]
    return total


def _described(outcome: Outcome, draws: SubjectDraws, labels: np.ndarray) -> dict[str, Any]:
    predictor = outcome.predictor
    return {
        "name": predictor.name,
        "kind": predictor.kind,
        "seeds": len(outcome.scores),
        "seconds": round(outcome.seconds, 3),
        "metrics": _metrics(outcome, draws, labels),
    }


def _metrics(outcome: Outcome, draws: SubjectDraws, labels: np.ndarray) -> dict[str, dict[str, Any]]:
    measured = draws.measure(outcome.scores, labels)
    low, high = measured.interval()
    table: dict[str, dict[str, Any]] = {}
    for row, metric in enumerate(METRICS):
        table[metric] = {}
        for column, name in enumerate(COLUMNS):
            at = (row, column)
            cell = _cell(measured.value[at], low[at], high[at])
            if len(outcome.scores) > 1:
                cell["by_seed"] = [_number(value) for value in measured.by_seed[:, row, column]]
            table[metric][name] = cell
    return table


def _tests(
    outcomes: Sequence[Outcome], draws: SubjectDraws, labels: np.ndarray, subjects: Sequence[str]
) -> list[dict[str, Any]]:
    """Compare the model with each baseline: gain in 1 - MAE, its interval, and p adjusted over baselines by Holm."""
    model = next((outcome for outcome in outcomes if outcome.predictor.kind == "model"), None)
    baselines = [outcome for outcome in outcomes if outcome.predictor.kind == "baseline"]
    if model is None or not baselines:
        return []
    p_values = np.stack([paired_p_values(model.scores, other.scores, labels, subjects) for other in baselines])
    # the mean over traits is one question per baseline; by trait, all baselines and traits form one family
    corrected = np.column_stack([holm(p_values[:, :-1].ravel()).reshape(-1, len(TRAITS)), holm(p_values[:, -1])])
    own = draws.measure(model.scores, labels)
    tests = []
    for number, other in enumerate(baselines):
        theirs = draws.measure(other.scores, labels)
        gain, (low, high) = own.value[0] - theirs.value[0], percentile_interval(own.draws[:, 0] - theirs.draws[:, 0])
        tests += [
            {
                "baseline": other.predictor.name,
                "trait": name,
                **_cell(gain[column], low[column], high[column]),
                "p": _number(p_values[number, column]),
                "p_holm": _number(corrected[number, column]),
            }
            for column, name in enumerate(COLUMNS)
        ]
    return tests


def _slices(
    outcomes: Sequence[Outcome],
    labels: np.ndarray,
    subjects: Sequence[str],
    groups: dict[str, np.ndarray],
    draws: int,
) -> list[dict[str, Any]]:
    """Measure every predictor in every group, over all folds together because a fold's share may be very small."""
    slices = []
    for (column, group), rows in _group_rows(groups).items():
        people = [subjects[row] for row in rows]
        drawn = SubjectDraws(people, draws=draws)
        slices.append(
            {
                "column": column,
                "group": group,
                "clips": len(rows),
                "subjects": len(set(people)),
                "metrics": {
                    outcome.predictor.name: _metrics(
                        Outcome(outcome.predictor, outcome.scores[:, rows], None, 0.0), drawn, labels[rows]
                    )
                    for outcome in outcomes
                },
            }
        )
    return slices


def _coverage(
    outcomes: Sequence[Outcome], subjects: Sequence[str], groups: dict[str, np.ndarray], draws: int
) -> list[dict[str, Any]]:
    """Return the share of labels inside the model's intervals, overall and by group; every person counts once."""
    model = next((outcome for outcome in outcomes if outcome.predictor.kind == "model"), None)
    if model is None or model.covered is None:
        return []
    hits = model.covered.mean(axis=0)
    found = []
    for (column, group), rows in {EVERYBODY: np.arange(len(subjects)), **_group_rows(groups)}.items():
        people = [subjects[row] for row in rows]
        value, drawn = SubjectDraws(people, draws=draws).mean_over_people(hits[rows])
        value, (low, high) = with_mean(value), percentile_interval(with_mean(drawn))
        cells = {name: _cell(value[at], low[at], high[at]) for at, name in enumerate(COLUMNS)}
        found.append(
            {"column": column, "group": group, "clips": len(rows), "subjects": len(set(people)), "traits": cells}
        )
    return found


def _group_rows(groups: dict[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    return {
        (column, str(group)): np.flatnonzero(values == group)
        for column, values in groups.items()
        for group in np.unique(values)
    }


def _cell(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": _number(value), "low": _number(low), "high": _number(high)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

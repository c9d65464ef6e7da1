"""What is said of a model on unseen people: its measures, and whether it beats the mean."""

from __future__ import annotations

import json

import numpy as np
import pytest
from drawn_regressions import Regressions
from sklearn.metrics import mean_absolute_error, r2_score

from fusion.evaluation.metrics import METRICS
from fusion.evaluation.unseen import LEAST_PEOPLE, measure_unseen
from fusion.traits import TRAITS


def people(count: int, clips_each: int = 3) -> list[str]:
    return [f"p{clip // clips_each}" for clip in range(count * clips_each)]


def test_measures_are_those_of_scikit_learn_and_lie_in_their_intervals():
    rng = np.random.default_rng(0)
    labels = rng.normal(0.5, 0.15, (150, 5))
    scores = 0.25 + 0.5 * labels + 0.05 * rng.normal(size=labels.shape)
    found = measure_unseen(scores, labels, people(50), mean=np.full_like(labels, 0.5))
    assert (found["clips"], found["people"], found["better_than_mean"]) == (150, 50, True)
    assert [found["r2"][trait]["value"] for trait in TRAITS] == pytest.approx(
        r2_score(labels, scores, multioutput="raw_values")
    )
    assert found["one_minus_mae"]["mean"]["value"] == pytest.approx(1 - mean_absolute_error(labels, scores))
    for name in ("one_minus_mae", "r2", "ccc", "gain"):
        cell = found[name] if name == "gain" else found[name]["mean"]
        assert cell["low"] < cell["value"] < cell["high"]
    assert json.loads(json.dumps(found)) == found


def test_a_useless_model_is_rarely_called_better_than_the_mean():
    """A person's clips share most of their label, so clips are not the unit."""
    rng = np.random.default_rng(0)
    names, better = people(30), []
    for _ in range(150):
        labels = 0.5 + 0.1 * rng.normal(size=(30, 5)).repeat(3, axis=0) + 0.05 * rng.normal(size=(90, 5))
        # noise about the mean: that its error is not below the mean's is then a matter of chance
        scores = 0.5 + 0.005 * rng.normal(size=(30, 5)).repeat(3, axis=0)
        better.append(measure_unseen(scores, labels, names, mean=np.full_like(labels, 0.5))["better_than_mean"])
    print(f"\nuseless models called better than the mean: {np.mean(better):.1%}")
    assert np.mean(better) < 0.09


@pytest.mark.parametrize("people", [8, 15, 30, 100])
def test_intervals_of_scores_out_of_fold_hold_the_quality_on_the_population(people):
    """With 8 people, 71% of 90% intervals held the gain when folds counted as independent."""
    truths, cells = [], []
    for signal in (1e-9, 0.3):
        drawn = Regressions(people, 500, signal)
        found = drawn.out_of_fold()
        mse_of_mean = 1 + np.mean([np.square(found.learned_mean[found.folds == fold][0]) for fold in range(5)], axis=0)
        gain = 1 - (1 - found.truth[METRICS.index("r2")]) / mse_of_mean
        for some in np.split(np.arange(500), 100):
            columns = (found.scores[:, some], drawn.labels[:, some])
            unseen = measure_unseen(*columns, drawn.subjects, mean=found.learned_mean[:, some], folds=found.folds)
            cells.append([unseen[name]["mean"] for name in ("r2", "ccc")] + [unseen["gain"]])
            truths.append(
                [*(found.truth[METRICS.index(name), some].mean() for name in ("r2", "ccc")), gain[some].mean()]
            )
            assert signal > 0.1 or unseen["better_than_mean"] is not True
    held = [
        [cell["low"] <= truth <= cell["high"] for cell, truth in zip(row, known, strict=True)]
        for row, known in zip(cells, truths, strict=True)
    ]
    r2, ccc, gain = np.mean(held, axis=0)
    print(f"\n{people} people: R2 {r2:.1%}, CCC {ccc:.1%} of 95% intervals, gain {gain:.1%} of 90% intervals")
    assert min(r2, ccc) > 0.91
    assert gain > 0.86


def test_few_people_leave_it_open_unless_they_are_clear():
    rng = np.random.default_rng(0)
    names = people(LEAST_PEOPLE - 1)
    labels = rng.normal(0.5, 0.15, (len(names), 5))
    mean = np.full_like(labels, 0.5)
    assert measure_unseen(mean, labels, names, mean=mean)["better_than_mean"] is None
    assert measure_unseen(labels, labels, names, mean=mean)["better_than_mean"] is True


def test_labels_without_variance_have_no_r2_and_no_gain():
    labels = np.full((90, 5), 0.5)
    found = measure_unseen(labels + 0.1, labels, people(30), mean=labels)
    assert found["r2"]["mean"] == {"value": None, "low": None, "high": None}
    assert found["better_than_mean"] is False

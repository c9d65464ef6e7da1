"""What is said of a model on unseen people: its measures, and whether it beats the mean."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score

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


def test_few_people_leave_it_open_unless_they_are_clear():
    rng = np.random.default_rng(0)
    names = people(LEAST_PEOPLE - 1)
    labels = rng.normal(0.5, 0.15, (len(names), 5))
    mean = np.full_like(labels, 0.5)
    assert measure_unseen(mean, labels, names, mean=mean)["better_than_mean"] is None
    assert measure_unseen(labels, labels, names, mean=mean)["better_than_mean"] is True


def test_labels_without_variance_have_no_r2_and_no_gain():
    labels = np.full((60, 5), 0.5)
    found = measure_unseen(labels + 0.1, labels, people(20), mean=labels)
    assert found["r2"]["mean"] == {"value": None, "low": None, "high": None}
    assert found["better_than_mean"] is False

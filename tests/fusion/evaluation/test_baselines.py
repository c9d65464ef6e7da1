"""Baselines: the figures measured independently on the genuine labels, and truths planted in drawn data."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.preprocessing import StandardScaler

from fusion.evaluation import baselines
from fusion.evaluation.baselines import kernel_ridge, look_up_subject, mlp, pca_ridge, ridge
from fusion.evaluation.folds import leakage, official_split, subject_folds
from fusion.evaluation.predictors import LabelledClips, all_predictors, chosen_predictors
from fusion.evaluation.protocol import COLUMNS, evaluate_protocols
from fusion.labels.read import read_labels
from fusion.settings import TrainSettings, UncertaintySettings


@pytest.fixture(scope="module")
def genuine(corpus) -> LabelledClips:
    labels = read_labels(corpus / "labels")
    return LabelledClips(labels.values, labels.subjects, labels.parts, {})


@pytest.fixture(scope="module")
def genuine_results(genuine):
    known = all_predictors(TrainSettings(), UncertaintySettings())
    predictors = chosen_predictors(known, (), with_tokens=False)
    folds = [subject_folds(genuine.subjects, 5, seed) for seed in range(5)]
    protocols = {"official": [[official_split(genuine.parts)]], "folds": folds}
    return evaluate_protocols(genuine, protocols, predictors, 5, lambda name: None)


def values(results, name, metric):
    (found,) = [predictor for predictor in results["predictors"] if predictor["name"] == name]
    return [found["metrics"][metric][column]["value"] for column in COLUMNS]


def test_label_baselines_reach_the_figures_measured_independently_on_first_impressions(genuine_results):
    official = genuine_results["official"]
    assert official["train_clips"] == 6000
    mean = values(official, "mean", "one_minus_mae")
    assert mean == pytest.approx([0.8847, 0.8739, 0.8806, 0.8990, 0.8790, 0.8834], abs=5e-5)
    for name, accuracy, concordance in (("subject_lookup", 0.9050, 0.595), ("subject_lookup_shrunk", 0.9094, 0.522)):
        assert values(official, name, "one_minus_mae")[-1] == pytest.approx(accuracy, abs=5e-5)
        assert values(official, name, "ccc")[-1] == pytest.approx(concordance, abs=5e-4)


def test_what_the_look_up_gains_on_the_official_split_is_leakage_and_gone_on_unseen_people(genuine_results):
    leaks = genuine_results["official"]["leakage"]
    assert leaks == {
        "test_subjects": 1484,
        "subjects_in_both": 1222,
        "test_clips": 2000,
        "test_clips_of_known_subjects": 1674,
        "share_of_known_subjects": 0.837,
    }
    folds = genuine_results["folds"]
    assert folds["leakage"]["subjects_in_both"] == 0
    assert folds["leakage"]["test_clips"] == 8000
    for name in ("subject_lookup", "subject_lookup_shrunk"):
        assert values(folds, name, "one_minus_mae") == values(folds, "mean", "one_minus_mae")
        assert values(folds, name, "ccc")[-1] == 0


def test_intervals_on_the_genuine_labels_are_about_half_a_percent_wide(genuine_results):
    for predictor in genuine_results["official"]["predictors"]:
        cell = predictor["metrics"]["one_minus_mae"]["mean"]
        assert cell["low"] < cell["value"] < cell["high"]
        assert 0.002 < cell["high"] - cell["low"] < 0.010


def test_the_look_up_worked_out_by_hand():
    labels = np.array([[0.2], [0.4], [0.9]])
    raw = look_up_subject(labels, ["a", "a", "b"], ["b", "a", "c"], shrinkage=0)
    assert raw[:, 0] == pytest.approx([0.9, 0.3, 0.5])
    shrunk = look_up_subject(labels, ["a", "a", "b"], ["b", "a", "c"], shrinkage=1)
    assert shrunk[:, 0] == pytest.approx([(0.9 + 0.5) / 2, (0.2 + 0.4 + 0.5) / 3, 0.5])


def regression(rule, *, noise_labels=False):
    """400 clips of 200 people with 30 features far from standardised, and 200 clips of others."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 30)).astype(np.float32)
    labels = np.tile(0.5 + 0.1 * rule(features)[:, None], (1, 5)) + rng.normal(0, 0.02, (600, 5))
    if noise_labels:
        labels = rng.normal(0.5, 0.1, (600, 5))
    scaled = features * np.geomspace(1e-3, 1e3, 30, dtype=np.float32) + 7
    return scaled[:400], labels[:400], [f"p{clip // 2}" for clip in range(400)], scaled[400:], labels[400:]


def test_ridge_finds_a_linear_rule_whatever_the_scale_of_the_features():
    known, labels, people, asked, truth = regression(lambda x: x[:, 0] - x[:, 29])
    for fit in (ridge, pca_ridge):
        assert r2_score(truth, fit(known, labels, people, asked, 0)) > 0.95


def test_mlp_finds_a_bent_rule_that_ridge_cannot_and_the_same_with_the_same_seed(monkeypatch):
    known, labels, people, asked, truth = regression(lambda x: np.abs(x[:, 0]) - 0.8)
    known, asked = known[:, :3], asked[:, :3]
    monkeypatch.setattr(baselines, "MLP_EPOCHS", 15)
    found = mlp(known, labels, people, asked, 0)
    assert r2_score(truth, found) > 0.5
    assert r2_score(truth, ridge(known, labels, people, asked, 0)) < 0.1
    assert r2_score(truth, kernel_ridge(known, labels, people, asked, 0)) > 0.5
    monkeypatch.setattr(baselines, "MLP_EPOCHS", 2)
    some = slice(0, 40)
    once, again, other = (mlp(known[some], labels[some], people[some], asked, seed) for seed in (0, 0, 1))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_no_regression_explains_pure_noise(monkeypatch):
    monkeypatch.setattr(baselines, "MLP_EPOCHS", 15)
    known, labels, people, asked, truth = regression(lambda x: x[:, 0], noise_labels=True)
    for fit in (ridge, pca_ridge, kernel_ridge, mlp):
        assert r2_score(truth, fit(known, labels, people, asked, 0)) < 0.02


def test_the_penalty_is_what_the_search_over_refits_without_each_person_finds():
    """scikit-learn refits for every penalty and person; the closed form has one decomposition."""
    rng = np.random.default_rng(0)
    for clips, dim in ((60, 12), (40, 70)):
        features = rng.normal(size=(clips, dim)) @ rng.normal(size=(dim, dim))
        people = rng.integers(0, 9, clips).astype(str)
        strength = np.array([0.1, 0.5, 3.0])
        labels = features[:, :3] / features[:, :3].std(axis=0) * strength + rng.normal(size=(clips, 3))
        scaled = StandardScaler().fit_transform(features)
        values = np.square(np.linalg.svd(scaled, compute_uv=False))
        unit = values[values > 1e-6 * values.max()].mean()
        asked = rng.normal(size=(5, dim))
        found = ridge(features, labels, list(people), asked, 0)
        for trait in range(3):
            search = GridSearchCV(
                Ridge(),
                {"alpha": baselines.RIDGE_PENALTIES * unit},
                scoring=make_scorer(lambda truth, score: -np.square(truth - score).sum()),
                cv=LeaveOneGroupOut(),
            )
            search.fit(scaled, labels[:, trait], groups=people)
            expected = search.predict((asked - features.mean(axis=0)) / features.std(axis=0))
            assert found[:, trait] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_penalties_are_chosen_for_people_who_are_not_known_from_other_clips():
    """Features that tell people apart explain all of a known person's label, and nothing of others."""
    rng = np.random.default_rng(0)
    face, label = rng.normal(size=(40, 60)), rng.normal(0.5, 0.1, (40, 1))
    person = np.repeat(np.arange(40), 5)
    features, labels = face[person] + 0.01 * rng.normal(size=(200, 60)), np.tile(label[person], 5)
    scores = ridge(features, labels, person.astype(str).tolist(), rng.normal(size=(500, 60)), 0)
    assert scores.std() < 0.5 * labels.std()
    by_clips = ridge(features, labels, np.arange(200).astype(str).tolist(), rng.normal(size=(500, 60)), 0)
    assert by_clips.std() > 1.5 * scores.std()


@pytest.mark.parametrize("fit", [ridge, pca_ridge, kernel_ridge])
def test_a_single_clip_and_constant_features_give_the_mean(fit):
    asked = np.zeros((2, 4), np.float32)
    assert fit(np.ones((1, 4), np.float32), np.full((1, 5), 0.3), ["p"], asked, 0) == pytest.approx(0.3)
    labels = np.array([[0.2] * 5, [0.4] * 5, [0.9] * 5])
    assert fit(np.ones((3, 4), np.float32), labels, ["a", "a", "b"], asked + 1, 0) == pytest.approx(0.5)


def test_ridge_with_one_person_in_training_still_answers():
    known, labels, _, asked, truth = regression(lambda x: x[:, 0])
    assert r2_score(truth, ridge(known, labels, ["p"] * 400, asked, 0)) > 0.9


def test_folds_judge_every_clip_once_and_never_a_known_person():
    subjects = [f"p{clip % 37}" for clip in range(200)]
    folds = subject_folds(subjects, 5)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(200))
    for fold in folds:
        assert leakage(fold, subjects)["subjects_in_both"] == 0
        assert len(fold.train) + len(fold.test) == 200
    assert len(subject_folds(["a", "a", "b", "c"], 5)) == 3


def test_the_official_split_judges_on_the_test_part_where_there_is_one():
    fold = official_split(["training", "validation", "test", "training", None])
    assert (list(fold.train), list(fold.test)) == ([0, 3], [2])
    fold = official_split(["training", "validation"])
    assert (list(fold.train), list(fold.test)) == ([0], [1])
    assert official_split(["training", None]) is None
    assert official_split([None, "test"]) is None

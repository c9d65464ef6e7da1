"""Measures against scikit-learn, SciPy and arithmetic by hand; intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from measures import metrics
from scipy.stats import pearsonr, t
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from fusion.evaluation.intervals import measure
from fusion.evaluation.metrics import METRICS, with_mean
from fusion.evaluation.significance import gain, holm


def drawn(count=400, *, seed=0, skill=0.7):
    rng = np.random.default_rng(seed)
    labels = rng.uniform(0.1, 0.9, (count, 5))
    scores = 0.1 + skill * labels + rng.normal(0, 0.1, (count, 5))
    return scores.astype(np.float32), labels.astype(np.float32)


def test_every_measure_agrees_with_an_independent_implementation():
    scores, labels = drawn()
    found = dict(zip(METRICS, metrics(scores, labels), strict=True))
    raw = {"multioutput": "raw_values"}
    assert found["one_minus_mae"] == pytest.approx(1 - mean_absolute_error(labels, scores, **raw), abs=1e-6)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(labels, scores, **raw), abs=1e-6)
    assert found["r2"] == pytest.approx(r2_score(labels, scores, **raw), abs=1e-5)
    by_scipy = np.array([pearsonr(scores[:, trait], labels[:, trait]).statistic for trait in range(5)])
    assert found["pearson"] == pytest.approx(by_scipy, abs=1e-6)
    assert found["sd_ratio"] == pytest.approx(scores.std(axis=0) / labels.std(axis=0), abs=1e-5)
    # Lin's concordance as correlation times bias correction, from scale shift and location shift
    scale = scores.std(axis=0) / labels.std(axis=0)
    location = (scores.mean(axis=0) - labels.mean(axis=0)) / np.sqrt(scores.std(axis=0) * labels.std(axis=0))
    assert found["ccc"] == pytest.approx(by_scipy * 2 / (scale + 1 / scale + location**2), abs=1e-5)


def test_concordance_worked_out_by_hand():
    # means 2.5 and 3, variances 1.25 and 3.5, covariance (3 + 0.5 + 0 + 4.5) / 4 = 2: 4 / (1.25 + 3.5 + 0.5^2) = 0.8
    found = metrics(np.array([[1.0], [2], [3], [4]]), np.array([[1.0], [2], [3], [6]]))
    assert found[METRICS.index("ccc"), 0] == pytest.approx(0.8)


def test_constant_scores_have_no_correlation_and_no_concordance():
    labels = drawn()[1]
    constant = np.full_like(labels, labels.mean())
    found = dict(zip(METRICS, metrics(constant, labels), strict=True))
    assert np.isnan(found["pearson"]).all()
    assert (found["ccc"] == 0).all()
    assert (found["sd_ratio"] == 0).all()


def test_the_interval_is_the_jackknife_of_the_measures_without_each_person():
    scores, labels = drawn(60)
    person = np.arange(60) % 20
    measured = measure(scores[None], labels, [f"person {number}" for number in person])
    without = np.stack([metrics(scores[person != one], labels[person != one]) for one in range(20)])
    assert measured.value == pytest.approx(with_mean(metrics(scores, labels)))
    log_rest = lambda value: np.log(1 - value)  # noqa: E731
    scales = (log_rest, np.log, log_rest, np.arctanh, np.arctanh, np.log)
    for row, scale in enumerate(scales):
        values = scale(without[:, row])
        error = np.sqrt(19 / 20 * np.sum(np.square(values - values.mean(axis=0)), axis=0))
        width = np.abs(np.diff(scale(measured.interval[:, row, :5]), axis=0)[0])
        assert width == pytest.approx(2 * t.ppf(0.975, 19) * error, rel=1e-6)


def test_the_means_that_folds_have_learned_know_nothing():
    rng = np.random.default_rng(0)
    labels = rng.normal(0.5, 0.1, (100, 5))
    folds = np.arange(100) % 5
    means = np.stack([labels[folds != fold].mean(axis=0) for fold in range(5)])[folds]
    assert metrics(means, labels)[METRICS.index("pearson")].mean() < -0.05  # worse than nothing
    measured = measure(means[None], labels, [str(clip) for clip in range(100)], means[None], test_share=0.2)
    assert (measured.value[METRICS.index("ccc")] == 0).all()
    assert np.isnan(measured.value[METRICS.index("pearson")]).all()
    assert measured.value[:3] == pytest.approx(with_mean(metrics(means, labels)[:3]))


def test_intervals_over_clips_instead_of_people_would_be_far_too_narrow():
    """Clips of a person share their error; one column is one data set."""
    rng = np.random.default_rng(0)
    truth = 1 - 0.1 * np.sqrt(2 / np.pi)  # mean absolute error of a normal of sd 0.1
    people, clips, sets = 80, 5, 1000
    error = np.repeat(rng.normal(0, 0.1, (people, sets)), clips, axis=0)
    labels = rng.uniform(0.3, 0.7, (people * clips, sets))
    held = []
    for subjects in (np.repeat(np.arange(people), clips), np.arange(people * clips)):
        low, high = measure((labels + error)[None], labels, subjects.astype(str).tolist()).interval[:, 0, :-1]
        held.append(np.mean((low <= truth) & (truth <= high)))
    print(f"\n95% intervals held the truth in {held[0]:.1%} of data sets, over clips {held[1]:.1%}")
    assert 0.93 <= held[0] <= 0.97
    assert held[1] < 0.75


def test_scores_without_skill_have_an_interval_of_concordance_around_zero():
    rng = np.random.default_rng(0)
    labels, noise = rng.normal(0.5, 0.1, (2, 500, 5))
    low, high = measure(noise[None], labels, [str(clip // 2) for clip in range(500)]).interval
    ccc = METRICS.index("ccc")
    assert low[ccc, 5] < 0 < high[ccc, 5]


def test_seeds_widen_the_interval_and_each_is_told():
    scores, labels = drawn()
    seeds = np.stack([scores + shift for shift in (-0.1, -0.05, 0, 0.05, 0.1)])
    subjects = [str(clip) for clip in range(400)]
    many, one = measure(seeds, labels, subjects), measure(scores[None], labels, subjects)
    assert many.by_seed.shape == (5, 6, 6)
    assert many.by_seed[2] == pytest.approx(one.value)
    width = [np.diff(measured.interval[:, 0, 5], axis=0)[0] for measured in (many, one)]
    assert width[0] > 1.5 * width[1]


def test_holm_gives_the_adjusted_values_worked_out_by_hand():
    # 0.005*4, 0.01*3, 0.03*2, 0.04*1 made monotone
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])


def test_a_better_predictor_is_told_from_an_equal_one_and_people_count_once():
    rng = np.random.default_rng(1)
    labels = rng.normal(0.5, 0.1, (600, 5))
    subjects = [str(clip // 3) for clip in range(600)]
    good, alike, bad = (labels + rng.normal(0, sd, labels.shape) for sd in (0.05, 0.05, 0.08))
    assert gain(good[None], bad[None], labels, subjects).p.max() < 1e-6
    assert gain(bad[None], good[None], labels, subjects).p.min() > 1 - 1e-6
    assert gain(good[None], alike[None], labels, subjects).p.min() > 0.005
    assert (gain(good[None], good[None], labels, subjects).p == 1).all()
    # copies of one person's clips add no evidence
    few = slice(0, 30)
    once = gain(good[None, few], bad[None, few], labels[few], subjects[few])
    rows = np.tile(np.arange(30), 20)
    many = gain(good[None, rows], bad[None, rows], labels[rows], [subjects[row] for row in rows])
    assert many.p == pytest.approx(once.p)
    assert many.low == pytest.approx(once.low)

"""Measures against scikit-learn, SciPy and arithmetic by hand; intervals that hold what they promise."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from fusion.evaluation.bootstrap import SubjectDraws
from fusion.evaluation.metrics import METRICS, metrics, with_mean
from fusion.evaluation.significance import holm, paired_p_values


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


def test_a_draw_is_what_the_measures_give_on_the_drawn_clips():
    scores, labels = drawn(60)
    subjects = [f"person {clip % 20}" for clip in range(60)]
    draws = SubjectDraws(subjects, draws=5, seed=3)
    measured = draws.measure(scores[None], labels)
    (_, person_of_clip, times) = draws._folds[0]
    for draw in range(5):
        clips = np.repeat(np.arange(60), times[draw][person_of_clip])
        assert measured.draws[draw] == pytest.approx(with_mean(metrics(scores[clips], labels[clips])), abs=1e-9)
    assert measured.value == pytest.approx(with_mean(metrics(scores, labels)))


def test_folds_are_measured_by_themselves_so_that_their_means_know_nothing():
    rng = np.random.default_rng(0)
    labels = rng.normal(0.5, 0.1, (100, 5))
    folds = np.arange(100) % 5
    means = np.stack([labels[folds != fold].mean(axis=0) for fold in range(5)])[folds]
    assert metrics(means, labels)[METRICS.index("pearson")].mean() < -0.05  # pooled, they are worse than nothing
    measured = SubjectDraws([str(clip) for clip in range(100)], folds).measure(means[None], labels)
    assert (measured.value[METRICS.index("ccc")] == 0).all()


def test_intervals_over_clustered_clips_hold_the_truth_as_often_as_they_say():
    """Clips of a person share most of their error, so that intervals over clips would be far too narrow."""
    rng = np.random.default_rng(0)
    truth = 1 - 0.1 * np.sqrt(2 / np.pi)  # mean absolute error of a normal of sd 0.1
    people, clips, trials = 80, 5, 300
    subjects = np.repeat([f"p{person}" for person in range(people)], clips)
    held = held_by_clips = 0
    for trial in range(trials):
        error = np.repeat(rng.normal(0, 0.1, (people, 1)), clips, axis=0)
        labels = rng.uniform(0.3, 0.7, (people * clips, 1))
        for by_person in (True, False):
            names = subjects if by_person else np.arange(people * clips).astype(str)
            measured = SubjectDraws(names, draws=200, seed=trial).measure((labels + error)[None], labels)
            low, high = measured.interval()[:, 0, 0]
            if by_person:
                held += low <= truth <= high
            else:
                held_by_clips += low <= truth <= high
    print(
        f"\n95 % intervals held the truth in {held / trials:.1%} of data sets, over clips {held_by_clips / trials:.1%}"
    )
    assert 0.91 <= held / trials <= 0.98
    assert held_by_clips / trials < 0.75


def test_scores_without_skill_have_an_interval_of_concordance_around_zero():
    rng = np.random.default_rng(0)
    labels, noise = rng.normal(0.5, 0.1, (2, 500, 5))
    low, high = SubjectDraws([str(clip // 2) for clip in range(500)]).measure(noise[None], labels).interval()
    ccc = METRICS.index("ccc")
    assert low[ccc, 5] < 0 < high[ccc, 5]


def test_seeds_widen_the_interval_and_each_is_told():
    scores, labels = drawn()
    seeds = np.stack([scores + shift for shift in (-0.1, -0.05, 0, 0.05, 0.1)])
    draws = SubjectDraws([str(clip) for clip in range(400)])
    many, one = draws.measure(seeds, labels), draws.measure(scores[None], labels)
    assert many.by_seed.shape == (5, 6, 6)
    assert many.by_seed[2] == pytest.approx(one.value)
    width = [np.diff(measured.interval()[:, 0, 5], axis=0)[0] for measured in (many, one)]
    assert width[0] > 1.5 * width[1]


def test_ten_thousand_clips_are_measured_over_a_thousand_draws_in_seconds():
    scores, labels = drawn(10_000)
    subjects = [str(clip // 3) for clip in range(10_000)]
    start = time.perf_counter()
    SubjectDraws(subjects).measure(scores[None], labels)
    seconds = time.perf_counter() - start
    print(f"\n10,000 clips, 1,000 draws: {seconds:.2f} s")
    assert seconds < 20  # nothing about speed but that no draw is a loop over clips


def test_holm_gives_the_adjusted_values_worked_out_by_hand():
    # 0.005*4, 0.01*3, 0.03*2, 0.04*1 made monotone
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])


def test_a_better_predictor_is_told_from_an_equal_one_and_people_count_once():
    rng = np.random.default_rng(1)
    labels = rng.normal(0.5, 0.1, (600, 5))
    subjects = [str(clip // 3) for clip in range(600)]
    good, alike, bad = (labels + rng.normal(0, sd, labels.shape) for sd in (0.05, 0.05, 0.08))
    assert paired_p_values(good[None], bad[None], labels, subjects).max() < 1e-6
    assert paired_p_values(good[None], alike[None], labels, subjects).min() > 0.005
    assert (paired_p_values(good[None], good[None], labels, subjects) == 1).all()
    # copies of one person's clips add no evidence
    few = slice(0, 30)
    once = paired_p_values(good[None, few], bad[None, few], labels[few], subjects[few])
    rows = np.tile(np.arange(30), 20)
    many = paired_p_values(good[None, rows], bad[None, rows], labels[rows], [subjects[row] for row in rows])
    assert many == pytest.approx(once)

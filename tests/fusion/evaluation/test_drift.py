"""Drift of scores, beside hand-worked indices and SciPy."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from fusion.evaluation.drift import LEAST_SHARE, measure_drift, psi_by_chance
from fusion.traits import TRAITS

NOBODY = np.empty((0, 2), np.int64)


def population(column: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(column, np.float32)[:, None], len(TRAITS), axis=1)


def test_the_same_scores_have_not_moved():
    scores = np.random.default_rng(0).random((500, 5)).astype(np.float32)
    rows = np.arange(500)
    for drift, trait in zip(measure_drift(scores, scores, np.stack([rows, rows], 1)), TRAITS, strict=True):
        assert (drift.trait, drift.psi, drift.ks, drift.videos) == (trait, 0, 0, 500)
        assert drift.rank_correlation == pytest.approx(1)


def test_the_index_by_hand():
    """Ten earlier scores, one in each tenth; of five later ones three lie in the first tenth and two in the last."""
    before, now = np.arange(10) / 10, np.array([0, 0, 0, 0.9, 0.9])
    by_hand = (0.6 - 0.1) * np.log(0.6 / 0.1) + (0.4 - 0.1) * np.log(0.4 / 0.1)
    by_hand += 8 * (LEAST_SHARE - 0.1) * np.log(LEAST_SHARE / 0.1)
    drift = measure_drift(population(before), population(now), NOBODY)[2]
    assert drift.psi == pytest.approx(by_hand)
    assert (drift.previous_mean, drift.mean) == (pytest.approx(0.45), pytest.approx(0.36))
    assert drift.previous_sd == pytest.approx(np.sqrt((100 - 1) / 12) / 10)
    assert drift.ks == pytest.approx(0.5)  # after 0: 3/5 against 1/10
    assert (drift.rank_correlation, drift.videos) == (None, 0)


def test_a_shift_by_one_sd_is_large_whatever_the_drawing():
    """PSI of two normal distributions one sd apart, in tenths of the first, by their distribution function."""
    edges = stats.norm.ppf(np.arange(1, 10) / 10)
    shares = np.diff([0, *stats.norm.cdf(edges, loc=1), 1])
    truth = np.sum((shares - 0.1) * np.log(shares / 0.1))
    rng = np.random.default_rng(1)
    before, now = rng.normal(0, 1, 100_000), rng.normal(1, 1, 100_000)
    drift = measure_drift(population(before), population(now), NOBODY)[0]
    assert drift.psi == pytest.approx(truth, rel=0.03)
    assert drift.ks == pytest.approx(stats.norm.cdf(0.5) - stats.norm.cdf(-0.5), abs=0.01)


def test_two_samples_of_one_population_have_the_index_that_chance_gives():
    rng = np.random.default_rng(4)
    found = [measure_drift(rng.normal(size=(400, 5)), rng.normal(size=(600, 5)), NOBODY) for _ in range(40)]
    mean = np.mean([drift.psi for drifts in found for drift in drifts])
    assert mean == pytest.approx(psi_by_chance(400, 600), rel=0.15)
    assert psi_by_chance(400, 600) == pytest.approx(0.0375)


def test_ranks_are_compared_over_the_videos_of_both_times():
    rng = np.random.default_rng(2)
    before = rng.random((50, 5)).astype(np.float32)
    now = np.concatenate([rng.random((7, 5)), before[::-1] ** 3 * [1, -1, 1, 1, 0]]).astype(np.float32)
    pairs = np.stack([np.arange(50), 7 + np.arange(50)[::-1]], 1)
    ranks = [drift.rank_correlation for drift in measure_drift(before, now, pairs)]
    assert ranks == [pytest.approx(1), pytest.approx(-1), pytest.approx(1), pytest.approx(1), None]


def test_equal_earlier_scores_make_fewer_bins():
    drift = measure_drift(population([0.5] * 20), population([0.5] * 10 + [0.6] * 10), NOBODY)[0]
    by_hand = (0.5 - 1) * np.log(0.5) + (0.5 - LEAST_SHARE) * np.log(0.5 / LEAST_SHARE)
    assert drift.psi == pytest.approx(by_hand)


@pytest.mark.parametrize("shape", [(0, 5), (3, 4), (5,)])
def test_only_populations_of_five_traits_are_compared(shape):
    with pytest.raises(ValueError, match=re.escape(str(shape))):
        measure_drift(np.zeros(shape), np.zeros((3, 5)), NOBODY)

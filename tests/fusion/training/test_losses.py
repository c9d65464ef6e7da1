"""Losses against their definitions written out, and the schedule."""

import numpy as np
import pytest
from scipy.stats import norm

from fusion.settings import TrainSettings
from fusion.training.losses import loss_of, loss_of_the_mean
from fusion.training.schedule import is_finished, learning_rate, plateaus

RNG = np.random.default_rng(0)
SCORES = RNG.normal(0.5, 0.2, size=(40, 5)).astype(np.float32)
LABELS = (SCORES + RNG.normal(0, 0.1, size=(40, 5)) + 0.05).astype(np.float32)


def concordance(x, y):
    """Lin's coefficient from means, variances and Pearson's correlation."""
    r = np.corrcoef(x, y)[0, 1]
    return 2 * r * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_losses_are_what_their_names_say():
    error = SCORES - LABELS
    assert float(loss_of("mse", SCORES, LABELS)) == pytest.approx(np.mean(error**2), rel=1e-5)
    assert float(loss_of("mae", SCORES, LABELS)) == pytest.approx(np.mean(np.abs(error)), rel=1e-5)
    expected = 1 - np.mean([concordance(SCORES[:, trait], LABELS[:, trait]) for trait in range(5)])
    assert float(loss_of("ccc", SCORES, LABELS)) == pytest.approx(expected, rel=1e-4)
    log_variance = np.log(np.array([0.01, 0.02, 0.03, 0.04, 0.05], np.float32))
    expected = -np.mean(norm.logpdf(LABELS, SCORES, np.exp(log_variance / 2)))
    assert float(loss_of("nll", SCORES, LABELS, log_variance)) == pytest.approx(expected, rel=1e-4)


def test_ccc_of_clips_that_are_all_alike_is_a_number():
    same = np.full((3, 5), 0.4, np.float32)
    assert float(loss_of("ccc", same, same)) == pytest.approx(1)


@pytest.mark.parametrize("name", ["mse", "mae", "ccc"])
def test_always_saying_the_mean_costs_one_unit(name):
    constant = np.broadcast_to(LABELS.mean(axis=0), LABELS.shape)
    assert float(loss_of(name, constant, LABELS)) / loss_of_the_mean(name, LABELS) == pytest.approx(1, rel=1e-5)


def rates(settings, steps, losses=()):
    return [learning_rate(settings, step, 10, losses) for step in range(steps)]


def test_the_step_size_rises_evenly_and_falls_along_half_a_cosine_to_zero():
    found = rates(TrainSettings(epochs=5, warmup_epochs=2, learning_rate=1.0), 50)
    assert found[:20] == pytest.approx(np.arange(1, 21) / 20)
    assert found[34] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0)
    assert np.all(np.diff(found[19:]) < 0)


def test_on_a_plateau_the_step_size_is_halved():
    settings = TrainSettings(schedule="plateau", plateau_epochs=2, warmup_epochs=0, learning_rate=1.0)
    assert rates(settings, 1, [3, 2, 2.5]) == [1.0]
    assert rates(settings, 1, [3, 2, 2.5, 2.5]) == [0.5]
    assert plateaus([3, 2, 2.5, 2.5, 2.5, 2.5, 1, 1, 1], 2) == 3


def test_training_ends_with_the_last_epoch_or_after_waiting_long_enough():
    settings = TrainSettings(epochs=6, patience=2)
    assert not is_finished(settings, 3, [1.0, 0.5, 0.6])
    assert is_finished(settings, 4, [1.0, 0.5, 0.6, 0.5])
    assert is_finished(settings, 6, [6, 5, 4, 3, 2, 1])
    assert not is_finished(settings, 5, [])


def test_the_likelihood_needs_a_variance():
    with pytest.raises(ValueError, match="log_variance"):
        loss_of("nll", SCORES, LABELS)

"""Losses against their definitions written out, and the schedule."""

import csv

import numpy as np
import pytest
from planted import planted_clips
from scipy.stats import norm

from fusion.settings import TrainSettings
from fusion.training.fit import HISTORY_TABLE, schedule_of
from fusion.training.losses import loss_of, loss_of_the_mean
from fusion.training.train import train

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


def rates(steps_per_epoch=10, **settings):
    """The step size by step, as Keras' optimizer computes it."""
    settings = TrainSettings(learning_rate=1.0, **settings)
    schedule = schedule_of(settings, steps_per_epoch)
    return np.array([float(schedule(step)) for step in range(settings.epochs * steps_per_epoch)])


def test_the_step_size_rises_evenly_and_falls_along_half_a_cosine():
    found = rates(epochs=5, warmup_epochs=2)
    assert found[:20] == pytest.approx(np.arange(1, 21) / 20)
    assert found[34] == pytest.approx(0.5, abs=0.03)
    assert 0 < found[-1] < 0.01
    assert np.all(np.diff(found[19:]) < 0)


@pytest.mark.parametrize("warmup_epochs", [0, 0.01, 0.5, 5])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_every_step_has_a_size_however_long_the_warm_up(schedule, warmup_epochs):
    found = rates(4, epochs=3, warmup_epochs=warmup_epochs, schedule=schedule)
    assert np.all(found > 0)
    assert found.max() <= 1
    warm_up = round(4 * warmup_epochs)
    if schedule == "constant":
        assert np.all(found[warm_up:] == 1)
    if warm_up <= 1:
        assert found[0] == 1


def test_on_a_plateau_the_step_size_is_halved_after_the_warm_up(tmp_path):
    data = planted_clips(12, seed=0, static_tokens=2, dynamic_tokens=1, dim=4)
    settings = TrainSettings(
        kind="specified", schedule="plateau", plateau_epochs=1, warmup_epochs=2, epochs=12, batch_size=4
    )
    losses = train(data.clips, data.labels, data.subjects, settings, folder=tmp_path).history["validation_loss"]
    with (tmp_path / HISTORY_TABLE).open(newline="") as file:
        found = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    # of every epoch after the first, whether its loss is a plateau of one epoch; the next epoch then has half the size
    worse = np.array(losses[1:]) >= np.minimum.accumulate(losses)[:-1]
    halvings = np.concatenate([[0], np.cumsum(worse[:-1])])
    assert halvings[-1] > 0
    assert found == pytest.approx([0.0005, *0.001 * 0.5**halvings], rel=1e-5)


def test_the_likelihood_needs_a_variance():
    with pytest.raises(ValueError, match="log_variance"):
        loss_of("nll", SCORES, LABELS)

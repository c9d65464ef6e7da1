"""Reliability on drawn errors, whose coverage is known before."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.uncertainty.intervals import ClipQuality
from fusion.uncertainty.reliability import check_reliability

CENTRE = np.full(5, 0.5)


def draw(people: int, clips_each: int, *, seed: int = 0):
    """Labels, scores that miss them by a normal error of 0.1, and people."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(0.2, 0.8, size=(people * clips_each, 5))
    scores = labels + rng.normal(0, 0.1, size=labels.shape)
    subjects = [f"p{clip // clips_each}" for clip in range(len(labels))]
    return scores, labels, subjects, quality(len(labels))


def quality(clips: int) -> ClipQuality:
    return ClipQuality(np.full(clips, 0.9), np.full(clips, 16), np.full(clips, 6))


def test_intervals_hold_as_often_as_they_state():
    found = check_reliability(*draw(600, 2), centre=CENTRE)
    assert found.levels == (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    np.testing.assert_allclose(np.mean(found.covered, axis=1), found.levels, atol=0.02)
    assert (found.subjects, found.clips) == (600, 1200)


def test_with_few_people_only_what_a_finite_interval_can_state_is_told():
    """12 people in 5 folds leave 9 in the least, and 90% needs 9; 11 leave 8."""
    assert max(check_reliability(*draw(12, 3), centre=CENTRE).levels) == 0.9
    assert max(check_reliability(*draw(11, 3), centre=CENTRE).levels) == 0.8


def test_a_person_with_many_clips_counts_once():
    """One of 40 people has half of all clips, every one of them missed by far: 1 in 40 is not covered."""
    scores, labels, subjects, _ = draw(40, 1)
    many = np.full((40, 5), 0.5)
    found = check_reliability(
        *(np.concatenate([scores, many + 3]), np.concatenate([labels, many]), [*subjects, *["p0"] * 40], quality(80)),
        centre=CENTRE,
    )
    at_half = found.covered[found.levels.index(0.5)]
    assert np.mean(at_half) == pytest.approx(0.5, abs=0.12)


def test_scores_of_a_model_that_says_half_of_the_truth_lie_off_the_line_by_that():
    _, labels, subjects, own = draw(50, 2)
    found = check_reliability(0.5 + (labels - 0.5) / 2, labels, subjects, own, centre=CENTRE)
    for scores, means in zip(found.scores, found.labels, strict=True):
        assert len(scores) == 5
        assert list(scores) == sorted(scores)
        np.testing.assert_allclose(0.5 + (np.array(means) - 0.5) / 2, scores, atol=1e-9)


def test_one_person_alone_is_refused():
    with pytest.raises(ValueError, match="n_splits"):
        check_reliability(*draw(1, 5), centre=CENTRE)

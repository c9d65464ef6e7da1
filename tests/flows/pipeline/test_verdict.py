"""What training says of its model."""

from __future__ import annotations

import re

import numpy as np
import pytest

from flows.archive.model_quality import doubts, gain_in_words, verdict
from fusion.evaluation.unseen import measure_unseen

PEOPLE = [f"p{clip // 2}" for clip in range(80)]


def measured(gain: float, people: int = 40) -> dict:
    """Scores that are the labels with noise, or only noise."""
    rng = np.random.default_rng(0)
    labels = rng.normal(0.5, 0.15, (2 * people, 5))
    scores = 0.5 + gain * (labels - 0.5) + 0.05 * rng.normal(size=labels.shape)
    return measure_unseen(scores, labels, PEOPLE[: 2 * people], mean=np.full_like(labels, 0.5))


@pytest.mark.parametrize(("known", "words"), [(True, "80 clips of unseen people"), (False, "80 clips not trained on")])
def test_people_are_called_unseen_only_if_the_labels_say_who_is_in_a_clip(known, words):
    assert verdict({"unseen": measured(0.5), "subjects_known": known}).endswith(words)


def test_every_interval_says_its_level():
    facts = {"unseen": measured(0.5)}
    assert re.search(r"is \d+\.\d% \(90% interval \d+\.\d% to \d+\.\d%\) smaller", gain_in_words(facts))
    assert verdict(facts).count("(95% interval ") == 3


def test_a_model_is_doubted_unless_people_show_that_it_beats_the_mean():
    assert doubts({"unseen": measured(0.5)}) == []
    assert "no better than" in doubts({"unseen": measured(0.0)})[0]
    assert "too few people" in doubts({"unseen": measured(0.0, people=10)})[0]
    assert doubts({"unseen": measured(0.5, people=10)}) == []

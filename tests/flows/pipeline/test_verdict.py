"""What training says of its model."""

from __future__ import annotations

import pytest

from flows.pipeline.train import _verdict


@pytest.mark.parametrize(
    ("known", "words"), [(True, "5 clips of unseen people"), (False, "5 clips held out from training")]
)
def test_people_are_called_unseen_only_if_the_labels_say_who_is_in_a_clip(known, words):
    facts = {"validation_loss": 0.02, "baseline_loss": 0.03, "validation_clips": 5, "subjects_known": known}
    assert f"on {words} (" in _verdict({**facts, "settings": {"loss": "mse"}})

"""Words that a person reads."""

from __future__ import annotations

import pytest

from flows.console import counted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "video"), "0 videos"),
        ((1, "video"), "1 video"),
        ((1_000, "video"), "1,000 videos"),
        ((1, "person", "people"), "1 person"),
        ((2, "person", "people"), "2 people"),
    ],
)
def test_a_number_agrees_with_its_noun(arguments, words):
    assert counted(*arguments) == words

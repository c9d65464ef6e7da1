"""Keys of feature families."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import Family

SETTINGS = {"fps": 25.0, "faces": {"min_score": 0.5, "gap_s": 1}, "layers": ["a", "b"], "weights": None, "flip": False}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def family(**changes: object) -> Family:
    return Family(**{"name": "static", "dim": 4, "settings": SETTINGS, "quality": ("score",), **changes})


def test_key_is_sixteen_hex_digits_and_stays_the_same_for_ever():
    assert len(family().key) == 16
    # From `sha256sum`, over {"dim":4,"name":"static","quality":[],"settings":{}}: with another value here, all that
    # users have cached would be lost.
    assert Family("static", 4, {}).key == "d5233dd4882ab391"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "dynamic"},
        {"dim": 5},
        {"quality": ()},
        {"quality": ("other",)},
        {"settings": {**SETTINGS, "fps": 24.0}},
        {"settings": {**SETTINGS, "faces": {"min_score": 0.5, "gap_s": 2}}},
        {"settings": {**SETTINGS, "layers": ["b", "a"]}},
        {"settings": {**SETTINGS, "weights": "None"}},
        {"settings": {**SETTINGS, "flip": 0}},
        {"settings": {**SETTINGS, "more": None}},
    ],
    ids=str,
)
def test_any_other_value_gives_another_key(change: dict):
    assert family(**change).key != family().key
    assert family(**change) != family()


def test_order_of_settings_tuples_and_whole_floats_leave_the_key_alone():
    same = {"flip": False, "weights": None, "layers": ("a", "b"), "faces": {"gap_s": 1.0, "min_score": 0.5}, "fps": 25}
    assert family(settings=same).key == family().key
    assert family(settings=same) == family()
    assert hash(family(settings=same)) == hash(family())


def test_later_change_of_the_callers_settings_leaves_the_key_alone():
    settings = {"layers": ["a"]}
    made = family(settings=settings)
    key = made.key
    settings["layers"].append("b")
    assert made.key == key


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_family_comes_back_from_its_dictionary_with_the_same_key(settings: dict):
    made = family(settings=settings)
    again = Family.from_dict(made.to_dict())
    assert again == made
    assert again.key == made.key


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {1: "a"}, {"a": object()}, {"a", "b"}],
    ids=["NaN", "infinity", "number as key", "object", "set"],
)
def test_settings_that_json_cannot_hold_are_refused(value: object):
    with pytest.raises(ValueError, match="settings"):
        family(settings={"value": value})


def test_quality_column_with_the_name_of_another_column_is_refused():
    with pytest.raises(ValueError, match=r"quality columns.*vector"):
        family(quality=("vector",))


def test_name_that_leads_out_of_the_store_is_refused():
    with pytest.raises(ValueError, match=r"family name.*\.\./static"):
        family(name="../static")

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from fusion.features.identity import Identity, IdentityMeter


def measured(clips: list[tuple[str, np.ndarray]], **options: int) -> Identity:
    meter = IdentityMeter(Counter(person for person, _ in clips), **options)
    for person, vectors in clips:
        meter.add(person, vectors.astype(np.float32))
    return meter.result()


def drawn(people: int = 9, *, apart: float, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Clips of people who lie around points of their own; different numbers of clips and tokens, lengths that vary."""
    rng = np.random.default_rng(seed)
    clips = []
    for person in range(people):
        place = apart * rng.normal(size=24)
        for _ in range(1 + person % 4):
            tokens = place + rng.normal(size=(rng.integers(1, 6), 24))
            clips.append((f"p{person}", tokens * rng.uniform(0.1, 50, size=(len(tokens), 1))))
    order = rng.permutation(len(clips))
    return [clips[at] for at in order]


def pairs_by_force(clips: list[tuple[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cosine, person, other person and whether the clip is another, of all pairs of tokens."""
    vectors = np.concatenate([vectors for _, vectors in clips])
    people = np.array([person for person, vectors in clips for _ in vectors])
    of_clip = np.array([at for at, (_, vectors) in enumerate(clips) for _ in vectors])
    first, second = np.triu_indices(len(vectors), k=1)
    cosines = 1 - cdist(vectors, vectors, "cosine")[first, second]
    return cosines, people[first], people[second], of_clip[first] != of_clip[second]


def test_four_tokens_at_known_angles_give_the_values_worked_out_by_hand():
    up, right = np.array([[0.0, 2.0]]), np.array([[3.0, 0.0]])
    slope = np.array([[1.0, 1.0]])  # half way: cosine 1 / sqrt 2 with both
    found = measured([("a", up), ("a", slope), ("b", right), ("b", 7 * right)])
    half = 1 / np.sqrt(2)
    assert found.consistency_of == pytest.approx({"a": half, "b": 1.0})
    assert found.consistency == pytest.approx((half + 1) / 2)
    # up-right twice at cosine 0, slope-right twice at 1 / sqrt 2
    assert found.discriminability == pytest.approx(1 - half / 2)
    # same: half, 1; different: 0, 0, half, half. Of 8 comparisons 6 are won and 2 are ties.
    assert found.auc == pytest.approx(7 / 8)
    assert found.within_clip is None


@pytest.mark.parametrize("apart", [0.0, 0.7])
def test_means_from_sums_are_those_over_all_pairs(apart):
    clips = drawn(apart=apart)
    cosines, person, other, other_clip = pairs_by_force(clips)
    one = person == other
    found = measured(clips)
    assert found.within_clip == pytest.approx(cosines[one & ~other_clip].mean(), abs=1e-6)
    assert found.consistency_of_pairs == pytest.approx(cosines[one & other_clip].mean(), abs=1e-6)
    assert found.discriminability == pytest.approx(1 - cosines[~one].mean(), abs=1e-6)
    by_person = {name: cosines[one & other_clip & (person == name)].mean() for name in set(person[one & other_clip])}
    assert found.consistency_of == pytest.approx(by_person, abs=1e-6)
    assert found.consistency == pytest.approx(np.mean(list(by_person.values())), abs=1e-6)


@pytest.mark.parametrize("apart", [0.0, 0.3])
def test_auc_of_few_tokens_is_scikit_learns_over_all_pairs(apart):
    clips = [clip for clip in drawn(apart=apart) if clip[0] not in ("p0", "p4", "p8")]  # those have one clip
    cosines, person, other, other_clip = pairs_by_force(clips)
    counted = (person != other) | other_clip
    assert measured(clips).auc == pytest.approx(roc_auc_score((person == other)[counted], cosines[counted]), abs=1e-6)


def test_a_sample_comes_near_the_auc_of_all_pairs_and_the_same_seed_gives_the_same():
    clips = drawn(60, apart=0.35)
    whole, sampled = measured(clips), measured(clips, sample_tokens=200)
    assert sampled.sample_tokens <= 200 < whole.sample_tokens
    assert sampled.auc == pytest.approx(whole.auc, abs=0.06)
    assert measured(clips, sample_tokens=200).auc == sampled.auc
    assert measured(clips, sample_tokens=200, seed=1).auc != sampled.auc
    assert sampled.consistency == whole.consistency


def test_tokens_without_a_direction_are_counted_and_left_out():
    clips = drawn(4, apart=0.5)
    person, vectors = clips[0]
    spoiled = np.concatenate([vectors, np.zeros((2, 24)), np.full((1, 24), np.nan)])
    found, clean = measured([(person, spoiled), *clips[1:]]), measured(clips)
    assert found.left_out == 3
    assert found.discriminability == clean.discriminability
    assert found.auc == clean.auc


def test_people_of_one_clip_each_have_no_consistency_and_no_auc():
    found = measured([("a", np.eye(2)[:1]), ("b", np.eye(2)[1:])])
    assert (found.consistency, found.auc) == (None, None)
    assert found.discriminability == pytest.approx(1.0)


def test_a_clip_that_never_came_is_no_result():
    meter = IdentityMeter({"a": 2})
    meter.add("a", np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match=r"clips of a\b"):
        meter.result()

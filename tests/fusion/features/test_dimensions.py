from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.decomposition import PCA

from fusion.features.dimensions import BLOCK_TOKENS, SAMPLE_TOKENS, DimensionMeter
from fusion.pictures.features import plot_components, plot_dimensions


def metered(vectors: np.ndarray, labels: list[str] | None = None, clip: int = 16) -> DimensionMeter:
    meter = DimensionMeter(vectors.shape[1])
    for at in range(0, len(vectors), clip):
        meter.add(vectors[at : at + clip], "" if labels is None else labels[at])
    return meter


def rectified(tokens: int, dim: int, seed: int = 0) -> np.ndarray:
    """Features as an average after a ReLU gives them: not negative, often 0."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(0.3, 1, (tokens, dim)), 0).astype(np.float32)


def test_planted_dead_constant_and_saturated_dimensions_are_named_and_no_others():
    vectors = rectified(3000, 40)
    vectors[:, 3] = 0
    vectors[:, 7] = 2.5
    vectors[:, 8] = 1000 + np.float32(1e-4) * (np.arange(3000) % 2)  # what rounding makes of a constant
    vectors[:, 11] = np.minimum(vectors[:, 11], 1.0)  # cut off above, for some 24% of the tokens
    vectors[:, 12] = np.maximum(vectors[:, 12] - 1, -0.5)  # and below
    found = metered(vectors).dimensions()
    assert found.dead == (3,)
    assert found.constant == (7, 8)
    assert found.saturated == (11, 12)


def test_moments_and_limits_are_those_of_numpy():
    vectors = rectified(BLOCK_TOKENS * 2 + 77, 30) * 5 + 100
    found = metered(vectors).dimensions()
    wide = vectors.astype(np.float64)
    np.testing.assert_allclose(found.mean, wide.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.std, wide.std(axis=0), rtol=1e-4)
    np.testing.assert_array_equal(found.lowest, vectors.min(axis=0))
    np.testing.assert_array_equal(found.highest, vectors.max(axis=0))
    np.testing.assert_allclose(found.quantiles[2], np.median(vectors, axis=0))
    assert found.tokens == len(vectors)


@pytest.mark.parametrize("tokens", [12, 2500])  # fewer than dimensions, and several blocks
def test_components_are_scikit_learns(tokens):
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(tokens, 50)) @ np.diag(np.geomspace(10, 0.1, 50)) + 30).astype(np.float32)
    found, truth = metered(vectors).components(4), PCA(4, svd_solver="full").fit(vectors.astype(np.float64))
    np.testing.assert_allclose(found.variance[:4], truth.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(found.ratio[:4], truth.explained_variance_ratio_, rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(found.axes * truth.components_, axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(
        np.abs(found.project(vectors)), np.abs(truth.transform(vectors.astype(np.float64))), atol=1e-2
    )


def test_components_separate_planted_clusters():
    rng = np.random.default_rng(2)
    people = np.repeat(np.arange(3), 100)
    centres = rng.normal(size=(3, 64))
    vectors = (3 * centres[people] + rng.normal(size=(300, 64))).astype(np.float32)
    meter = metered(vectors, [f"p{person}" for person in people], clip=10)
    components = meter.components(2)
    sample, names = meter.sample()
    places = components.project(sample)
    middle = {name: places[np.array(names) == name].mean(axis=0) for name in set(names)}
    nearest = [min(middle, key=lambda name, place=place: np.linalg.norm(place - middle[name])) for place in places]
    assert nearest == names
    assert components.needed(sum(components.ratio[:2])) == 2
    (legend,) = plot_components(components, sample, names, "Faces").legends
    assert [text.get_text() for text in legend.get_texts()] == ["p0", "p1", "p2"]


def test_tokens_that_are_not_finite_are_counted_and_left_out():
    vectors = rectified(50, 5)
    spoiled = np.concatenate([vectors, np.full((3, 5), np.inf, np.float32)])
    found = metered(spoiled).dimensions()
    assert (found.tokens, found.left_out) == (50, 3)
    np.testing.assert_allclose(found.mean, vectors.mean(axis=0), rtol=1e-6)


def test_memory_does_not_grow_with_the_tokens_and_the_sample_is_from_everywhere():
    dim, block = 64, rectified(1024, 64)
    tracemalloc.start()
    meter = DimensionMeter(dim)
    peaks = []
    for round_number in range(120):
        block[:, 0] = round_number
        meter.add(block, str(round_number))
        if round_number in (19, 119):
            peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.05
    sample, labels = meter.sample()
    assert len(sample) == SAMPLE_TOKENS
    np.testing.assert_array_equal(sample[:, 0], [float(label) for label in labels])
    # of numbers drawn evenly from 0 to 119 the mean of 4,096 is 59.5 within 0.54, one standard error
    assert sample[:, 0].mean() == pytest.approx(59.5, abs=2.2)


def test_the_picture_marks_the_dimensions_that_are_of_no_use():
    vectors = rectified(200, 20)
    vectors[:, 4] = 0
    axes = plot_dimensions(metered(vectors).dimensions(), "Faces").axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "dead (1)" in labels
    assert not [label for label in labels if "constant" in label]

"""Components of tokens: the same from few of them, by a shorter way, as from their covariance."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.training.bilinear import _components, _components_of_few


@pytest.mark.parametrize("number", [1, 30, 70])
def test_few_tokens_have_the_components_of_their_covariance(number):
    """Signs are free, so that the products of components are compared."""
    rng = np.random.default_rng(number)
    tokens = (rng.normal(size=(number, 200)) * np.exp(-np.arange(200) / 20)).astype(np.float32)
    found, expected = _components_of_few(tokens, 48), _components(tokens.T @ tokens / number, 48)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.count_nonzero(found.any(axis=0)) == min(number, 48)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4 * np.abs(expected).max() ** 2)

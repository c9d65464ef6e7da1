"""Preprocessing, beside what keras.applications and torchvision publish."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from extractors.networks.preprocessing import preprocess, scaled

APPLICATIONS = {
    "resnet": "imagenet-caffe",
    "vgg16": "imagenet-caffe",
    "densenet": "imagenet-torch",
    "resnet_v2": "minus1-1",
    "xception": "minus1-1",
    "convnext": "0-255",
    "efficientnet_v2": "0-255",
}


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize(("module", "name"), APPLICATIONS.items())
def test_each_is_what_networks_of_keras_applications_take(module, name):
    expected = getattr(keras.applications, module).preprocess_input(pictures().astype(np.float32))
    found = preprocess(pictures(), name)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-5)


def test_a_red_picture_comes_out_as_worked_out_by_hand():
    red = np.zeros((1, 1, 1, 3), np.uint8)
    red[..., 0] = 255
    by_hand = {
        "imagenet-torch": [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225],
        "imagenet-caffe": [-103.939, -116.779, 255 - 123.68],
        "minus1-1": [1, -1, -1],
        "0-1": [1, 0, 0],
        "0-255": [255, 0, 0],
    }
    for name, expected in by_hand.items():
        assert preprocess(red, name).ravel().tolist() == pytest.approx(expected, rel=1e-5)


def test_half_the_side_is_the_mean_of_each_square_of_four():
    large = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), np.ones((2, 2), np.uint8))
    crops = np.repeat(large[None, :, :, None], 3, axis=-1)
    np.testing.assert_array_equal(scaled(crops, 4)[0, ..., 0], np.arange(16).reshape(4, 4))
    assert scaled(crops, 8) is crops
    assert scaled(crops, 16).shape == (1, 16, 16, 3)

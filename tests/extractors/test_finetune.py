"""Fine-tuning learns what the network as it was could not say, and touches nothing that is frozen."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from extractors.finetune import FinetuneSettings, fine_tune
from extractors.static import StaticFeatureExtractor

SIDE = 32
SECOND_LAYERS = ("conv2_block1_0_conv", "conv2_block1_1_conv")
TRAINING, VALIDATION = list(range(48)), list(range(48, 72))


def picture(seed: int) -> tuple[np.ndarray, float]:
    """Grey noise whose tint is red for label 1 and blue for label 0; red, green and blue together are as of grey."""
    generator = np.random.default_rng(seed)
    label = generator.random()
    noise = generator.integers(90, 166, (SIDE, SIDE, 1))
    return (noise + round(80 * label - 40) * np.array([1, 0, -1])).astype(np.uint8), label


PICTURES = [picture(seed) for seed in range(72)]
LABELS = np.array([[label, 1 - label] for _, label in PICTURES], np.float32)


def colour_blind_network() -> keras.Model:
    """Only the first layer sees colour, and no layer after it looks at the channels that do.

    Its features say nothing of the tint. All is frozen but the two layers after the first, which can learn to look at
    the channels that they do not look at.
    """
    model = StaticFeatureExtractor("random", frozen_layers=1, seed=1).model
    first = model.get_layer("conv1_conv")
    kernel = first.kernel.numpy()
    kernel[..., :32] = kernel[..., :32].mean(axis=2, keepdims=True)
    first.kernel.assign(kernel)
    for layer in model.layers:
        layer.trainable = layer.name in SECOND_LAYERS or not isinstance(layer, keras.layers.Conv2D)
    for name in SECOND_LAYERS:
        kernel = model.get_layer(name).kernel.numpy()
        kernel[:, :, 32:] = 0
        model.get_layer(name).kernel.assign(kernel)
    # Random weights have no statistics of any pictures: give them those of these.
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    prepared = keras.applications.resnet.preprocess_input(np.stack([p for p, _ in PICTURES]).astype(np.float32))
    model(prepared, training=True)
    return model


def read(video: int) -> np.ndarray:
    return PICTURES[video][0][None]


@pytest.fixture(scope="module")
def trained():
    """The network before and after, as name of layer -> its arrays, and the report."""
    model = colour_blind_network()
    before = {layer.name: layer.get_weights() for layer in model.layers}
    settings = FinetuneSettings(epochs=8, patience=8, learning_rate=5e-4, batch_size=8)
    report = fine_tune(model, read, LABELS, TRAINING, VALIDATION, settings)
    print(report)
    return before, {layer.name: layer.get_weights() for layer in model.layers}, report


def test_what_the_network_could_not_say_it_can_say_afterwards(trained):
    _, _, report = trained
    assert report.frozen_error > 0.8 * report.constant_error
    assert report.best_error < 0.5 * report.frozen_error
    assert report.best_epoch == 1 + int(np.argmin(report.errors))


def test_frozen_layers_and_statistics_are_the_same_to_the_bit_and_the_others_are_not(trained):
    before, after, _ = trained
    changed = {name for name in before if not all(map(np.array_equal, before[name], after[name]))}
    assert changed == {*SECOND_LAYERS, "conv2_block1_0_bn", "conv2_block1_1_bn"}
    for name in changed:
        if name.endswith("_bn"):
            for old, new in zip(before[name][2:], after[name][2:], strict=True):  # mean and variance
                np.testing.assert_array_equal(old, new)


def test_a_network_that_gets_no_better_is_left_as_it_was():
    model = StaticFeatureExtractor("random", frozen_layers=52).model
    before = model.get_weights()
    settings = FinetuneSettings(epochs=5, patience=1, learning_rate=1.0)
    report = fine_tune(model, read, LABELS, TRAINING[:4], VALIDATION[:2], settings)
    assert report.best_epoch == 0
    assert report.best_error == report.frozen_error
    assert len(report.errors) == 1  # patience
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_videos_crops_are_averaged_and_every_video_is_read_once_an_epoch():
    model = StaticFeatureExtractor("random", frozen_layers=52).model
    seen = []

    def read_three(video):
        seen.append(video)
        return np.repeat(read(video), 3, axis=0)

    told = []
    settings = FinetuneSettings(epochs=1)
    fine_tune(model, read_three, LABELS, TRAINING[:3], VALIDATION[:2], settings, told.append)
    assert sorted(seen) == sorted(2 * (TRAINING[:3] + VALIDATION[:2]))
    assert len(told) == 10

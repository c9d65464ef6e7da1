"""Fine-tuning learns what the network as it was could not say, and touches nothing that is frozen."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from extractors.static.finetune import fine_tune
from extractors.static.settings import FinetuneSettings

SIDE = 32
TRAINING, VALIDATION = list(range(144)), list(range(144, 192))


def picture(seed: int) -> tuple[np.ndarray, float]:
    """Grey noise whose tint is red for label 1 and blue for label 0; red, green and blue together are as of grey."""
    generator = np.random.default_rng(seed)
    label = generator.random()
    noise = generator.integers(90, 166, (SIDE, SIDE, 1))
    return (noise + round(80 * label - 40) * np.array([1, 0, -1])).astype(np.uint8), label


PICTURES = [picture(seed) for seed in range(192)]
LABELS = np.array([[label, 1 - label] for _, label in PICTURES], np.float32)


def colour_blind_network() -> keras.Model:
    """A small network built as ResNet-50 is; only its first layer sees colour, and none looks at the channels that do.

    Its features say nothing of the tint. The first layer is frozen; the others can learn to look at those channels.
    """
    keras.utils.set_random_seed(1)
    layers = keras.layers
    features = pictures = keras.Input((None, None, 3))
    for number, channels in enumerate((16, 32, 64), start=1):
        features = layers.Conv2D(channels, 3, strides=2, padding="same", name=f"conv{number}_conv")(features)
        features = layers.BatchNormalization(name=f"conv{number}_bn", momentum=0.0)(features)
        features = layers.ReLU()(features)
    model = keras.Model(pictures, layers.GlobalAveragePooling2D()(features))
    first, second = model.get_layer("conv1_conv"), model.get_layer("conv2_conv")
    kernel = first.kernel.numpy()
    kernel[..., :8] = kernel[..., :8].mean(axis=2, keepdims=True)
    first.kernel.assign(kernel)
    kernel = second.kernel.numpy()
    kernel[:, :, 8:] = 0
    second.kernel.assign(kernel)
    first.trainable = False
    # Random weights have no statistics of any pictures: give them those of these.
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
    settings = FinetuneSettings(epochs=8, patience=8, learning_rate=1e-3, batch_size=16)
    report = fine_tune(model, read, LABELS, TRAINING, VALIDATION, settings)
    print(report)
    return before, {layer.name: layer.get_weights() for layer in model.layers}, report


def test_what_the_network_could_not_say_it_can_say_afterwards(trained):
    _, _, report = trained
    assert report.frozen_error > 0.8 * report.constant_error
    assert report.best_error < 0.2 * report.frozen_error
    assert report.best_epoch == 1 + int(np.argmin(report.errors))


def test_frozen_layers_are_the_same_to_the_bit_and_the_others_are_not(trained):
    before, after, _ = trained
    changed = {name for name in before if not all(map(np.array_equal, before[name], after[name]))}
    assert changed == {"conv2_conv", "conv3_conv"}


def test_a_network_that_gets_no_better_is_left_as_it_was():
    model = colour_blind_network()
    before = model.get_weights()
    settings = FinetuneSettings(epochs=5, patience=1, learning_rate=1.0)
    report = fine_tune(model, read, LABELS, TRAINING[:4], VALIDATION[:2], settings)
    assert report.best_epoch == 0
    assert report.best_error == report.frozen_error
    assert len(report.errors) == 1  # patience
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_videos_crops_are_averaged_and_every_video_is_read_once_an_epoch():
    model = colour_blind_network()
    seen = []

    def read_three(video):
        seen.append(video)
        return np.repeat(read(video), 3, axis=0)

    told = []
    settings = FinetuneSettings(epochs=1)
    fine_tune(model, read_three, LABELS, TRAINING[:3], VALIDATION[:2], settings, told.append)
    assert sorted(seen) == sorted(2 * (TRAINING[:3] + VALIDATION[:2]))
    assert len(told) == 10

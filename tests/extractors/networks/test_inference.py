from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from extractors.errors import DeviceError
from extractors.networks import precision
from extractors.networks.inference import for_inference


def has_bfloat16() -> bool:
    try:
        precision.check_precision("bfloat16")
    except DeviceError:
        return False
    return True


needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")


def small_network(*, use_bias: bool, scale: bool, center: bool = True) -> keras.Model:
    """Convolution, BatchNorm with statistics far from 0 and 1, ReLU, convolution without a BatchNorm, average."""
    generator = np.random.default_rng(0)
    picture = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, use_bias=use_bias, name="first")(picture)
    x = layers.BatchNormalization(scale=scale, center=center, name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(4, 1, use_bias=use_bias, name="last")(x)
    model = keras.Model(picture, layers.GlobalAveragePooling2D()(x))
    for weight in model.weights:
        weight.assign(generator.uniform(0.2, 2.0, weight.shape))
    return model


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 12, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_folding_changes_no_result(use_bias, scale, center):
    model = small_network(use_bias=use_bias, scale=scale, center=center)
    folded = for_inference(model)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in folded.layers)
    np.testing.assert_allclose(folded.predict_on_batch(pictures(4)), model.predict_on_batch(pictures(4)), rtol=1e-5)


def test_operations_that_are_no_layers_are_kept():
    picture = keras.Input((12, 12, 3))
    x = layers.BatchNormalization(epsilon=0.5)(layers.Conv2D(3, 1)(picture))
    model = keras.Model(picture, layers.GlobalAveragePooling2D()(keras.ops.relu(x) + 2 * picture))
    np.testing.assert_allclose(
        for_inference(model).predict_on_batch(pictures(4)), model.predict_on_batch(pictures(4)), rtol=1e-4, atol=1e-6
    )


def test_the_network_given_is_not_changed():
    model = small_network(use_bias=True, scale=True)
    before = model.get_weights()
    for_inference(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def with_own_activation(x):
    return layers.BatchNormalization(name="norm")(layers.Conv2D(4, 1, activation="relu")(x))


def with_second_reader(x):
    convolved = layers.Conv2D(4, 1)(x)
    return layers.Add()([layers.BatchNormalization(name="norm")(convolved), convolved])


def with_second_reader_that_is_no_layer(x):
    convolved = layers.Conv2D(4, 1)(x)
    return layers.BatchNormalization(name="norm")(convolved) + convolved


def with_second_reader_that_reads_other_layers_first(x):
    relu, convolved = layers.ReLU(), layers.Conv2D(4, 1)(x)
    return layers.Concatenate()([relu(x), relu(convolved), layers.BatchNormalization(name="norm")(convolved)])


def with_convolution_used_twice(x):
    norm = layers.Conv2D(3, 1, name="norm")  # named as the fault to report
    return norm(layers.BatchNormalization()(norm(x)))


def with_norm_over_rows(x):
    return layers.BatchNormalization(axis=1, name="norm")(layers.Conv2D(4, 1)(x))


def with_norm_alone(x):
    return layers.BatchNormalization(name="norm")(x)


@pytest.mark.parametrize(
    "faulty",
    [
        with_own_activation,
        with_second_reader,
        with_second_reader_that_is_no_layer,
        with_second_reader_that_reads_other_layers_first,
        with_convolution_used_twice,
        with_norm_over_rows,
        with_norm_alone,
    ],
)
def test_a_norm_that_cannot_be_folded_is_refused_by_name(faulty):
    picture = keras.Input((12, 12, 3))
    with pytest.raises(ValueError, match=r"norm .*folded"):
        for_inference(keras.Model(picture, faulty(picture)))


def test_a_convolution_that_is_an_output_as_well_is_not_folded():
    picture = keras.Input((12, 12, 3))
    convolved = layers.Conv2D(4, 1)(picture)
    with pytest.raises(ValueError, match=r"norm .*folded"):
        for_inference(keras.Model(picture, [convolved, layers.BatchNormalization(name="norm")(convolved)]))


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float32"):
        for_inference(small_network(use_bias=True, scale=True), "float16")


@needs_bfloat16
def test_bfloat16_is_as_far_off_as_its_8_bits_allow_and_sums_in_float32():
    model = small_network(use_bias=True, scale=True)
    exact = for_inference(model).predict_on_batch(pictures(4))
    rounded = for_inference(model, "bfloat16").predict_on_batch(pictures(4))
    assert rounded.dtype == np.float32
    off = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-5 < off < 2**-7  # not float32 after all; but a rounding at each of the layers, not at each sum


@needs_bfloat16
def test_long_sums_do_not_stop_at_256_as_they_would_if_kept_in_bfloat16():
    picture = keras.Input((3, 3, 512))
    model = keras.Model(picture, layers.Conv2D(1, 3, kernel_initializer="ones", name="sum")(picture))
    total = for_inference(model, "bfloat16").predict_on_batch(np.ones((1, 3, 3, 512), np.float32))
    assert total.item() == 9 * 512

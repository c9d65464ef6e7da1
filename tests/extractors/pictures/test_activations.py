from __future__ import annotations

import keras
import numpy as np
import pytest

from extractors.pictures.activations import activation_statistics, plot_layer_statistics, rectified_layers


def network() -> keras.Model:
    picture = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, name="first", kernel_initializer=keras.initializers.GlorotUniform(seed=0))(picture)
    x = keras.layers.ReLU(name="first.relu")(x)
    x = keras.layers.Conv2D(4, 3, name="second", kernel_initializer=keras.initializers.GlorotUniform(seed=1))(x)
    x = keras.layers.Activation("relu", name="second_relu")(x)
    return keras.Model(picture, keras.layers.GlobalAveragePooling2D(name="pool")(x))


def test_statistics_are_those_of_the_outputs_themselves_over_all_batches():
    model = network()
    bias = np.zeros(4, np.float32)
    bias[2] = -100  # that channel never speaks
    model.get_layer("second").set_weights([model.get_layer("second").get_weights()[0], bias])
    inputs = np.random.default_rng(0).normal(size=(7, 8, 8, 3)).astype(np.float32)
    found = activation_statistics(model, [inputs[:4], inputs[4:]])
    assert [layer.layer for layer in found] == rectified_layers(model) == ["first.relu", "second_relu"]
    for layer in found:
        outputs = keras.Model(model.inputs, model.get_layer(layer.layer).output).predict(inputs, verbose=0)
        assert layer.mean == pytest.approx(outputs.mean(), rel=1e-5)
        assert layer.std == pytest.approx(outputs.std(), rel=1e-4)
        assert (layer.lowest, layer.highest) == (outputs.min(), outputs.max())
        assert layer.zeros == pytest.approx((outputs == 0).mean())
    assert [layer.dead_channels for layer in found] == [0, 1]
    strength, _ = plot_layer_statistics(found, "Layers").axes
    np.testing.assert_allclose(strength.lines[0].get_ydata(), [layer.mean for layer in found])


def test_nothing_to_look_at_is_refused():
    with pytest.raises(ValueError, match="no inputs"):
        activation_statistics(network(), [])

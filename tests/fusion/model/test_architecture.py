from __future__ import annotations

import keras
import pytest

from fusion import CompletePersonalityModel
from fusion.evaluation.baselines import mlp_network
from fusion.model.architecture import describe
from fusion.pictures.architectures import plot_architectures, plot_costs


def by_name(network) -> dict[str, int]:
    return {layer.name: layer.macs for layer in network.layers if layer.macs}


def test_work_of_small_layers_is_that_counted_by_hand():
    picture = keras.Input((10, 12, 3))
    x = keras.layers.Conv2D(8, (3, 5), strides=2, padding="valid", name="valid")(picture)  # 4 x 4 places
    x = keras.layers.Conv2D(6, 3, padding="same", name="same")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Flatten(name="flat")(x)
    network = describe(keras.Model(picture, keras.layers.Dense(7, name="dense")(x)), (1, 10, 12, 3))
    assert by_name(network) == {
        "valid": 4 * 4 * 8 * (3 * 5 * 3),
        "same": 4 * 4 * 6 * (3 * 3 * 8),
        "dense": 4 * 4 * 6 * 7,
    }
    norm = next(layer for layer in network.layers if layer.name == "norm")
    assert (norm.parameters, norm.trainable, norm.output_shape) == (24, 12, (1, 4, 4, 6))
    assert network.flops == 2 * network.macs


def test_work_grows_with_the_batch_and_in_three_dimensions():
    window = keras.Input((8, 6, 6, 2))
    model = keras.Model(window, keras.layers.Conv3D(5, (3, 1, 2), strides=(2, 1, 1), padding="same")(window))
    assert describe(model, (1, 8, 6, 6, 2)).macs == 4 * 6 * 6 * 5 * (3 * 1 * 2 * 2)
    assert describe(model, (3, 8, 6, 6, 2)).macs == 3 * describe(model, (1, 8, 6, 6, 2)).macs


def test_work_that_the_graph_hides_is_refused_and_not_passed_over():
    picture = keras.Input((4, 4, 4))
    grouped = keras.Model(picture, keras.layers.Conv2D(6, 3, groups=2)(picture))  # compiled by XLA on a CPU
    with pytest.raises(ValueError, match="PartitionedCall"):
        describe(grouped, (1, 4, 4, 4))


@pytest.mark.parametrize(
    ("dims", "parameters", "trainable"), [((512, 256), 371_717, 371_461), ((2048, 1024), 666_629, 666_373)]
)
def test_the_model_has_the_specified_parameters_each_in_one_layer(dims, parameters, trainable):
    network = describe(CompletePersonalityModel(*dims, form="vector"), *((1, dim) for dim in dims))
    assert (network.parameters, network.trainable) == (parameters, trainable)
    assert sum(layer.parameters for layer in network.layers) == parameters
    assert sum(layer.trainable for layer in network.layers) == trainable


def test_work_of_the_token_form_is_that_counted_by_hand():
    static, dynamic, width, heads = 5, 3, 128, 4
    network = describe(CompletePersonalityModel(2048, 1024), (1, static, 2048), (1, dynamic, 1024))
    attention = "cross_attention/attention"
    assert by_name(network) == {
        "cross_attention/static_projection": static * 2048 * width,
        "cross_attention/dynamic_projection": dynamic * 1024 * width,
        f"{attention}/query": static * width * width * heads,
        f"{attention}/key": dynamic * width * width * heads,
        f"{attention}/value": dynamic * width * width * heads,
        attention: 2 * heads * static * dynamic * width,  # scores, and values weighed by them
        f"{attention}/attention_output": static * width * width * heads,
        "head/hidden": width * 64,
        "head/scores": 64 * 5,
    }


def test_the_graph_of_the_model_is_two_branches_with_a_residual():
    network = describe(CompletePersonalityModel(64, 32), (1, 4, 64), (1, 2, 32))
    names = [block.name.rpartition("/")[2] for block in network.blocks]
    edges = {(names[source], names[goal]) for source, goal in network.edges}
    assert edges == {
        *(("input 1: 4 x 64", "static_projection"), ("input 2: 2 x 32", "dynamic_projection")),
        *(("static_projection", "attention"), ("dynamic_projection", "attention")),
        *(("static_projection", "add"), ("attention", "add"), ("add", "norm")),
        *(("norm", "batch_norm"), ("batch_norm", "hidden"), ("hidden", "scores")),
    }


def test_pictures_name_every_block_and_every_network():
    networks = {"model": describe(CompletePersonalityModel(64, 32), (1, 4, 64), (1, 2, 32))}
    networks["perceptron"] = describe(mlp_network(96), (1, 96))
    figure = plot_architectures(networks)
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.splitlines()[0] for title in titles] == ["model", "perceptron"]
    boxes = [text.get_text() for text in figure.axes[1].texts]
    assert "scores\n325 par., 320 mult." in boxes
    costs = plot_costs(["model", "perceptron"], {"parameters": [1.0, 2.0], "latency (ms)": [3.0, float("nan")]})
    assert len(costs.axes) == 2

"""The networks side by side: published counts, an independent count, and what a person gets."""

from __future__ import annotations

import json
import shutil

import pytest

from flows.evaluation.networks import ENTRIES
from fusion.model.architecture import Architecture, describe


@pytest.fixture(scope="module")
def built() -> dict:
    chosen = ("specified", "token_form", "static_only", "dynamic_only", "mlp_both", "resnet50", "i3d")
    return {name: ENTRIES[name].build() for name in chosen}


@pytest.fixture(scope="module")
def described(built) -> dict[str, Architecture]:
    return {name: describe(network, *ENTRIES[name].shapes) for name, network in built.items()}


def test_parameters_are_the_published_ones_and_all_are_in_layers(described):
    parameters = {name: network.parameters for name, network in described.items()}
    assert parameters == {
        "specified": 371_717,
        "token_form": 666_629,
        "static_only": 666_629,
        "dynamic_only": 666_629,
        "mlp_both": (3072 * 128 + 128) + (128 * 64 + 64) + (64 * 5 + 5),
        "resnet50": 23_587_712,  # keras.applications, without the head
        "i3d": 12_272_592,  # without the head
    }
    for network in described.values():
        assert sum(layer.parameters for layer in network.layers) == network.parameters


def test_parameters_of_i3d_are_the_numbers_in_deepminds_checkpoint(described, corpus, tmp_path):
    import tensorflow as tf

    index = corpus.parent / "assets" / "i3d_flow_imagenet.ckpt.index"
    if not index.is_file():
        pytest.skip("no index of DeepMind's checkpoint")
    shutil.copy(index, tmp_path / "model.ckpt.index")
    sizes = {
        name: tf.TensorShape(shape).num_elements()
        for name, shape in tf.train.list_variables(str(tmp_path / "model.ckpt"))
    }
    head = sum(size for name, size in sizes.items() if "Logits" in name)
    assert described["i3d"].parameters == sum(sizes.values()) - head


def test_work_of_resnet50_is_he_and_others_3_86_billion_less_the_head(described):
    # Summed from table 1 of He et al. with the strides of their own first code, as keras.applications has them.
    def block(side: int, inside: int, before: int, stride: int) -> int:
        places = side * side
        first = places * (before * inside + 9 * inside * inside + inside * 4 * inside)
        return first + (places * before * 4 * inside if before != 4 * inside or stride > 1 else 0)

    total = 112 * 112 * 7 * 7 * 3 * 64
    for side, inside, blocks, before in ((56, 64, 3, 64), (28, 128, 4, 256), (14, 256, 6, 512), (7, 512, 3, 1024)):
        total += block(side, inside, before, 2 if side < 56 else 1)
        total += (blocks - 1) * block(side, inside, 4 * inside, 1)
    assert described["resnet50"].macs == total == pytest.approx(3.86e9, rel=0.002)


@pytest.mark.parametrize("name", ["resnet50", pytest.param("i3d", marks=pytest.mark.slow)])
def test_work_is_what_tensorflows_profiler_counts(built, described, name):
    import tensorflow as tf
    from tensorflow.python.profiler import model_analyzer, option_builder

    model, shapes = built[name], ENTRIES[name].shapes
    forward = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec(shapes[0]))
    options = option_builder.ProfileOptionBuilder(option_builder.ProfileOptionBuilder.float_operation())
    options = options.with_empty_output().with_node_names(show_name_regexes=[".*"]).build()
    counted = model_analyzer.profile(forward.graph, options=options).total_float_ops
    # it counts norms and additions too, some 1% more, and knows no 3-D pools
    assert described[name].flops < counted < 1.03 * described[name].flops


def test_the_graph_of_resnet50_is_its_stages_in_a_row(described):
    network = described["resnet50"]
    names = [block.name for block in network.blocks]
    assert names[-5:] == ["conv2", "conv3", "conv4", "conv5", "avg_pool"]
    assert network.edges == tuple((at, at + 1) for at in range(len(names) - 1))


@pytest.mark.slow
def test_a_person_gets_a_table_pictures_and_all_figures(traitline, tmp_path):
    out = tmp_path / "out"
    done = traitline("compare", "mlp_both", "--layers", "--no-measure", "--out", out, "--format", "svg")
    assert done.returncode == 0, done.stderr
    assert "401,925" in done.stdout
    assert "393,216" in done.stdout  # the first layer's work
    assert "oneDNN" not in done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["compare.json", "costs.svg", "graphs.svg"]
    assert json.loads((out / "compare.json").read_text())["mlp_both"]["macs"] == 401_728


@pytest.mark.slow
def test_a_network_with_more_to_hold_and_to_do_takes_more_memory_and_time(traitline, tmp_path):
    done = traitline("compare", "mlp_both", "resnet50", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "compare.json").read_text())
    small, large = records["mlp_both"], records["resnet50"]
    assert 4 * small["parameters"] / 1e6 < small["peak_mb"] < 100
    assert 4 * large["parameters"] / 1e6 < large["peak_mb"] < 1500
    assert large["latency_ms"] > 3 * small["latency_ms"] > 0


def test_an_unknown_network_is_one_line(traitline):
    done = traitline("compare", "resnet51")
    assert done.returncode == 1
    assert all(name in done.stderr for name in ("resnet51", *ENTRIES)), done.stderr
    assert len(done.stderr.splitlines()) == 1

"""Networks in users' own files: the numbers they give, what is read from the files, and which are refused."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import onnx
import pytest
from drawn_networks import motion_network, onnx_model, patch_network, patch_vectors
from onnx import TensorProto, helper
from pydantic import ValidationError
from watched_files import opened

from extractors.assets.files import AssetError
from extractors.dynamic.backbones import dynamic_backbone
from extractors.dynamic.settings import DynamicSettings
from extractors.networks.preprocessing import preprocess
from extractors.static.backbones import static_backbone
from extractors.static.settings import StaticSettings


def static(path, **settings):
    settings = {"preprocessing": "0-1", **settings}
    return static_backbone(StaticSettings(base_model=str(path), **settings), "random")


def dynamic(path, fields=8, **settings):
    return dynamic_backbone(DynamicSettings(base_model=str(path), **settings), "random", fields)


def crops(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def halved(pictures: np.ndarray) -> np.ndarray:
    """Means of squares of four, rounded as pictures are."""
    squares = pictures.reshape(len(pictures), 112, 2, 112, 2, 3).mean(axis=(2, 4))
    return np.floor(squares + 0.5).astype(np.uint8)


@pytest.mark.parametrize("preprocessing", ["imagenet-torch", "imagenet-caffe", "minus1-1"])
@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("side", [112, 224, "free"])
def test_vectors_of_an_onnx_file_are_those_worked_out_in_numpy(tmp_path, preprocessing, channels, side):
    kernel, offset = patch_network(tmp_path / "net.onnx", side=side, channels=channels)
    found = static(tmp_path / "net.onnx", preprocessing=preprocessing)
    assert (found.name, found.dim) == ("net.onnx", 8)
    images = crops()
    seen = halved(images) if side == 112 else images
    expected = patch_vectors(preprocess(seen, preprocessing), kernel, offset)
    vectors = found.build().extract(images)
    assert vectors.dtype == np.float32
    # OpenCV rounds halves of four to either side.
    np.testing.assert_allclose(vectors, expected, rtol=2e-3, atol=2e-3 * expected.std())


def test_the_side_of_a_file_that_takes_any_can_be_chosen(tmp_path):
    kernel, offset = patch_network(tmp_path / "net.onnx", side="S")
    found = static(tmp_path / "net.onnx", input_side=112)
    expected = patch_vectors(preprocess(halved(crops()), "0-1"), kernel, offset)
    np.testing.assert_allclose(found.build().extract(crops()), expected, rtol=2e-3, atol=2e-3)


def keras_network() -> keras.Model:
    """Layers and operations as users have them, a network within a network among them."""
    block_in = keras.Input((28, 28, 4))
    block = keras.Model(block_in, keras.layers.BatchNormalization()(keras.layers.Conv2D(6, 3)(block_in)), name="block")
    picture = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 8, strides=8, activation="gelu")(picture)
    x = keras.layers.Resizing(28, 28)(x)
    x = block(x) * 2.0 + 1.0
    return keras.Model(picture, keras.layers.GlobalAveragePooling2D(name="vector")(x))


def test_vectors_of_a_keras_file_are_those_of_the_network_that_was_saved(tmp_path):
    network = keras_network()
    network.compile("adam", "mse")
    network.save(tmp_path / "net.keras")
    found = static(tmp_path / "net.keras", preprocessing="imagenet-torch")
    assert (found.name, found.dim) == ("net.keras", 6)
    expected = np.asarray(network(preprocess(crops(), "imagenet-torch"), training=False))
    np.testing.assert_allclose(found.build().extract(crops()), expected, rtol=1e-5, atol=1e-5)


def test_vectors_are_the_same_bits_beside_any_neighbours(tmp_path):
    patch_network(tmp_path / "net.onnx")
    keras_network().save(tmp_path / "net.keras")
    for name in ("net.onnx", "net.keras"):
        network = static(tmp_path / name).build()
        whole = network.extract(crops(5))
        np.testing.assert_array_equal(network.extract(crops(5)[::-1])[::-1], whole)
        np.testing.assert_array_equal(
            np.concatenate([network.extract(crops(5)[row : row + 1]) for row in range(5)]), whole
        )
        assert network.extract(crops(0)).shape == (0, whole.shape[1])


@pytest.mark.parametrize("components", ["first", "last"])
@pytest.mark.parametrize("fields", [8, "T"])
def test_a_network_for_motion_sees_the_fields_as_they_are(tmp_path, components, fields):
    motion_network(tmp_path / "net.onnx", components=components, fields=fields)
    found = dynamic(tmp_path / "net.onnx")
    assert found.dim == 4
    windows = np.random.default_rng(0).uniform(-1, 1, (2, 8, 224, 224, 2)).astype(np.float32)
    windows[..., 0] *= 0.5
    means, powers = (values.mean(axis=(1, 2, 3), dtype=np.float64) for values in (windows, windows**2))
    expected = np.concatenate([means, powers], axis=1)
    np.testing.assert_allclose(found.build().extract(windows), expected, atol=1e-4)


def test_a_keras_file_for_motion_is_run(tmp_path):
    window = keras.Input((8, 224, 224, 2))
    keras.Model(window, keras.layers.GlobalAveragePooling3D()(window)).save(tmp_path / "net.keras")
    windows = np.random.default_rng(0).uniform(-1, 1, (2, 8, 224, 224, 2)).astype(np.float32)
    found = dynamic(tmp_path / "net.keras").build().extract(windows)
    np.testing.assert_allclose(found, windows.mean(axis=(1, 2, 3)), atol=1e-4)


def test_what_changes_the_numbers_changes_the_key_and_a_name_does_not(tmp_path):
    patch_network(tmp_path / "net.onnx", side="S")
    shutil.copy(tmp_path / "net.onnx", tmp_path / "same.onnx")
    patch_network(tmp_path / "other.onnx", side="S", seed=1)
    first = static(tmp_path / "net.onnx").numerics
    assert first == static(tmp_path / "same.onnx").numerics
    assert first == static(tmp_path / "net.onnx", output="vector", output_dim=8, batch_size=3).numerics
    others = [
        static(tmp_path / "other.onnx").numerics,
        static(tmp_path / "net.onnx", preprocessing="minus1-1").numerics,
        static(tmp_path / "net.onnx", input_side=112).numerics,
    ]
    assert len({json.dumps(numerics, sort_keys=True) for numerics in (first, *others)}) == 4
    before = static(tmp_path / "net.onnx")
    assert before.numerics == first
    shutil.copy(tmp_path / "other.onnx", tmp_path / "net.onnx")  # read again because it has changed
    assert static(tmp_path / "net.onnx").numerics == others[0]


def two_outputs(path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["pooled"]),
        helper.make_node("Relu", ["picture"], ["maps"]),
        helper.make_node("Flatten", ["pooled"], ["vector"]),
    ]
    outputs = {"maps": ["N", 3, 64, 64], "pooled": ["N", 3, 1, 1], "vector": ["N", 3]}
    onnx.save(onnx_model(nodes, {"picture": ["N", 3, 64, 64]}, outputs, {}), path)


def test_one_of_several_outputs_must_be_chosen_and_must_be_a_vector(tmp_path):
    two_outputs(tmp_path / "net.onnx")
    with pytest.raises(AssetError, match=r"choose one with static\.output: maps \[N, 3, 64, 64\], pooled .*, vector"):
        static(tmp_path / "net.onnx").fetch()
    with pytest.raises(AssetError, match=r"maps is \[N, 3, 64, 64\], not a vector"):
        static(tmp_path / "net.onnx", output="maps").fetch()
    with pytest.raises(AssetError, match=r"no output 'logits'.*maps"):
        static(tmp_path / "net.onnx", output="logits").fetch()
    pooled, vector = (static(tmp_path / "net.onnx", output=name) for name in ("pooled", "vector"))
    assert pooled.dim == vector.dim == 3
    assert pooled.numerics != vector.numerics
    np.testing.assert_array_equal(pooled.build().extract(crops()), vector.build().extract(crops()))


def test_one_of_several_outputs_of_a_keras_file_can_be_chosen(tmp_path):
    picture = keras.Input((32, 32, 3))
    outputs = [keras.layers.GlobalAveragePooling2D(name="mean")(picture), keras.layers.Flatten(name="all")(picture)]
    keras.Model(picture, outputs).save(tmp_path / "net.keras")
    with pytest.raises(AssetError, match=r"mean \[N, 3\], all \[N, 3072\]"):
        static(tmp_path / "net.keras").fetch()
    assert static(tmp_path / "net.keras", output="all").build().extract(crops()).shape == (3, 3072)


REFUSED_SHAPES = {
    "no colours": (["N", 1, 64, 64], "3 colours"),
    "not square": (["N", 3, 64, 96], "square"),
    "a batch of eight": ([8, 3, 64, 64], "N free or 1"),
    "a window": (["N", 3, 4, 64, 64], "one picture"),
    "all free": (["N", "a", "b", "c"], "3 colours"),
}


@pytest.mark.parametrize("name", REFUSED_SHAPES)
def test_an_input_that_is_no_face_crop_is_refused_by_its_shape(tmp_path, name):
    shape, reason = REFUSED_SHAPES[name]
    nodes = [helper.make_node("Flatten", ["picture"], ["vector"])]
    onnx.save(onnx_model(nodes, {"picture": shape}, {"vector": ["N", 8]}, {}), tmp_path / "net.onnx")
    with pytest.raises(AssetError, match=reason):
        static(tmp_path / "net.onnx").fetch()


def test_windows_of_other_lengths_and_sides_are_refused(tmp_path):
    motion_network(tmp_path / "long.onnx", fields=16)
    with pytest.raises(AssetError, match=r"crops\.window_fields"):
        dynamic(tmp_path / "long.onnx").fetch()
    motion_network(tmp_path / "small.onnx", sides=112)
    with pytest.raises(AssetError, match="224 x 224"):
        dynamic(tmp_path / "small.onnx").fetch()
    patch_network(tmp_path / "faces.onnx")
    with pytest.raises(AssetError, match="one window"):
        dynamic(tmp_path / "faces.onnx").fetch()


def test_another_dimension_than_the_stated_one_is_refused(tmp_path):
    patch_network(tmp_path / "net.onnx")
    with pytest.raises(AssetError, match=r"has 8 numbers, not static\.output_dim 512"):
        static(tmp_path / "net.onnx", output_dim=512).fetch()


def damaged_onnx(tmp_path):
    """Yield the reason and the bytes of each."""
    patch_network(tmp_path / "good.onnx")
    good = (tmp_path / "good.onnx").read_bytes()
    yield "not an ONNX model", b"no network"
    yield "not an ONNX model", b""
    yield "not an ONNX model", good[: len(good) // 2]
    model = onnx.load_model_from_string(good)
    model.graph.node[0].op_type = "Python"
    yield "Python", model.SerializeToString()
    model = onnx.load_model_from_string(good)
    model.graph.node[0].domain = "elsewhere"
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    yield "does not accept it", model.SerializeToString()
    model = onnx.load_model_from_string(good)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    yield "uint8, not float32", model.SerializeToString()
    model = onnx.load_model_from_string(good)
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, ["N", 2]))
    yield "one input", model.SerializeToString()


def test_files_that_are_no_usable_onnx_networks_are_refused_in_one_line(tmp_path):
    for reason, data in damaged_onnx(tmp_path):
        path = tmp_path / "net.onnx"
        path.write_bytes(data)
        with pytest.raises(AssetError, match=reason) as refused:
            static(path).build()
        assert "net.onnx" in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("where", ["weights", "constant", "branch"])
def test_weights_in_other_files_are_refused_and_those_files_not_opened(tmp_path, where):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(8 * 3 * 16 * 16 * 4))
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "net.onnx"
    patch_network(path)
    model = onnx.load(path)
    stored = model.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    stored.external_data.add(key="location", value="../secret.bin")
    if where != "weights":
        constant = helper.make_node("Constant", [], ["kernel"], value=stored)
        if where == "branch":
            kernel = helper.make_tensor_value_info("kernel", TensorProto.FLOAT, [8, 3, 16, 16])
            branch = helper.make_graph([constant], "branch", [], [kernel])
            true = helper.make_tensor("true", TensorProto.BOOL, [], [1])
            model.graph.node.insert(0, helper.make_node("Constant", [], ["always"], value=true))
            constant = helper.make_node("If", ["always"], ["kernel"], then_branch=branch, else_branch=branch)
        model.graph.node.insert(len(model.graph.node) - 4, constant)
        del model.graph.initializer[0]
    path.write_bytes(model.SerializeToString())
    with opened(secret) as reads, pytest.raises(AssetError, match=r"another file.*secret\.bin"):
        static(path).build()
    assert reads == [0]


def rewritten(good: bytes, change) -> bytes:
    """Return a .keras file with another config.json."""
    goal = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as archive, zipfile.ZipFile(goal, "w") as copy:
        for member in archive.infolist():
            data = archive.read(member)
            if member.filename == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            copy.writestr(member.filename, data)
    return goal.getvalue()


def hostile_configs(ran):
    """Changes of a config.json that would run code, read files or take all memory."""

    def layer(config):
        return config["config"]["layers"][1]

    def as_lambda(config):
        layer(config).update(class_name="Lambda")
        layer(config)["config"] = {"name": "x", "function": {"class_name": "__lambda__", "config": {"value": "a"}}}

    def as_function(config):
        layer(config)["config"]["activation"] = {
            "module": "builtins",
            "class_name": "function",
            "config": "eval",
            "registered_name": "eval",
        }

    def as_download(config):
        layer(config)["config"]["kernel_initializer"] = {
            "module": "keras.utils",
            "class_name": "get_file",
            "config": {"fname": str(ran), "origin": "file:///etc/passwd"},
            "registered_name": None,
        }

    def as_module(config):
        layer(config).update(module="os", class_name="system")

    def as_lookup(config):
        layer(config).update(class_name="StringLookup")
        layer(config)["config"] = {"vocabulary": "/etc/passwd"}

    def as_saved_model(config):
        layer(config).update(class_name="TFSMLayer")

    def as_own_class(config):
        config.update(module="somewhere", class_name="Mine", registered_name="mine>Mine")

    def as_registered(config):
        layer(config)["registered_name"] = "traitline>CompletePersonalityModel"

    def as_huge(config):
        layer(config)["config"]["filters"] = 2**40

    def as_compiled(config):
        config["compile_config"] = {"optimizer": {"module": "os", "class_name": "system", "config": {}}}

    return [
        (as_lambda, "Lambda"),
        (as_function, "function"),
        (as_download, "get_file"),
        (as_module, "system"),
        (as_lookup, "StringLookup"),
        (as_saved_model, "TFSMLayer"),
        (as_own_class, "functional"),
        (as_registered, "registered elsewhere"),
        (as_huge, "weights, and holds|does not accept"),
        (as_compiled, None),
    ]


def test_keras_files_with_anything_but_plain_layers_are_refused_and_run_nothing(tmp_path):
    picture = keras.Input((64, 64, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(picture))
    keras.Model(picture, pooled).save(tmp_path / "good.keras")
    good = (tmp_path / "good.keras").read_bytes()
    ran = tmp_path / "ran"
    path = tmp_path / "net.keras"
    for change, reason in hostile_configs(ran):
        path.write_bytes(rewritten(good, change))
        if reason is None:  # what compiled the network is left out
            assert static(path).build().extract(crops()).shape == (3, 4)
            continue
        with pytest.raises(AssetError, match=reason) as refused:
            static(path).build()
        assert "\n" not in str(refused.value), change.__name__
    assert not ran.exists()
    with (
        keras.StatelessScope()
    ):  # Keras now makes the variables that it was left with: terabytes, were it the huge ones
        pass


def test_files_that_are_no_usable_keras_networks_are_refused(tmp_path):
    picture = keras.Input((64, 64, 3))
    network = keras.Model(picture, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(picture)))
    network.save(tmp_path / "good.keras")
    good = (tmp_path / "good.keras").read_bytes()
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.zeros(4, np.float32)
    weights = tmp_path / "model.weights.h5"
    weights.write_bytes(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        del file["layers/conv2d/vars/1"]
        file["layers/conv2d/vars/1"] = h5py.ExternalLink(str(secret), "data")

    def packed(compression=zipfile.ZIP_STORED, **changes) -> bytes:
        goal = io.BytesIO()
        with zipfile.ZipFile(goal, "w", compression) as archive:
            for name, data in (members | changes).items():
                if data is not None:
                    archive.writestr(name, data)
        return goal.getvalue()

    less = tmp_path / "less.weights.h5"
    less.write_bytes(members["model.weights.h5"])
    with h5py.File(less, "r+") as file:
        file.move("layers/conv2d", "layers/elsewhere")
    cases = {
        "lacks the weights|does not accept": packed(**{"model.weights.h5": less.read_bytes()}),
        "damaged": b"no network",
        "must hold": packed(**{"config.json": None, "../../evil.txt": b"x"}),
        "config.json has more than": packed(zipfile.ZIP_DEFLATED, **{"config.json": bytes(2**24 + 1)}),
        "weights.h5 has more than": packed(zipfile.ZIP_DEFLATED, **{"model.weights.h5": bytes(2**24)}),
        "is not JSON": packed(**{"config.json": b"{"}),
        "functional": packed(**{"config.json": b"[]"}),
        "does not accept": packed(**{"model.weights.h5": weights.read_bytes()}),
    }
    path = tmp_path / "net.keras"
    for reason, data in cases.items():
        path.write_bytes(data)
        with opened(secret) as reads, pytest.raises(AssetError, match=reason):
            static(path).build()
        assert reads == [0], reason
    assert not (tmp_path.parent / "evil.txt").exists()


def test_a_network_that_is_not_there_or_gives_no_numbers_is_named(tmp_path):
    with pytest.raises(AssetError, match=r"cannot read the network .*absent\.onnx"):
        static(tmp_path / "absent.onnx").fetch()
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Sub", ["flat", "flat"], ["zero"]),
        helper.make_node("Div", ["flat", "zero"], ["vector"]),
    ]
    onnx.save(onnx_model(nodes, {"picture": ["N", 3, 64, 64]}, {"vector": ["N", 3]}, {}), tmp_path / "net.onnx")
    with pytest.raises(AssetError, match=r"net\.onnx gives NaN or infinity for a face crop"):
        static(tmp_path / "net.onnx").build().extract(crops())


def test_a_file_that_changes_between_key_and_use_is_refused(tmp_path, monkeypatch):
    patch_network(tmp_path / "net.onnx")
    found = static(tmp_path / "net.onnx")
    _ = found.numerics
    data = (tmp_path / "net.onnx").read_bytes()
    monkeypatch.setattr("extractors.networks.network_file._bytes_of", lambda path: data + b"\x00")
    with pytest.raises(AssetError, match="has changed"):
        found.build()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"base_model": "net.onnx"}, "preprocessing must say"),
        ({"base_model": "resnet5"}, "neither a file.*did you mean resnet50"),
        ({"base_model": "net.pt"}, "neither a file.*there are resnet50, resnet101"),
        ({"preprocessing": "0-1"}, "for networks in files"),
        ({"input_side": 112}, "for networks in files"),
        ({"output_dim": 512}, "2048 numbers"),
        ({"base_model": "net.onnx", "preprocessing": "0-1", "precision": "bfloat16"}, "resnet50 alone"),
        ({"base_model": "net.onnx", "preprocessing": "0-1", "weights": "faces-1"}, "has its own"),
        ({"base_model": "resnet101", "weights": "faces-1"}, r"\.weights\.h5"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        StaticSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"base_model": "slowfast"}, "neither a file"),
        ({"output": "vector"}, "for networks in files"),
        ({"output_dim": 512}, "1024 numbers"),
        ({"base_model": "net.onnx", "precision": "bfloat16"}, "i3d alone"),
    ],
)
def test_settings_for_motion_that_contradict_each_other_are_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        DynamicSettings(**settings)


def test_the_known_networks_state_their_dimensions():
    assert StaticSettings().output_dim == 2048
    assert DynamicSettings().output_dim == 1024
    assert StaticSettings(base_model="densenet121").output_dim == 1024

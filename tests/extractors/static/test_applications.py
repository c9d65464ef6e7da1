"""The other networks of keras.applications: the table beside Keras itself, and two of them at work."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from extractors.assets.files import AssetError
from extractors.networks.preprocessing import preprocess
from extractors.static.applications import APPLICATIONS, SOURCE
from extractors.static.backbones import static_backbone
from extractors.static.settings import StaticSettings


def backbone(name: str, weights="random", seed: int = 0, **settings):
    return static_backbone(StaticSettings(base_model=name, **settings), weights, seed)


def crops(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def small():
    """The smallest of the networks, with random weights of seed 5."""
    return backbone("mobilenetv3small", seed=5).build()


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_table_says_what_keras_says(name):
    known = APPLICATIONS[name]
    assert known.constructor.lower() == name
    module = inspect.getmodule(getattr(keras.applications, known.constructor))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 2, 3), dtype=np.uint8)
    expected = module.preprocess_input(pixels.astype(np.float32))
    np.testing.assert_allclose(preprocess(pixels, known.preprocessing), np.asarray(expected), rtol=1e-5, atol=1e-4)
    sources = inspect.getsource(module)
    if module.__name__.endswith("resnet_v2"):  # its digests lie there
        sources += inspect.getsource(keras.src.applications.resnet)
    assert f'"{known.digest.partition(":")[2]}"' in sources


class AskedError(Exception):
    """Instead of a download."""


@pytest.mark.parametrize("name", ["efficientnetv2b0", "mobilenetv3small"])
def test_keras_looks_for_the_weights_where_they_are_fetched_to(name, monkeypatch):
    asked = []

    def get_file(file_name, origin, *, cache_subdir, file_hash, hash_algorithm="auto", **_):
        asked.append((file_name, origin, cache_subdir, file_hash))
        raise AskedError

    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", get_file)
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(AskedError):
        getattr(keras.applications, APPLICATIONS[name].constructor)(weights="imagenet", include_top=False)
    with pytest.raises(AssetError):
        backbone(name, "pretrained").fetch()
    assert asked[0] == asked[1]
    assert asked[0][1].startswith(SOURCE)


@pytest.mark.parametrize("name", ["mobilenetv3small", "densenet121"])
def test_vectors_are_the_pooled_outputs_of_the_network(name):
    found = backbone(name)
    network = found.build()
    vectors = network.extract(crops())
    assert vectors.shape == (3, found.dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == 3
    expected = network.model(preprocess(crops(), APPLICATIONS[name].preprocessing), training=False)
    np.testing.assert_allclose(vectors, np.asarray(expected), rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(network.extract(crops()[::-1])[::-1], vectors)
    assert network.extract(crops(0)).shape == (0, found.dim)


def test_random_weights_depend_on_the_seed_alone(small):
    again, other = (backbone("mobilenetv3small", seed=seed).build().extract(crops(1)) for seed in (5, 1))
    np.testing.assert_array_equal(small.extract(crops(1)), again)
    assert not np.allclose(again, other)


def test_weights_of_ones_own_are_used_and_are_in_the_key(small, tmp_path):
    path = tmp_path / "mine.weights.h5"
    small.model.save_weights(path)
    own = static_backbone(StaticSettings(base_model="mobilenetv3small", weights=str(path)), "pretrained")
    np.testing.assert_allclose(own.build().extract(crops()), small.extract(crops()), rtol=1e-3, atol=1e-4)
    assert own.numerics["digest"].startswith("sha256:")
    path.write_bytes(b"no weights")
    damaged = static_backbone(StaticSettings(base_model="mobilenetv3small", weights=str(path)), "pretrained")
    assert damaged.numerics != own.numerics
    with pytest.raises(AssetError, match="holds no weights of mobilenetv3small"):
        damaged.build()
    path.unlink()
    with pytest.raises(AssetError, match="cannot read the weights"):
        static_backbone(StaticSettings(base_model="mobilenetv3small", weights=str(path)), "pretrained").fetch()


def test_weights_that_cannot_be_had_are_one_line_that_says_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing is to be had
    monkeypatch.setattr(keras.src.utils.file_utils.config, "keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(AssetError, match=r"vgg16 .*put vgg16_weights.*notop\.h5 into .*models") as refused:
        backbone("vgg16", "pretrained").build()
    assert "\n" not in str(refused.value)
    assert str(tmp_path / "models") in str(refused.value)


def test_each_network_each_weights_and_each_seed_has_a_key_of_its_own():
    keys = [
        str(backbone(name, weights, seed).numerics)
        for name in ("resnet101", "vgg16")
        for weights, seed in (("pretrained", 0), ("random", 0), ("random", 1))
    ]
    assert len(set(keys)) == 6
    assert backbone("vgg16", "pretrained", seed=1).numerics == backbone("vgg16", "pretrained").numerics

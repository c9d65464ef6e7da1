from __future__ import annotations

import shutil

import cv2
import h5py
import keras
import numpy as np
import pytest
from watched_files import opened

from extractors.assets.files import AssetError
from extractors.errors import DeviceError
from extractors.networks.inference import for_inference
from extractors.static.extractor import StaticFeatureExtractor


@pytest.fixture
def extractor(resnet_extractor) -> StaticFeatureExtractor:
    return resnet_extractor


@pytest.fixture(scope="module")
def seed_8() -> tuple[StaticFeatureExtractor, np.ndarray]:
    """Another network, and its features of a crop."""
    network = StaticFeatureExtractor("random", seed=8)
    return network, network(crops(1))


@pytest.fixture
def other(seed_8) -> StaticFeatureExtractor:
    """A network into which tests may load any weights."""
    return seed_8[0]


@pytest.fixture(scope="module")
def reference() -> keras.Model:
    return keras.applications.ResNet50(include_top=False, weights=None, pooling="avg")


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def test_features_are_those_of_keras_applications_with_caffe_preprocessing(extractor, reference):
    """Preprocessing is worked out here by hand: BGR, minus the ImageNet means of the Caffe release."""
    images = crops(2)
    reference.set_weights(extractor.model.get_weights())
    prepared = images[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    expected = np.asarray(reference(prepared, training=False))
    np.testing.assert_allclose(extractor.extract(images), expected, rtol=1e-3, atol=1e-3 * expected.std())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_are_the_same_bits_in_batches_of_any_size_and_beside_any_neighbours(extractor, precision, monkeypatch):
    if precision != extractor.precision:
        try:
            extractor = StaticFeatureExtractor("random", precision=precision)
        except DeviceError as error:
            pytest.skip(str(error))
    images = crops(3)
    monkeypatch.setattr(extractor, "batch_size", 1)
    expected = extractor.extract(images)
    for batch_size in (2, 16):  # of 3 crops the last batch has 1 and 3
        monkeypatch.setattr(extractor, "batch_size", batch_size)
        np.testing.assert_array_equal(extractor.extract(images), expected)
    np.testing.assert_array_equal(extractor.extract(images[::-1]), expected[::-1])


def test_preprocessing_is_the_one_of_keras_applications(extractor):
    images = crops(2)
    prepared = keras.applications.resnet50.preprocess_input(images.astype(np.float32))
    expected = extractor.model.predict_on_batch(prepared)
    np.testing.assert_allclose(extractor.extract(images), expected, rtol=0, atol=1e-5 * expected.max())


def test_layers_have_the_names_of_keras_applications_and_extraction_keeps_all_but_the_norms(extractor, reference):
    names = [layer.name for layer in reference.layers]
    # Input layers and pooling without a fixed name are counted through the process.
    assert [layer.name for layer in extractor.model.layers][1:-1] == names[1:-1]
    folded = [layer.name for layer in for_inference(extractor.model).layers]
    assert folded[1:-1] == [name for name in names[1:-1] if not name.endswith("_bn")]


def test_random_weights_know_a_photograph_again_among_others_of_the_same_people(extractor, corpus):
    """Even an untrained network is no constant: of eleven photographs of three people, it finds each one's copy, moved
    by a pixel and compressed again, closest to it, and far closer than the others are to each other."""
    images = np.stack(
        [cv2.resize(cv2.imread(str(path))[..., ::-1], (224, 224)) for path in sorted(corpus.glob("stills/*/*"))[::3]]
    )
    copies = []
    for image in images:
        _, data = cv2.imencode(".jpg", np.roll(image, 1, axis=1), [cv2.IMWRITE_JPEG_QUALITY, 80])
        copies.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
    features, again = extractor.extract(images), extractor.extract(np.stack(copies))
    distances = np.linalg.norm(features[:, None] - again, axis=-1)
    assert distances.argmin(axis=1).tolist() == list(range(11))
    others = distances[~np.eye(11, dtype=bool)]
    assert np.diag(distances).max() < 0.3 * np.median(others)


def test_the_first_four_convolutional_layers_are_frozen_by_default(extractor):
    convolutions = [layer for layer in extractor.model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 53
    frozen = [layer.name for layer in convolutions if not layer.trainable]
    first_block = [f"conv2_block1_{part}_conv" for part in (1, 2, 0)]  # 0: the projection beside the block
    assert frozen == ["conv1_conv", *first_block]


def test_the_same_seed_gives_the_same_network_and_another_seed_another_one(extractor, seed_8):
    image = crops(1)
    np.testing.assert_array_equal(StaticFeatureExtractor("random", seed=3)(image), extractor(image))
    assert not np.allclose(seed_8[1], extractor(image))


def test_saved_weights_give_the_same_features_in_another_extractor(extractor, other, tmp_path):
    extractor.model.save_weights(tmp_path / "resnet.weights.h5")
    other.load_weights(tmp_path / "resnet.weights.h5")
    np.testing.assert_array_equal(other(crops(2)), extractor(crops(2)))


def test_a_file_in_the_format_of_keras_applications_is_loaded(extractor, other, tmp_path):
    """The published file is of Keras 2: groups by layer, listed in attributes. Here it is written with h5py."""
    with h5py.File(tmp_path / "published.h5", "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in extractor.model.layers]
        file.attrs["keras_version"], file.attrs["backend"] = b"2.1.0", b"tensorflow"
        for layer in extractor.model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = np.asarray(weight)
    other.load_weights(tmp_path / "published.h5")
    np.testing.assert_array_equal(other(crops(2)), extractor(crops(2)))


def test_a_file_that_holds_other_weights_is_refused_by_its_name(other, tmp_path):
    picture = keras.Input((8, 8, 3))
    keras.Model(picture, keras.layers.Conv2D(2, 3)(picture)).save_weights(tmp_path / "small.weights.h5")
    (tmp_path / "text.weights.h5").write_text("no weights")
    for name in ("small", "text", "absent"):
        with pytest.raises(AssetError, match=f"{name}.weights.h5"):
            other.load_weights(tmp_path / f"{name}.weights.h5")


def test_changed_weights_count_once_they_are_refreshed(other):
    before = other(crops(2))
    kernel = other.model.get_layer("conv1_conv").kernel
    kernel.assign(-kernel)
    np.testing.assert_array_equal(other(crops(2)), before)
    other.refresh()
    assert not np.allclose(other(crops(2)), before)


def test_no_crops_give_no_features(extractor):
    assert extractor.extract(crops(0)).shape == (0, 2048)


@pytest.mark.parametrize("images", [np.zeros((1, 224, 224, 3), np.float32), np.zeros((1, 128, 128, 3), np.uint8)])
def test_arrays_that_are_no_face_crops_are_refused(extractor, images):
    with pytest.raises(ValueError, match="uint8"):
        extractor.extract(images)


def test_pretrained_weights_that_are_not_in_the_given_folder_are_an_error_and_not_random_ones(tmp_path):
    with pytest.raises(AssetError, match="resnet50"):
        StaticFeatureExtractor("pretrained", asset_folder=tmp_path)


def test_weights_that_lie_in_other_files_are_refused_and_those_files_not_opened(other, tmp_path):
    """A fine-tuned network is a folder that people copy; its digest says only that it is what somebody made."""
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.zeros(64, np.float32)
    good, path = tmp_path / "good.weights.h5", "layers/conv2d/vars/1"
    other.model.save_weights(good)

    def external(file):
        file.create_dataset(path, (64,), "float32", external=[(str(secret), 0, 256)])

    def virtual(file):
        layout = h5py.VirtualLayout((64,), "float32")
        layout[:] = h5py.VirtualSource(str(secret), "data", (64,))
        file.create_virtual_dataset(path, layout)

    attacks = {
        "external link": lambda file: file.__setitem__(path, h5py.ExternalLink(str(secret), "data")),
        "link of a group": lambda file: file.__setitem__("layers/conv2d", h5py.ExternalLink(str(secret), "/")),
        "external storage": external,
        "virtual array": virtual,
        "claimed and never written": lambda file: file.create_dataset(path, (10**12,), "float32", chunks=(1000,)),
        "texts": lambda file: file.create_dataset(path, data=np.array([b"x"] * 64, object), dtype=h5py.string_dtype()),
    }
    hostile = tmp_path / "hostile.weights.h5"
    for name, attack in attacks.items():
        shutil.copy(good, hostile)
        with h5py.File(hostile, "r+") as file:
            del file["layers/conv2d" if name == "link of a group" else path]
            attack(file)
        with opened(secret) as reads, pytest.raises(AssetError, match=hostile.name):
            other.load_weights(hostile)
        assert reads == [0], name

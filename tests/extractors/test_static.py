from __future__ import annotations

import cv2
import keras
import numpy as np
import pytest

from extractors.assets import AssetError
from extractors.static import StaticFeatureExtractor


@pytest.fixture(scope="module")
def extractor() -> StaticFeatureExtractor:
    return StaticFeatureExtractor("random", seed=3, batch_size=4)


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def test_features_are_those_of_keras_applications_with_caffe_preprocessing(extractor):
    """Preprocessing is worked out here by hand: BGR, minus the ImageNet means of the Caffe release."""
    images = crops(2)
    reference = keras.applications.ResNet50(include_top=False, weights=None, pooling="avg")
    reference.set_weights(extractor.model.get_weights())
    prepared = images[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    expected = np.asarray(reference(prepared, training=False))
    np.testing.assert_allclose(extractor.extract(images), expected, rtol=1e-3, atol=1e-3 * expected.std())


def test_features_do_not_depend_on_batches(extractor):
    images = crops(6)
    together = extractor.extract(images)
    alone = np.concatenate([extractor.extract(image[None]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-3 * together.std())


def test_random_weights_still_tell_people_apart(extractor, corpus):
    """Even an untrained network keeps photographs of different people different: trials are not a constant."""
    images = [
        cv2.resize(cv2.imread(str(path))[..., ::-1], (224, 224)) for path in sorted(corpus.glob("stills/*/*"))[::9]
    ]
    features = extractor.extract(np.stack(images))
    assert np.isfinite(features).all()
    assert features.std(axis=0).mean() > 0.001 * features.mean()


def test_the_first_four_convolutional_layers_are_frozen_by_default():
    extractor = StaticFeatureExtractor("random")
    convolutions = [layer for layer in extractor.model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.trainable for layer in convolutions[:6]] == [False] * 4 + [True] * 2
    assert len(convolutions) == 53


def test_the_same_seed_gives_the_same_network_and_another_seed_another_one(extractor):
    image = crops(1)
    np.testing.assert_array_equal(StaticFeatureExtractor("random", seed=3)(image), extractor(image))
    assert not np.allclose(StaticFeatureExtractor("random", seed=4)(image), extractor(image))


def test_no_crops_give_no_features(extractor):
    assert extractor.extract(crops(0)).shape == (0, 2048)


@pytest.mark.parametrize("images", [np.zeros((1, 224, 224, 3), np.float32), np.zeros((1, 128, 128, 3), np.uint8)])
def test_arrays_that_are_no_face_crops_are_refused(extractor, images):
    with pytest.raises(ValueError, match="crops must be uint8"):
        extractor.extract(images)


def test_pretrained_weights_that_are_not_in_the_given_folder_are_an_error_and_not_random_ones(tmp_path):
    with pytest.raises(AssetError, match="resnet50"):
        StaticFeatureExtractor("pretrained", asset_folder=tmp_path)

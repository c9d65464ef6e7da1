from __future__ import annotations

import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from device_memory import OnDevice

from extractors.assets.files import AssetError
from extractors.dynamic import i3d
from extractors.dynamic.extractor import MIN_FIELDS, DynamicFeatureExtractor


@pytest.fixture
def extractor(i3d_extractor) -> DynamicFeatureExtractor:
    return i3d_extractor


@pytest.fixture
def network(i3d_with_head) -> keras.Model:
    return i3d_with_head


def smooth_motion(count: int, fields: int = MIN_FIELDS) -> np.ndarray:
    """Windows of a slow, wide motion in [-1, 1], each window another one."""
    generator = np.random.default_rng(0)
    coarse = generator.uniform(-0.4, 0.4, (count, fields, 8, 8, 2)).astype(np.float32)
    return coarse.repeat(28, axis=2).repeat(28, axis=3)


@pytest.fixture(scope="module")
def drawn_values(i3d_with_head) -> dict[str, np.ndarray]:
    """Values for all variables of the published checkpoint, drawn here."""
    generator = np.random.default_rng(5)
    variables = i3d.checkpoint_variables(i3d_with_head)
    return {name: generator.normal(size=variable.shape).astype(np.float32) for name, variable in variables.items()}


def test_every_variable_of_the_published_checkpoint_has_its_place_and_none_is_left_over(corpus, tmp_path, network):
    shutil.copy(corpus.parent / "assets" / "i3d_flow_imagenet.ckpt.index", tmp_path / "model.ckpt.index")
    published = dict(tf.train.list_variables(str(tmp_path / "model.ckpt")))
    ours = i3d.checkpoint_variables(network)
    assert len(published) == 230
    assert {name: list(variable.shape) for name, variable in ours.items()} == published


def test_the_network_has_as_many_weights_as_the_paper_says(network):
    # Table 1 of Carreira & Zisserman: 12 M for the single stream; 400 classes, and no scale in BatchNorm.
    assert network.count_params() == pytest.approx(12.3e6, rel=0.05)


def test_values_of_a_checkpoint_arrive_where_their_names_say(tmp_path, network, drawn_values, write_checkpoint):
    write_checkpoint(tmp_path, drawn_values)
    i3d.load_checkpoint(network, tmp_path)
    first = network.get_layer("Conv3d_1a_7x7")
    np.testing.assert_array_equal(first.kernel, drawn_values["Flow/inception_i3d/Conv3d_1a_7x7/conv_3d/w"])
    norm = network.get_layer("Mixed_5b.Branch_2.Conv3d_0a_3x3.batch_norm")
    scope = "Flow/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/batch_norm"
    np.testing.assert_array_equal(norm.moving_mean, drawn_values[f"{scope}/moving_mean"])
    np.testing.assert_array_equal(norm.moving_variance, drawn_values[f"{scope}/moving_variance"])
    np.testing.assert_array_equal(norm.beta, drawn_values[f"{scope}/beta"])


def test_a_checkpoint_that_lacks_a_variable_is_refused_by_the_variables_name(
    tmp_path, extractor, drawn_values, write_checkpoint
):
    lacking = "Flow/inception_i3d/Mixed_4c/Branch_1/Conv3d_0b_3x3/conv_3d/w"
    write_checkpoint(tmp_path, {name: value for name, value in drawn_values.items() if name != lacking})
    with pytest.raises(AssetError, match=lacking):
        i3d.load_checkpoint(extractor.model, tmp_path)


def test_a_checkpoint_with_a_variable_of_another_shape_is_refused_by_the_variables_name(
    tmp_path, extractor, drawn_values, write_checkpoint
):
    odd = "Flow/inception_i3d/Conv3d_2b_1x1/conv_3d/w"
    write_checkpoint(tmp_path, {**drawn_values, odd: np.zeros((1, 1, 1, 64, 65), np.float32)})
    with pytest.raises(AssetError, match=odd):
        i3d.load_checkpoint(extractor.model, tmp_path)


def test_a_checkpoint_with_a_variable_that_the_network_has_no_place_for_is_refused(
    tmp_path, extractor, drawn_values, write_checkpoint
):
    write_checkpoint(tmp_path, {**drawn_values, "Flow/inception_i3d/Mixed_6a/conv_3d/w": np.zeros(3, np.float32)})
    with pytest.raises(AssetError, match="Flow/inception_i3d/Mixed_6a/conv_3d/w"):
        i3d.load_checkpoint(extractor.model, tmp_path)


def test_a_folder_without_a_checkpoint_is_refused_by_its_name(tmp_path, extractor):
    with pytest.raises(AssetError, match=re.escape(str(tmp_path))):
        i3d.load_checkpoint(extractor.model, tmp_path)


def test_dropout_lies_between_the_average_pool_and_the_head_and_drops_only_in_training(network):
    model = i3d.build_i3d(classes=400, dropout=0.5)
    names = [layer.name for layer in model.layers]
    assert names[-4:] == ["AvgPool3d_6a_7x7", "Logits.Dropout", "Logits.Conv3d_0c_1x1", "logits"]
    window = smooth_motion(1)
    kept = np.asarray(model(window))
    network.set_weights(model.get_weights())
    np.testing.assert_array_equal(kept, np.asarray(network(window)))
    assert not np.allclose(kept, np.asarray(model(window, training=True)), rtol=0.01)


def test_first_layer_is_a_strided_convolution_with_same_padding_as_tensorflow_defines_it(extractor):
    """SAME with stride 2 on an even side pads one more at the end; a symmetric padding would be another network."""
    field = smooth_motion(1, 10)  # an even number of fields, too
    layer = extractor.model.get_layer("Conv3d_1a_7x7")
    padded = np.pad(field, ((0, 0), (2, 3), (2, 3), (2, 3), (0, 0)))
    kernel = np.asarray(layer.kernel)
    y, x, t = 40, 17, 2
    patch = padded[0, 2 * t : 2 * t + 7, 2 * y : 2 * y + 7, 2 * x : 2 * x + 7]
    expected = np.tensordot(patch, kernel, axes=4)
    np.testing.assert_allclose(np.asarray(layer(field))[0, t, y, x], expected, rtol=1e-4, atol=1e-5)


def test_a_window_gives_1024_features_that_say_what_moved(extractor):
    windows = smooth_motion(2)
    features = extractor.extract(windows)
    assert features.shape == (2, 1024)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert not np.allclose(features[0], features[1], rtol=0.01)


def test_features_are_the_same_bits_in_batches_of_any_size(extractor, monkeypatch):
    windows = smooth_motion(3)
    alone = np.concatenate([extractor.extract(window[None]) for window in windows])
    monkeypatch.setattr(extractor, "batch_size", 2)
    np.testing.assert_array_equal(extractor.extract(windows), alone)


def test_a_window_alone_is_read_where_the_gpu_left_it(extractor, monkeypatch):
    (motion,) = smooth_motion(1)
    fields = OnDevice(motion[None])
    run, addresses = extractor._network.predict_on_batch, []

    def spy(windows):
        addresses.append(np.asarray(memoryview(windows)).ctypes.data)
        return run(windows)

    monkeypatch.setattr(extractor._network, "predict_on_batch", spy)
    vectors = extractor.extract_on_device(fields, [MIN_FIELDS])
    assert addresses == [fields.address]
    np.testing.assert_array_equal(vectors, extractor.extract(motion[None]))


@pytest.mark.parametrize("wrong", [np.nan, 1.5])
def test_fields_on_the_gpu_are_checked_there(extractor, wrong):
    numbers = np.zeros((MIN_FIELDS, 224, 224, 2), np.float32)
    numbers[3, 5, 7, 1] = wrong
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        extractor.extract_on_device(OnDevice(numbers[None]), [MIN_FIELDS])


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_windows_on_the_gpu_are_described_together_and_short_ones_repeated(extractor, monkeypatch, batch_size):
    windows, lengths = smooth_motion(3), [4, MIN_FIELDS, 1]
    repeated = np.stack([window[np.arange(MIN_FIELDS) % n] for window, n in zip(windows, lengths, strict=True)])
    monkeypatch.setattr(extractor, "batch_size", batch_size)
    found = extractor.extract_on_device(OnDevice(windows), lengths)
    np.testing.assert_array_equal(found, extractor.extract(repeated))


def test_windows_on_the_gpu_for_whose_check_memory_runs_out_are_described_one_by_one(extractor, monkeypatch):
    windows = smooth_motion(3)
    expected = extractor.extract(windows)
    reduce_all = tf.reduce_all

    def checked(numbers: tf.Tensor) -> tf.Tensor:
        if len(numbers) > 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return reduce_all(numbers)

    monkeypatch.setattr(tf, "reduce_all", checked)
    monkeypatch.setattr(extractor, "batch_size", 3)
    found = extractor.extract_on_device(OnDevice(windows), [MIN_FIELDS] * 3)
    np.testing.assert_array_equal(found, expected)
    assert extractor.batch_size == 1


def test_the_same_seed_gives_the_same_network_and_another_seed_another_one(extractor):
    again, other = (i3d.build_i3d(seed=seed).get_weights() for seed in (3, 2))
    assert all(np.array_equal(a, b) for a, b in zip(extractor.model.get_weights(), again, strict=True))
    assert not np.array_equal(again[0], other[0])


@pytest.mark.parametrize(
    "windows",
    [
        np.zeros((1, 16, 224, 224, 2), np.float64),
        np.zeros((1, 16, 112, 112, 2), np.float32),
        np.zeros((1, 8, 224, 224, 2), np.float32),
        np.full((1, 16, 224, 224, 2), 1.5, np.float32),
        np.full((1, 16, 224, 224, 2), np.nan, np.float32),
    ],
    ids=["dtype", "side", "too short", "out of range", "not a number"],
)
def test_windows_that_are_no_scaled_optical_flow_are_refused(extractor, windows):
    with pytest.raises(ValueError, match="window"):
        extractor.extract(windows)


def test_calling_the_extractor_is_extracting(extractor):
    window = smooth_motion(1)
    np.testing.assert_array_equal(extractor(window), extractor.extract(window))

"""Class activation maps, Grad-CAM and filters, on networks small enough to know by hand."""

import keras
import numpy as np
import pytest

from extractors.errors import LayerError
from extractors.faces.levelling import View
from extractors.pictures.filters import maximise_filters
from extractors.pictures.layers import class_activation_map, grad_cam, layer_activations, liveliest, strongest
from extractors.pictures.static import enlarged, placed


def small_network():
    """Two filters, bright and dark, a coarser layer, and their global averages."""
    picture = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(2, 3, padding="same", use_bias=False, activation="relu", name="signs")(picture)
    x = keras.layers.AveragePooling2D(2, name="coarse")(x)
    network = keras.Model(picture, keras.layers.GlobalAveragePooling2D()(x), name="small")
    kernel = np.zeros((3, 3, 1, 2), np.float32)
    kernel[1, 1, 0] = [1, -1]
    network.get_layer("signs").kernel.assign(kernel)
    return network


def blobs():
    """A bright blob around row 6, column 20, and a dark one around row 24, column 8, of 32 x 32."""
    y, x = np.mgrid[0:32, 0:32]
    bright, dark = (np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8) for row, column in ((6, 20), (24, 8)))
    return (bright - dark).astype(np.float32)[None, ..., None]


def peak(values):
    return np.unravel_index(np.argmax(values), values.shape)


@pytest.mark.parametrize(("feature", "place"), [(0, (6, 20)), (1, (24, 8))])
def test_maps_of_a_planted_blob_land_on_the_blob(feature, place):
    network, picture = small_network(), blobs()
    weights = np.eye(2, dtype=np.float32)[feature]
    maps = layer_activations(network, picture, ["coarse"])["coarse"][0]
    cam = class_activation_map(maps, weights)
    by_gradient = grad_cam(network, picture, weights, "signs")[0]
    assert peak(enlarged(cam, 32, 32)) == pytest.approx(place, abs=1)
    assert peak(by_gradient) == place
    assert by_gradient[tuple(30 - np.array(place))] == pytest.approx(0, abs=1e-3)  # where the other blob is


def test_the_mean_of_a_class_activation_map_is_the_output_itself():
    network, picture = small_network(), blobs()
    weights = np.array([0.7, -1.3], np.float32)
    cam = class_activation_map(layer_activations(network, picture, ["coarse"])["coarse"], weights)
    assert cam.mean() == pytest.approx(float((network(picture) @ weights[:, None]).numpy().item()), abs=1e-6)


def test_grad_cam_before_a_global_average_is_the_positive_part_of_cam():
    network, picture = small_network(), blobs()
    weights = np.array([1.0, -2.0], np.float32)
    maps = layer_activations(network, picture, ["coarse"])["coarse"][0]
    expected = np.maximum(class_activation_map(maps, weights), 0) / maps[..., 0].size
    assert grad_cam(network, picture, weights, "coarse")[0] == pytest.approx(expected, abs=1e-7)


def test_grad_cam_of_a_network_over_time_lands_on_the_moment():
    clip = keras.Input((None, 8, 8, 1))
    x = keras.layers.Conv3D(1, 1, use_bias=False, kernel_initializer="ones", name="all")(clip)
    network = keras.Model(clip, keras.layers.GlobalAveragePooling3D()(x))
    motion = np.zeros((1, 10, 8, 8, 1), np.float32)
    motion[0, 7, 2, 5] = 1
    assert peak(grad_cam(network, motion, np.ones(1), "all")[0]) == (7, 2, 5)


def test_an_unknown_layer_is_answered_with_those_like_it_or_all():
    with pytest.raises(LayerError, match=r"no layer 'sings' with feature maps; did you mean signs\?$"):
        layer_activations(small_network(), blobs(), ["sings"])
    with pytest.raises(LayerError, match=r"no layer 'x' with feature maps; known: signs, coarse$"):
        layer_activations(small_network(), blobs(), ["x"])
    with pytest.raises(LayerError, match=r"2; known: 0 to 1$"):
        maximise_filters(small_network(), "signs", [2])


def test_a_crop_s_map_lies_where_the_crop_was_cut_even_over_the_edge():
    values = np.zeros((7, 7), np.float32)
    values[1, 5] = 1
    whole = placed(values, View(15, 65, 70, 0), 80, 120)
    assert peak(np.nan_to_num(whole)) == pytest.approx((30 + 15, -20 + 55), abs=3)
    assert np.isnan(whole[:30]).all()
    assert np.isnan(whole[:, 50:]).all()
    assert np.isfinite(whole[30:, :50]).all()


def test_the_map_of_a_turned_crop_is_turned_back():
    values = np.zeros((7, 7), np.float32)
    values[3, 6] = 1  # at the middle of the right edge, which is below when the crop is turned by 90 degrees
    whole = placed(values, View(60, 40, 42, 90), 80, 120)
    assert peak(np.nan_to_num(whole)) == pytest.approx((40 + 18, 60), abs=3)


@pytest.mark.parametrize("rectified", [False, True])
def test_what_excites_a_first_layer_s_filter_most_is_the_filter_itself(rectified):
    picture = keras.Input((None, None, 3))
    activation = "relu" if rectified else None
    x = keras.layers.Conv2D(4, 7, strides=2, padding="same", activation=activation, name="first")(picture)
    network = keras.Model(picture, keras.layers.GlobalAveragePooling2D()(x))
    kernel = np.random.default_rng(0).normal(size=(7, 7, 3, 4)).astype(np.float32)
    network.get_layer("first").kernel.assign(kernel)
    for number, pattern in zip((1, 3), maximise_filters(network, "first", [1, 3], side_px=32), strict=True):
        assert pattern.shape == (7, 7, 3)
        assert np.corrcoef(pattern.ravel(), kernel[..., number].ravel())[0, 1] > 0.99
        assert abs(np.corrcoef(pattern.ravel(), kernel[..., 0].ravel())[0, 1]) < 0.3


def test_a_silent_filter_is_told():
    network = small_network()
    network.get_layer("signs").kernel.assign(np.zeros((3, 3, 1, 2)))
    with pytest.raises(LayerError, match=r"\b0\b.*signs"):
        maximise_filters(network, "signs", [0], side_px=16)


def test_features_are_ranked_by_mean_and_by_change_over_time():
    maps = np.zeros((6, 2, 2, 3), np.float32)
    maps[..., 0] = 5
    maps[..., 1] = np.arange(6)[:, None, None]
    maps[..., 2] = 0.1
    assert strongest(maps, 2) == [0, 1]
    assert liveliest(maps, 1) == [1]

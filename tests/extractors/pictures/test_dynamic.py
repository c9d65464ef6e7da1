"""Colours of optical flow, and pictures of features over space and time, drawn from planted motion."""

import cv2
import numpy as np
import pytest
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure
from PIL import Image

from extractors.pictures.dynamic import WindowMaps, animate_features, plot_comparison, plot_evolution, plot_volume
from extractors.pictures.optical_flow import colour_wheel, draw_arrows, optical_flow_colours
from extractors.pictures.static import plot_activations, plot_filters, plot_overlays


def window(steps=8, fields=32, side=48):
    """Feature 1 is a spot that moves from left to right and is strongest at step 5; feature 0 is constant."""
    maps = np.zeros((steps, 6, 6, 2), np.float32)
    maps[..., 0] = 0.2
    for step in range(steps):
        maps[step, 3, min(5, step), 1] = np.exp(-((step - 5) ** 2) / 4)
    field = np.zeros((fields, side, side, 2), np.float32)
    field[:, 10:30, 10:30, 0] = 3
    return WindowMaps(maps, 2.0, 4.0, np.full((fields + 1, side, side), 128, np.uint8), field)


# By hand from the published table and formulas (Middlebury's flow-code, colorcode.cpp): place = (angle + 1) / 2 * 54 on
# the wheel of 55, where angle = atan2(-dy, -dx) / pi; between two colours the mean.
@pytest.mark.parametrize(
    ("motion", "colour"),
    [
        ((1, 0), (255, 0, 0)),  # right: place 0
        ((0, 1), (255, (221 + 238) / 2, 0)),  # down: place 13.5
        ((-1, 0), (0, 255 - 46, 255)),  # left: place 27
        ((0, -1), ((78 + 98) / 2, 0, 255)),  # up: place 40.5
        ((1, 1), (255, (102 + 119) / 2 + 4.25, 0)),  # place 6.75
        ((0, 0), (255, 255, 255)),
    ],
)
def test_known_directions_have_the_published_colours(motion, colour):
    direction = np.array(motion, np.float32)
    length = max(float(np.hypot(*motion)), 1.0)
    shown = optical_flow_colours((direction / length).reshape(1, 1, 2), 1.0)[0, 0]
    assert shown.astype(float) == pytest.approx(colour, abs=1.01)


def test_half_the_speed_is_half_the_colour_and_more_than_the_largest_is_darkened():
    right = np.zeros((1, 3, 2), np.float32)
    right[0, :, 0] = [0.5, 1.0, 2.0]
    assert optical_flow_colours(right, 1.0)[0].tolist() == [[255, 127, 127], [255, 0, 0], [191, 0, 0]]


def test_the_wheel_has_55_colours_of_full_strength():
    wheel = colour_wheel()
    assert wheel.shape == (55, 3)
    assert (wheel.max(axis=1) == 255).all()
    assert (wheel.min(axis=1) == 0).all()
    assert len(np.unique(wheel, axis=0)) == 55


def test_colours_agree_with_middlebury_s_own_picture_of_a_known_field(corpus):
    field = cv2.readOpticalFlow(str(corpus / "flow" / "RubberWhale" / "flow10.flo"))
    known = np.abs(field).max(axis=-1) < 1e9
    moving = np.where(known[..., None], field, 0)
    colours = optical_flow_colours(moving, float(np.hypot(moving[..., 0], moving[..., 1]).max()))
    hue = cv2.cvtColor(colours, cv2.COLOR_RGB2HSV)[..., 0] * 2.0
    # its wheel runs the way of HSV, only unevenly: the order of directions is the order of hues
    angle = np.degrees(np.arctan2(field[..., 1], field[..., 0])) % 360
    fast = known & (np.hypot(field[..., 0], field[..., 1]) > 1)
    order = np.argsort(angle[fast])
    assert (np.diff(hue[fast][order]) > -3).mean() > 0.99


def test_arrows_point_where_things_move():
    axes = Figure().subplots()
    axes.imshow(np.zeros((54, 54)))
    field = np.zeros((54, 54, 2), np.float32)
    field[:30] = (2, 0)
    field[30:] = (0, -1)
    draw_arrows(axes, field, 2.0)
    (arrows,) = [part for part in axes.collections if hasattr(part, "U")]
    above = np.asarray(arrows.Y) < 30
    assert (arrows.U[above] > 0).all()
    assert (arrows.V[above] == 0).all()
    assert (arrows.V[~above] < 0).all()  # the axis points down: up on the screen
    assert np.hypot(arrows.U, arrows.V).max() == pytest.approx(54 // 9)


def test_a_feature_s_curve_peaks_at_the_planted_moment():
    figure = plot_evolution([window()], [0, 1], heading="planted")
    (curve,) = [line for line in figure.axes[0].lines if line.get_label() == "feature 1"]
    time_s, values = curve.get_data()
    assert time_s[np.argmax(values)] == pytest.approx(2.0 + 5.5 / 8 * 2)


def test_the_cloud_follows_the_planted_spot():
    figure = plot_volume(window(), 1, heading="planted")
    time_s, across, up = figure.axes[0].collections[0]._offsets3d
    strong = np.argmax(figure.axes[0].collections[0].get_array())
    assert (time_s[strong], across[strong], up[strong]) == pytest.approx((2.0 + 5.5 / 8 * 2, 5.5, 2.5))
    assert np.corrcoef(time_s, across)[0, 1] > 0.8


def test_a_comparison_has_a_row_of_frames_of_optical_flow_and_of_each_feature():
    figure = plot_comparison(window(), [0, 1], heading="planted", columns=4)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 4 * 4 + 1  # and the wheel
    heat = shown[-1].images[-1].get_array()  # feature 1, last step: its spot is at the right
    assert np.unravel_index(np.argmax(heat), heat.shape)[1] > 40


def test_a_moving_picture_has_the_frames_of_its_time(tmp_path):
    moving = animate_features([window(fields=8)], [1], heading="planted", frames_per_s=2.0)
    moving.save(tmp_path / "moving.gif", writer=PillowWriter(fps=2))
    with Image.open(tmp_path / "moving.gif") as picture:
        assert (picture.format, picture.n_frames) == ("GIF", 4)


def test_overlays_share_one_scale_and_leave_out_what_is_zero():
    pictures = [np.full((40, 40, 3), 90, np.uint8)] * 2
    weak, strong = np.zeros((5, 5)), np.zeros((5, 5))
    weak[:3, :3], strong[3, 3] = 1, 2
    figure = plot_overlays(pictures, [weak, strong], ["weak", "strong"], heading="two", unit="activation")
    over = [axes.images[-1] for axes in figure.axes if len(axes.images) == 2]
    assert over[0].get_array().max() == pytest.approx(0.5)  # of the other's peak
    assert over[1].get_array().max() > 0.85
    assert over[0].get_alpha()[35, 35] == 0
    with pytest.raises(ValueError, match="got 2 pictures, 1 maps"):
        plot_overlays(pictures, [weak], ["a", "b"], heading="", unit="")


def test_panels_name_their_layer_and_feature():
    maps = {"a": np.random.default_rng(0).random((4, 4, 5)), "b": np.ones((2, 2, 3))}
    figure = plot_activations(np.zeros((8, 8, 3), np.uint8), maps, {"a": [3, 1], "b": [0]}, heading="")
    titles = [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert [title.split("\n")[0] for title in titles] == ["a", "feature 3", "feature 1", "b", "feature 0"]
    assert np.array_equal(figure.axes[1].images[0].get_array(), maps["a"][..., 3])


def test_filters_are_drawn_with_grey_for_zero():
    pattern = np.zeros((3, 3, 3), np.float32)
    pattern[1, 1, 0] = -4
    shown = plot_filters([pattern], ["one"], heading="filters").axes[0].images[0].get_array()
    assert shown[0, 0].tolist() == [0.5, 0.5, 0.5]
    assert shown[1, 1].tolist() == [0.0, 0.5, 0.5]

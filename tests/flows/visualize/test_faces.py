"""The contact sheet shows the places that the crops were really cut from."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from matplotlib.patches import Polygon, Rectangle

from flows.config.load import load_config
from flows.session.errors import UserError
from flows.visualize.faces import draw_faces
from flows.visualize.files import picture_style


@pytest.fixture(scope="module")
def sheet(short_clips):
    config = load_config(flags={"weights": "random"}, assignments=["crops.static_tokens=4"])
    with picture_style():
        return draw_faces(config, short_clips.videos / "tilt.mp4")


def test_each_token_is_what_its_outline_in_the_frame_holds(sheet):
    upper, _ = sheet.subfigs
    frames, tokens = upper.axes[::2], upper.axes[1::2]
    assert len(tokens) == 4
    for frame, token in zip(frames, tokens, strict=True):
        (outline,) = (patch for patch in frame.patches if isinstance(patch, Polygon))
        corners = outline.get_xy()[:4].astype(np.float32)
        ends = np.array([[-0.5, -0.5], [223.5, -0.5], [223.5, 223.5], [-0.5, 223.5]], np.float32)
        picture = np.asarray(frame.images[0].get_array())
        held = cv2.warpPerspective(picture, cv2.getPerspectiveTransform(corners, ends), (224, 224))
        shown = np.asarray(token.images[0].get_array())
        inner = slice(16, -16)
        assert np.abs(held.astype(int) - shown)[inner, inner].mean() < 4.0


def test_box_and_eyes_lie_in_the_outlines(sheet):
    upper, _ = sheet.subfigs
    for frame in upper.axes[::2]:
        box, window = (patch for patch in frame.patches if isinstance(patch, Rectangle))
        (eyes,) = frame.lines
        for x, y in zip(*eyes.get_data(), strict=True):
            assert box.get_x() < x < box.get_x() + box.get_width()
            assert box.get_y() < y < box.get_y() + box.get_height()
        assert window.get_x() < box.get_x()
        assert window.get_x() + window.get_width() > box.get_x() + box.get_width()


def test_scores_are_drawn_over_the_whole_clip(sheet):
    _, lower = sheet.subfigs
    score, static = (line for line in lower.axes[0].lines if len(line.get_xdata()))
    assert len(score.get_ydata()) == 32  # one for each frame
    assert np.nanmin(score.get_ydata()) > 0.7
    assert len(static.get_xdata()) == 4
    assert "100%" in sheet.get_suptitle()
    assert "people: 1, cuts: 0, 100% confirmed" in sheet.get_suptitle()


def test_a_video_without_a_face_is_one_sentence(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4 cannot be used: "):
        draw_faces(load_config(flags={"weights": "random"}), tmp_path / "text.mp4")

"""The annotated video, drawn from a track and attention with known places, as a player shows it."""

from __future__ import annotations

import av
import numpy as np
import pytest
from face_tracks import track_of
from matplotlib.colors import to_rgb

from extractors.faces.track import FaceTrack
from extractors.video.encoding import write_mp4
from flows.visualize.annotated import STRIP_PX, _annotated
from flows.visualize.faces import BOX, CUT
from fusion.pictures.timeline import TimeLine

FPS, FRAMES = 25.0, 40
WHITE = np.full((481, 641, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def track() -> FaceTrack:
    """A face at the left, interpolated in frame 10, unknown in frames 20 to 24; a cut before frame 20."""
    boxes = np.tile(np.array([200, 120, 100, 150], np.float32), (FRAMES, 1))
    boxes[20:25] = np.nan
    scores = np.where(np.isnan(boxes[:, 0]), 0, 0.9)
    scores[10] = 0
    return track_of(boxes, scores=scores, shots=(np.arange(FRAMES) >= 20))


@pytest.fixture(scope="module")
def shown(track, tmp_path_factory) -> list[np.ndarray]:
    """Pictures of the video; of two windows, the first has three quarters of the attention."""
    weights = np.broadcast_to(np.array([0.75, 0.25]), (4, 3, 2))
    line = TimeLine(weights, None, np.array([0.0, 0.8]), np.array([0.76, 1.6]))
    path = tmp_path_factory.mktemp("annotated") / "film"
    write_mp4(path, _annotated(iter([WHITE] * FRAMES), track, line, FPS, "a.mp4"), FPS)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert stream.average_rate == 25
        times_s = [float(frame.pts * frame.time_base) for frame in video.decode(stream)]
        assert times_s == pytest.approx(np.arange(FRAMES) / FPS)
        video.seek(0)
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]


def has_colour(part: np.ndarray, colour: str) -> np.ndarray:
    """Which pixels have a colour, as far as a codec with half the colour resolution keeps it."""
    near: np.ndarray = np.abs(part.astype(int) - np.array(to_rgb(colour)) * 255).max(axis=-1) < 70
    return near


def test_each_frame_has_its_picture_above_the_strip_and_even_sides(shown):
    assert {picture.shape for picture in shown} == {(480 + STRIP_PX, 640, 3)}


def test_box_is_where_the_face_was_detected_dashed_if_interpolated_and_absent_if_unknown(shown):
    def upper_edge(number: int) -> float:
        return float(has_colour(shown[number][118:123, 204:296], BOX).any(axis=0).mean())

    assert upper_edge(0) > 0.95
    assert 0.3 < upper_edge(10) < 0.8
    assert upper_edge(22) == 0
    assert upper_edge(30) > 0.95
    ys, xs = np.nonzero(has_colour(shown[0][:480], BOX))
    assert (xs.min(), xs.max(), ys.max()) == pytest.approx((200, 300, 270), abs=3)


def test_a_cut_is_marked_on_the_strip_and_in_the_frames_after_it(shown):
    in_picture = [bool(has_colour(picture[30:50, 10:60], CUT).sum() > 20) for picture in shown]
    assert in_picture == [20 <= number < 28 for number in range(FRAMES)]
    strip = shown[0][480 + 40 : -60]
    (columns,) = np.nonzero(has_colour(strip, CUT).sum(axis=0) > 20)
    marks = play_heads(shown)
    assert columns.mean() == pytest.approx((marks[0] + 20 / FRAMES * (marks[-1] - marks[0]) * FRAMES / 39), abs=3)


def play_heads(shown: list[np.ndarray]) -> np.ndarray:
    """Where the dark line of the present moment is in each strip."""
    strips = np.stack([picture[480:] for picture in shown]).astype(int).sum(axis=-1)
    usual = np.median(strips, axis=0)
    darker = (usual - strips).clip(0).sum(axis=1)
    return darker.argmax(axis=1)


def test_the_moment_moves_evenly_from_left_to_right(shown):
    marks = play_heads(shown)
    line = np.polynomial.Polynomial.fit(np.arange(FRAMES), marks, 1)
    assert np.abs(marks - line(np.arange(FRAMES))).max() < 2.5
    assert marks[-1] - marks[0] > 0.8 * 640


def test_the_border_is_wider_where_attention_is_larger(shown):
    def border(number: int) -> int:
        return int(has_colour(shown[number][300, :20], "#0072B2").sum())

    assert border(5) > border(30) > 0


def test_small_and_upright_pictures_keep_their_shape_on_a_page_that_can_be_read(track):
    line = TimeLine(np.ones((1, 1, 1)), None, np.array([0.0]), np.array([1.6]))
    for height, width in ((144, 176), (3840, 2160), (4000, 16)):
        (page,) = _annotated(iter([np.zeros((height, width, 3), np.uint8)]), track, line, FPS, "a.mp4")
        picture = page[:-STRIP_PX]
        assert page.shape[0] % 2 == page.shape[1] % 2 == 0
        assert 640 <= max(picture.shape[:2]) <= 1280
        assert page.shape[1] >= 640

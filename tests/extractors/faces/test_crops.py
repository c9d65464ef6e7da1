"""Windows cut tracked stretches without overlap, and crops show the face, still and whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from face_tracks import track_of
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.errors import VideoError
from extractors.faces.crops import (
    CropWindow,
    FaceCrop,
    StaticView,
    Window,
    iter_crops,
    plan_static,
    plan_windows,
)
from extractors.faces.levelling import EYES_SHARE, View, cut_view, view_of
from extractors.faces.settings import CropSettings, FaceSettings
from extractors.faces.track import FaceTrack, track_faces
from extractors.video.grid import grid_frames
from extractors.video.settings import VideoSettings

DEFAULT = CropSettings()


def still_track(*lengths: int) -> FaceTrack:
    """Alternating runs of frames with (first, third, ...) and without (second, fourth, ...) a known box."""
    known = np.repeat(np.arange(len(lengths)) % 2 == 0, lengths)
    boxes = np.where(known[:, None], np.float32([100, 80, 60, 60]), np.float32(np.nan))
    return track_of(boxes)


def ranges(windows: list[Window]) -> list[tuple[int, int]]:
    return [(window.first_frame, window.fields) for window in windows]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((17,), [(0, 16)]),
        ((65,), [(0, 64)]),
        ((66,), [(0, 64)]),  # one field left over: dropped
        ((80,), [(0, 64)]),  # 15 left over
        ((81,), [(0, 64), (64, 16)]),
        ((129,), [(0, 64), (64, 64)]),
        ((383,), [(0, 64), (64, 64), (128, 64), (192, 64), (256, 64), (320, 62)]),
        ((0, 10, 65), [(10, 64)]),
        ((65, 1, 65), [(0, 64), (66, 64)]),
        ((16, 1, 17, 3, 16), [(17, 16)]),
        ((70, 30, 100, 5), [(0, 64), (100, 64), (164, 35)]),
    ],
)
def test_stretches_are_cut_into_windows_that_share_their_border_frame(lengths, expected):
    windows = plan_windows(still_track(*lengths), DEFAULT)
    assert ranges(windows) == expected
    assert [window.index for window in windows] == list(range(len(expected)))


@pytest.mark.parametrize(("lengths", "longest"), [((), 0), ((0, 50), 0), ((1,), 1), ((16,), 16), ((16, 9, 15), 16)])
def test_no_stretch_of_seventeen_frames_is_too_short(lengths, longest):
    with pytest.raises(VideoError, match=rf"with the face is {longest} \(") as caught:
        plan_windows(still_track(*lengths), DEFAULT)
    assert (caught.value.stage, caught.value.reason) == ("motion", "too_short")


def test_windows_do_not_reach_across_a_cut():
    boxes = np.tile(np.float32([100, 80, 60, 60]), (100, 1))
    boxes[40:] += [300, 0, 20, 20]
    windows = plan_windows(track_of(boxes), DEFAULT)
    assert ranges(windows) == [(0, 39), (40, 59)]
    assert windows[0].box == (85, 65, 90)
    assert windows[1].box == (380, 60, 120)


def test_windows_end_at_each_cut_even_if_the_box_stays():
    track = track_of(np.tile([100, 80, 60, 60], (100, 1)), shots=np.searchsorted([40, 50], np.arange(100), "right"))
    assert ranges(plan_windows(track, DEFAULT)) == [(0, 39), (50, 49)]


@settings(max_examples=60, deadline=None)
@given(
    known=st.lists(st.tuples(st.booleans(), st.integers(1, 150)), min_size=1, max_size=8),
    window=st.integers(2, 80),
    least=st.integers(1, 40),
    tokens=st.integers(1, 40),
)
def test_every_field_lies_in_a_tracked_stretch_and_in_one_window_only(known, window, least, tokens):
    tracked = np.concatenate([np.full(count, value) for value, count in known])
    boxes = np.where(tracked[:, None], np.float32([10, 10, 50, 50]), np.float32(np.nan))
    plan = CropSettings(window_fields=window, min_fields=least, static_tokens=tokens)
    try:
        windows = plan_windows(track_of(boxes), plan)
    except VideoError:
        windows = []
    fields = [field for w in windows for field in range(w.first_frame, w.first_frame + w.fields)]
    assert len(set(fields)) == len(fields)
    assert fields == sorted(fields)
    assert all(tracked[field] and tracked[field + 1] for field in fields)
    assert all(min(least, window) <= w.fields <= window for w in windows)
    # The omitted frames are too short to keep: less than the minimum of a window from each stretch.
    usable = tracked[1:] & tracked[:-1]
    for field in np.flatnonzero(usable):
        if field not in fields:
            stretch_end = field + int(np.argmin(np.append(usable[field:], False)))
            assert stretch_end - field < min(least, window)


@settings(max_examples=60, deadline=None)
@given(
    known=st.lists(
        st.tuples(st.sampled_from(["seen", "imagined", "lost"]), st.integers(2, 90)), min_size=1, max_size=8
    ),
    tokens=st.integers(1, 40),
)
def test_static_frames_are_detected_ones_spread_evenly_over_them(known, tokens):
    kinds = np.concatenate([np.full(count, kind) for kind, count in known])
    boxes = np.where((kinds != "lost")[:, None], np.float32([10, 10, 50, 50]), np.float32(np.nan))
    track = track_of(boxes, scores=0.9 * (kinds == "seen"))
    frames = [planned.frame for planned in plan_static(track, CropSettings(static_tokens=tokens))]
    seen = np.flatnonzero(kinds == "seen")
    assert len(frames) == min(tokens, len(seen))
    assert set(frames) <= set(seen.tolist())
    ranks = np.searchsorted(seen, frames)
    for place, rank in enumerate(ranks):
        # In the middle of its equal share, within the half frame of rounding and the one of unequal shares.
        assert rank == pytest.approx((place + 0.5) * len(seen) / len(frames) - 0.5, abs=1.5)


@pytest.mark.parametrize(
    ("frames", "tokens", "expected"),
    [(65, 1, [32]), (65, 2, [15, 48]), (17, 99, list(range(17))), (128, 4, [15, 47, 79, 111])],
)
def test_static_frames_are_the_middles_of_equal_shares(frames, tokens, expected):
    planned = plan_static(still_track(frames), CropSettings(static_tokens=tokens))
    assert [one.frame for one in planned] == expected


def test_frames_of_a_dissolve_are_no_static_frames():
    shots = np.concatenate([np.zeros(20), np.arange(1, 11), np.full(20, 11)])  # each of its frames is a shot of its own
    track = track_of(still_track(50).boxes, shots=shots)
    frames = [one.frame for one in plan_static(track, DEFAULT)]
    assert len(frames) == 16
    assert not set(frames) & set(range(20, 30))


def test_static_frames_have_their_share_s_best_scores():
    scores = np.full(60, 0.75)
    scores[[3, 37, 38, 59]] = 0.95
    scores[12] = 0.93  # as good as 3, and closer to the middle
    track = track_of(still_track(60).boxes, scores=scores)
    assert [one.frame for one in plan_static(track, CropSettings(static_tokens=3))] == [12, 37, 59]


@pytest.mark.parametrize("roll", [-30, -10, 0, 5, 20])
@pytest.mark.parametrize("apart", [30.0, 60.0])
def test_a_static_crop_is_level_and_as_large_as_the_distance_of_the_eyes_says(roll, apart):
    """Eyes as white dots on black: where they are in the crop follows from a face's proportions."""
    middle, along = np.array([200.0, 150.0]), np.deg2rad(roll)
    half = apart / 2 * np.array([np.cos(along), np.sin(along)])
    picture = np.zeros((300, 400, 3), np.uint8)
    for eye in (middle - half, middle + half):
        cv2.circle(
            picture, (round(eye[0] * 256), round(eye[1] * 256)), round(0.08 * apart * 256), (255,) * 3, -1, 16, 8
        )
    side = apart / EYES_SHARE
    # cv2 counts from the middles of pixels, boxes from their edges.
    box = np.array(
        [*(middle + 0.5 - side / 2 * 1.15), side * 1.15, side * 1.15]
    )  # the detector's box is a little large
    crop = cut_view(picture, view_of(box, np.array([*(middle - half), *(middle + half)]), 1.5), 224)
    _, _, _, found = cv2.connectedComponentsWithStats((crop[..., 0] > 128).astype(np.uint8))
    (left, right) = sorted(found[1:].tolist())
    distance = 224 * EYES_SHARE / 1.5
    assert left == pytest.approx([111.5 - distance / 2, 111.5], abs=1.0)
    assert right == pytest.approx([111.5 + distance / 2, 111.5], abs=1.0)


def test_turned_heads_and_unknown_eyes_fall_back_on_the_box():
    box = np.array([100.0, 80.0, 60.0, 60.0])
    profile = view_of(box, np.array([120.0, 100.0, 126.0, 100.0]), 1.5)
    assert (profile.x, profile.y, profile.side, profile.roll_deg) == (130, 110, pytest.approx(0.8 * 90), 0)
    unknown = view_of(box, np.full(4, np.nan), 1.5)
    assert (unknown.x, unknown.y, unknown.side, unknown.roll_deg) == (130, 110, 90, 0)


def test_the_box_is_still_and_holds_the_moving_face_with_margin():
    x = 100 + 40 * np.sin(np.arange(65) / 8)
    boxes = np.stack([x, np.full(65, 90.0), np.full(65, 60.0), np.full(65, 60.0)], axis=1).astype(np.float32)
    (window,) = plan_windows(track_of(boxes), DEFAULT)
    left, top, side = window.box
    assert left < x.min()
    assert left + side > x.max() + 60
    assert top < 90 < 150 < top + side
    assert top + side / 2 == pytest.approx(120, abs=1)
    assert side == pytest.approx(1.5 * (np.ptp(x) + 60), rel=0.03)


def test_a_single_wild_box_does_not_widen_the_window():
    boxes = np.tile(np.float32([100, 80, 60, 60]), (65, 1))
    boxes[30] = [85, 65, 90, 90]
    (window,) = plan_windows(track_of(boxes), DEFAULT)
    assert window.box[2] <= 1.5 * 60 + 2


def crops(
    path: Path, windows: list[Window], views: Sequence[StaticView] = (), **options: int
) -> tuple[list[CropWindow], list[FaceCrop]]:
    found = list(iter_crops(grid_frames(path, 25.0, thresholds=None), windows, views, **options))
    return (
        [cut for cut in found if isinstance(cut, CropWindow)],
        [cut for cut in found if isinstance(cut, FaceCrop)],
    )


def upright(frame: int, x: int, y: int, side: int) -> StaticView:
    return StaticView(frame, View(x + side / 2, y + side / 2, side, 0))


def grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def test_each_window_has_its_own_frames_cut_by_its_own_box(drawing):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (96, 160, 3), np.uint8) for _ in range(60)]
    path = drawing.write("a.mkv", pictures, codec="ffv1", pix_fmt="bgr0")  # without loss
    windows = [Window(0, 5, 20, (10, 20, 32)), Window(1, 25, 20, (50, 30, 32)), Window(2, 48, 4, (0, 0, 32))]
    views = [upright(frame, frame, 20, 32) for frame in (2, 25, 30, 55)]
    found, static = crops(path, windows, views, size_px=32)
    assert [crop.window for crop in found] == windows
    for crop in found:
        x, y, side = crop.window.box
        first, last = crop.window.first_frame, crop.window.last_frame
        expected = [grey(picture)[y : y + side, x : x + side] for picture in pictures[first : last + 1]]
        assert np.array_equal(crop.grey, expected)
    assert [crop.frame for crop in static] == [2, 25, 30, 55]  # in windows, between them and after them
    for crop in static:
        assert np.array_equal(crop.pixels, pictures[crop.frame][20:52, crop.frame : crop.frame + 32])


@pytest.mark.parametrize(
    "box", [(-10, -20, 64), (140, 60, 64), (-40, -40, 240), (200, 20, 32), (-90, 10, 32), (20, -200, 50), (10, 96, 32)]
)
def test_beyond_the_edge_of_the_picture_the_border_is_repeated(drawing, box):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (96, 160, 3), np.uint8)
    path = drawing.write("a.mkv", [picture] * 3, codec="ffv1", pix_fmt="bgr0")
    x, y, side = box
    (window,), (static,) = crops(path, [Window(0, 0, 2, box)], [upright(1, *box)], size_px=side)
    rows = np.clip(np.arange(y, y + side), 0, 95)
    columns = np.clip(np.arange(x, x + side), 0, 159)
    assert np.array_equal(static.pixels, picture[rows][:, columns])
    assert np.array_equal(window.grey[1], grey(picture)[rows][:, columns])


@pytest.mark.parametrize("side", [32, 48, 100, 300])
def test_crops_keep_light_and_place_when_resized(drawing, side):
    rows, columns = np.mgrid[:320, :320]
    ramp = np.stack([rows * 0.7, columns * 0.7, np.full((320, 320), 80)], axis=-1).astype(np.uint8)
    path = drawing.write("a.mkv", [ramp] * 3, codec="ffv1", pix_fmt="bgr0")
    (window,), (static,) = crops(path, [Window(0, 0, 2, (10, 15, side))], [upright(0, 10, 15, side)], size_px=64)
    places = (np.arange(64) + 0.5) / 64 * side - 0.5
    shown = static.pixels.astype(float)
    inner = slice(2, -2)
    assert shown[inner, 32, 0] == pytest.approx((15 + places[inner]) * 0.7, abs=1.5)
    assert shown[32, inner, 1] == pytest.approx((10 + places[inner]) * 0.7, abs=1.5)
    assert window.grey.shape == (3, 64, 64)
    assert np.abs(grey(static.pixels).astype(int) - window.grey[0])[inner, inner].max() <= 2


@pytest.mark.parametrize("side", [300, 1000])
def test_fine_texture_in_a_large_face_becomes_no_coarse_pattern(side):
    """Stripes of two pixels are grey when a face of 300 px and more is made small, and never moire."""
    picture = np.zeros((side, side, 3), np.uint8)
    picture[:, ::2] = 255
    crop = cut_view(picture, View(side / 2, side / 2, side, 7.0), 60)[5:-5, 5:-5]
    assert np.abs(crop.astype(int) - 127).max() < 40


def test_decoding_stops_after_the_last_window(drawing):
    path = drawing.write("a.mp4", drawing.pictures(100), container_options={"movflags": "+faststart"})
    windows = [Window(0, 0, 20, (0, 0, 96))]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    found, static = crops(path, windows, [upright(3, 0, 0, 96)], size_px=32)
    assert (len(found), len(static)) == (1, 1)


def test_a_video_that_became_shorter_is_refused(drawing):
    path = drawing.write("a.mp4", drawing.pictures(30))
    for windows, views in (([Window(0, 0, 64, (0, 0, 96))], []), ([], [upright(40, 0, 0, 96)])):
        with pytest.raises(VideoError) as caught:
            crops(path, windows, views)
        assert (caught.value.stage, caught.value.reason) == ("decode", "changed")


def whole(path: Path, detector) -> tuple[FaceTrack, list[CropWindow], list[FaceCrop]]:
    track = track_faces(path, detector, VideoSettings(), FaceSettings())
    return track, *crops(path, plan_windows(track, DEFAULT), plan_static(track, DEFAULT))


def test_rotated_recordings_give_the_crops_of_the_original(corpus, detector):
    track, original, faces = whole(corpus / "plain" / "single_face.mp4", detector)
    for name in ["rot90_phone_style_single_face.mp4", "rot180_phone_style_single_face.mp4"]:
        turned_track, turned, turned_faces = whole(corpus / "hard" / name, detector)
        # Sides of the face are 170 px: boxes agree to 2%, crops to the two files' compression noise.
        assert np.abs(turned_track.boxes - track.boxes).max() < 4.0
        assert [crop.window.fields for crop in turned] == [crop.window.fields for crop in original]
        for first, second in zip(original, turned, strict=True):
            assert np.abs(np.subtract(first.window.box, second.window.box)).max() <= 2
            assert np.abs(first.grey.astype(int) - second.grey).mean() < 3.0
        for face, turned_face in zip(faces, turned_faces, strict=True):
            assert face.frame == pytest.approx(turned_face.frame, abs=1)
            assert np.abs(face.pixels.astype(int) - turned_face.pixels).mean() < 6.0


def resized(picture: np.ndarray, longer: int) -> np.ndarray:
    scale = longer / max(picture.shape)
    width, height = (2 * round(scale * side / 2) for side in picture.shape[1::-1])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def turned(picture: np.ndarray, angle: float) -> np.ndarray:
    height, width = picture.shape[:2]
    place = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    return cv2.warpAffine(picture, place, (width, height), borderMode=cv2.BORDER_REPLICATE)


# Compresses in no time, and hardly anything is lost.
QUICK = {"preset": "ultrafast", "crf": "10"}
CLIPS = ["-AmMDnVl4s8.003", "98fnGDVky00.005", "9KAqOrdiZ4I.002", "OWZ-qVZG14A.002", "xHb5_bc1JOA.000"]


@pytest.mark.parametrize("name", CLIPS)
def test_static_crops_of_real_clips_are_level_of_one_size_and_whole(corpus, drawing, detector, face_models, name):
    """As another detector, which finds eyes, nose and mouth by itself, sees each of them."""
    witness = cv2.FaceDetectorYN.create(str(face_models.check), "", (224, 224), 0.6)
    pictures = (
        turned(resized(picture, 640), 15 * math.sin(number / 8))
        for number, picture in enumerate(islice(grid_frames(corpus / "fi_v2" / f"{name}.mp4", 25.0), 50))
    )
    _, _, static = whole(drawing.write("a.mp4", pictures, options=QUICK), detector)
    assert len(static) == 16
    points = []
    for face in static:
        _, found = witness.detect(cv2.cvtColor(face.pixels, cv2.COLOR_RGB2BGR))
        (best,) = found[found[:, -1].argmax()][None]
        points.append(best[4:14].reshape(5, 2))
    points = np.array(points)  # [16, 5, 2]: right eye, left eye, nose, corners of the mouth
    assert (points > 15).all()
    assert (points < 209).all()
    across = points[:, 1] - points[:, 0]
    rolls = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    assert np.sqrt(np.mean(rolls**2)) < 5
    assert np.abs(rolls).max() < 12
    apart = np.hypot(*across.T)
    assert apart.std() / apart.mean() < 0.08
    assert 40 < apart.mean() < 75  # 61 by the proportions of a face seen from the front
    assert points.mean(axis=(0, 1)) == pytest.approx([112, 112], abs=20)


def test_the_motion_crop_stands_still_while_the_static_ones_follow_the_face(corpus, drawing, detector):
    """A camera that pans over a still picture: in the motion crop all moves, in the static crops nothing does."""
    picture = next(grid_frames(corpus / "plain" / "single_face.mp4", 25.0))
    pictures = [np.ascontiguousarray(picture[:, 2 * k : 2 * k + 500]) for k in range(50)]
    path = drawing.write("a.mp4", pictures, options=QUICK)
    _, (window,), static = whole(path, detector)
    assert np.abs(np.diff(window.grey.astype(int), axis=0)).mean(axis=(1, 2)).min() > 1.0
    middle = slice(40, -40)
    moved = np.abs(window.grey[0].astype(int) - window.grey[-1])[middle, middle].mean()
    for face in static[1:]:
        followed = np.abs(grey(face.pixels).astype(int) - grey(static[0].pixels))[middle, middle].mean()
        assert followed < 0.4 * moved


def test_a_fade_from_black_gives_no_dark_crop(corpus, drawing, detector):
    pictures = list(islice(grid_frames(corpus / "plain" / "single_face.mp4", 25.0), 50))
    faded = [(picture * min(1.0, k / 25)).astype(np.uint8) for k, picture in enumerate(pictures)]
    _, _, static = whole(drawing.write("a.mp4", faded, options=QUICK), detector)
    assert len(static) == 16
    assert min(face.frame for face in static) >= 6  # with a quarter of the light


def test_windows_of_a_real_clip_show_its_frames(corpus, detector):
    path = corpus / "plain" / "grid_bbaf2n.mpg"
    _, (crop,), _ = whole(path, detector)
    pictures = list(grid_frames(path, 25.0))
    x, y, side = crop.window.box
    assert min(x, y) >= 0
    assert max(x, y) + side <= 360
    for index in (0, 30, 64):
        cut = grey(pictures[index])[y : y + side, x : x + side]
        small = cv2.resize(crop.grey[index], cut.shape[::-1], interpolation=cv2.INTER_AREA)[: len(cut)]
        assert np.abs(small.astype(int) - cut).mean() < 4.0

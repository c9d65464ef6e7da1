"""Windows cut tracked stretches without overlap, and crops show the face, still and whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from face_tracks import track_of
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.errors import VideoError
from extractors.faces.crops import CropWindow, Window, iter_crops, plan_static, plan_windows
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
    if windows:
        static = plan_static(windows, plan)
        frames = sorted({frame for w in windows for frame in range(w.first_frame, w.last_frame + 1)})
        assert len(static) == min(tokens, len(frames))
        assert set(static) <= set(frames)
        ranks = np.searchsorted(frames, static)
        if len(static) > 1:
            assert np.ptp(np.diff(ranks)) <= 1  # evenly spread
        assert abs(ranks[0] - (len(frames) - 1 - ranks[-1])) <= 1  # in the middle


@pytest.mark.parametrize(
    ("fields", "tokens", "expected"),
    [
        ([64], 1, [32]),
        ([64], 2, [16, 48]),
        ([16], 16, [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16]),
        ([16], 99, list(range(17))),
        ([64, 64], 4, [16, 48, 80, 112]),
    ],
)
def test_static_frames_are_the_middles_of_equal_shares(fields, tokens, expected):
    starts = np.concatenate([[0], np.cumsum(fields)])
    windows = [Window(i, int(starts[i]), count, (0, 0, 10)) for i, count in enumerate(fields)]
    assert plan_static(windows, CropSettings(static_tokens=tokens)) == expected


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


def crops(path: Path, windows: list[Window], static: list[int], **options: int) -> list[CropWindow]:
    return list(iter_crops(path, windows, static, fps=25.0, **options))


def grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def test_each_window_has_its_own_frames_cut_by_its_own_box(drawing):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (96, 160, 3), np.uint8) for _ in range(60)]
    path = drawing.write("a.mkv", pictures, codec="ffv1", pix_fmt="bgr0")  # without loss
    windows = [Window(0, 5, 20, (10, 20, 32)), Window(1, 25, 20, (50, 30, 32)), Window(2, 48, 4, (0, 0, 32))]
    found = crops(path, windows, [5, 25, 30, 52], size_px=32)
    assert [crop.window for crop in found] == windows
    for crop in found:
        x, y, side = crop.window.box
        first, last = crop.window.first_frame, crop.window.last_frame
        expected = [grey(picture)[y : y + side, x : x + side] for picture in pictures[first : last + 1]]
        assert np.array_equal(crop.grey, expected)
    # Frame 25 ends the first window and begins the second; as a static frame it comes once.
    assert [[frame for frame, _ in crop.static] for crop in found] == [[5, 25], [30], [52]]
    assert np.array_equal(found[1].static[0][1], pictures[30][30:62, 50:82])


@pytest.mark.parametrize(
    "box", [(-10, -20, 64), (140, 60, 64), (-40, -40, 240), (200, 20, 32), (-90, 10, 32), (20, -200, 50), (10, 96, 32)]
)
def test_beyond_the_edge_of_the_picture_the_border_is_repeated(drawing, box):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (96, 160, 3), np.uint8)
    path = drawing.write("a.mkv", [picture] * 3, codec="ffv1", pix_fmt="bgr0")
    x, y, side = box
    (crop,) = crops(path, [Window(0, 0, 2, box)], [1], size_px=side)
    rows = np.clip(np.arange(y, y + side), 0, 95)
    columns = np.clip(np.arange(x, x + side), 0, 159)
    assert np.array_equal(crop.static[0][1], picture[rows][:, columns])


@pytest.mark.parametrize("side", [32, 48, 100, 300])
def test_crops_keep_light_and_place_when_resized(drawing, side):
    rows, columns = np.mgrid[:320, :320]
    ramp = np.stack([rows * 0.7, columns * 0.7, np.full((320, 320), 80)], axis=-1).astype(np.uint8)
    path = drawing.write("a.mkv", [ramp] * 3, codec="ffv1", pix_fmt="bgr0")
    (crop,) = crops(path, [Window(0, 0, 2, (10, 15, side))], [0], size_px=64)
    places = (np.arange(64) + 0.5) / 64 * side - 0.5
    shown = crop.static[0][1].astype(float)
    inner = slice(2, -2)
    assert shown[inner, 32, 0] == pytest.approx((15 + places[inner]) * 0.7, abs=1.5)
    assert shown[32, inner, 1] == pytest.approx((10 + places[inner]) * 0.7, abs=1.5)
    assert crop.grey.shape == (3, 64, 64)


def test_decoding_stops_after_the_last_window(drawing):
    path = drawing.write("a.mp4", drawing.pictures(100), container_options={"movflags": "+faststart"})
    windows = [Window(0, 0, 20, (0, 0, 96))]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    assert len(crops(path, windows, [3], size_px=32)) == 1


def test_a_video_that_became_shorter_is_refused(drawing):
    path = drawing.write("a.mp4", drawing.pictures(30))
    with pytest.raises(VideoError) as caught:
        crops(path, [Window(0, 0, 64, (0, 0, 96))], [])
    assert (caught.value.stage, caught.value.reason) == ("decode", "changed")


def whole(path: Path, detector) -> tuple[FaceTrack, list[CropWindow]]:
    track = track_faces(path, detector, VideoSettings(), FaceSettings())
    windows = plan_windows(track, DEFAULT)
    return track, crops(path, windows, plan_static(windows, DEFAULT))


def test_rotated_recordings_give_the_crops_of_the_original(corpus, detector):
    track, original = whole(corpus / "plain" / "single_face.mp4", detector)
    for name in ["rot90_phone_style_single_face.mp4", "rot180_phone_style_single_face.mp4"]:
        turned_track, turned = whole(corpus / "hard" / name, detector)
        # Sides of the face are 170 px: boxes agree to 2 %, crops to the two files' compression noise.
        assert np.abs(turned_track.boxes - track.boxes).max() < 4.0
        assert [crop.window.fields for crop in turned] == [crop.window.fields for crop in original]
        for first, second in zip(original, turned, strict=True):
            assert np.abs(np.subtract(first.window.box, second.window.box)).max() <= 2
            assert np.abs(first.grey.astype(int) - second.grey).mean() < 3.0


def test_faces_in_crops_of_real_clips_are_whole_and_central(corpus, detector):
    witness = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
    seen = []
    for path in sorted(corpus.glob("fi_v2/*.mp4"))[:2]:
        _, windows = whole(path, detector)
        for _, face in (static for crop in windows for static in crop.static):
            for x, y, side, _ in witness.detectMultiScale(grey(face), 1.1, 4, minSize=(80, 80)):
                seen.append((x + side / 2, y + side / 2, side))
    assert len(seen) > 20
    centre_x, centre_y, side = np.median(seen, axis=0)
    assert centre_x == pytest.approx(112, abs=20)
    assert centre_y == pytest.approx(112, abs=20)
    assert 100 < side < 180


def test_windows_of_a_real_clip_show_its_frames(corpus, detector):
    path = corpus / "plain" / "grid_bbaf2n.mpg"
    _, (crop,) = whole(path, detector)
    pictures = list(grid_frames(path, 25.0))
    x, y, side = crop.window.box
    assert min(x, y) >= 0
    assert max(x, y) + side <= 360
    for index in (0, 30, 64):
        cut = grey(pictures[index])[y : y + side, x : x + side]
        small = cv2.resize(crop.grey[index], cut.shape[::-1], interpolation=cv2.INTER_AREA)[: len(cut)]
        assert np.abs(small.astype(int) - cut).mean() < 4.0

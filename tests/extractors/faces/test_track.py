"""The main person is followed: through gaps, beside others, across cuts."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from clips import cut_clip

from extractors.errors import VideoError
from extractors.faces.boxes import overlaps
from extractors.faces.persons import MAX_TRACKLETS, Tracklet, people, tracklets
from extractors.faces.settings import FaceSettings
from extractors.faces.track import FaceTrack, follow, track_faces
from extractors.video.grid import grid_frames
from extractors.video.settings import VideoSettings
from extractors.video.shots import Shots

SHARP = FaceSettings(smoothing_s=0)
NOBODY = np.zeros((0, 9), np.float32)


def face(x: float, y: float = 100.0, side: float = 80.0, score: float = 0.9) -> list[float]:
    eyes = [x + 0.3 * side, y + 0.4 * side, x + 0.7 * side, y + 0.4 * side]
    return [x, y, side, side, score, *eyes]


def frames(*per_frame: list[list[float]]) -> list[np.ndarray]:
    return [np.array(faces, np.float32).reshape(-1, 9) for faces in per_frame]


def main_person(
    detections: list[np.ndarray],
    settings: FaceSettings = SHARP,
    *,
    shots: np.ndarray | None = None,
    who: Callable[[Tracklet], int] | None = None,
) -> FaceTrack:
    """Follow the main person; `who` names the person of each tracklet, as a perfect recognizer does."""
    numbers = np.zeros(len(detections), np.int32) if shots is None else shots.astype(np.int32)
    cut = Shots(numbers, *np.zeros((2, len(detections)), bool))
    found = tracklets(detections, cut.numbers, fps=25.0)
    vectors = np.full((len(found), 8), np.nan) if who is None else np.eye(8)[[who(tracklet) for tracklet in found]]
    return follow(next(iter(people(found, vectors)), []), cut, fps=25.0, settings=settings)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 10, 10], 1 / 3),
        ([0, 0, 10, 10], [10, 0, 10, 10], 0.0),
        ([0, 0, 10, 10], [2, 2, 5, 5], 0.25),
        ([0, 0, 10, 10], [-50, -50, 10, 10], 0.0),
    ],
)
def test_overlap_of_two_boxes(first, second, expected):
    assert overlaps(np.array(first, float), np.array(second, float)) == pytest.approx(expected)
    assert overlaps(np.array(second, float), np.array(first, float)) == pytest.approx(expected)


def test_a_single_person_is_followed_exactly():
    detections = frames(*[[face(100 + 3 * k, score=0.8)] for k in range(50)])
    track = main_person(detections)
    assert track.boxes[:, 0].tolist() == [100 + 3 * k for k in range(50)]
    assert track.scores == pytest.approx(np.full(50, 0.8))
    assert track.coverage == 1.0
    assert track.boxes.dtype == track.scores.dtype == np.float32


@pytest.mark.parametrize(("missing", "filled"), [(1, True), (25, True), (26, False), (60, False)])
def test_gaps_of_up_to_a_second_are_filled_by_straight_lines(missing, filled):
    detections = frames(*[[face(100)]] * 40, *[[]] * missing, *[[face(126)]] * 40)
    track = main_person(detections)
    gap = slice(40, 40 + missing)
    assert track.tracked[gap].all() == filled
    assert track.tracked[gap].any() == filled
    assert (track.scores[gap] == 0).all()
    assert track.coverage == pytest.approx(80 / (80 + missing))
    if filled:
        assert track.boxes[gap, 0] == pytest.approx(100 + 26 * np.arange(1, missing + 1) / (missing + 1), rel=1e-5)


def test_beginning_and_end_without_a_face_stay_unknown():
    track = main_person(frames(*[[]] * 10, *[[face(100)]] * 30, *[[]] * 10))
    assert track.tracked.tolist() == [False] * 10 + [True] * 30 + [False] * 10


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"side": 60.0, "score": 0.95}, "smaller"),
        ({"score": 0.75}, "less sure"),
    ],
)
def test_the_larger_or_surer_of_two_people_is_the_main_one_throughout(order, other, why):
    noise = np.random.default_rng(0).normal(0, 2, size=(200, 2))
    detections = frames(*[[face(100 + noise[k, 0]), face(400 + noise[k, 1], **other)][::order] for k in range(200)])
    assert np.abs(main_person(detections).boxes[:, 0] - 100).max() < 20, why


def test_who_is_there_longer_wins_over_who_is_there_larger_for_a_moment():
    detections = frames(*[[face(100), *([face(400, side=120)] if k < 50 else [])] for k in range(200)])
    assert np.nanmax(main_person(detections).boxes[:, 0]) == 100


def test_while_the_main_person_looks_away_nobody_else_takes_the_place():
    away = range(60, 110)  # 2 s, longer than gaps that are filled
    detections = frames(
        *[[*([] if k in away else [face(100)]), *([face(400)] if 50 <= k < 160 else [])] for k in range(200)]
    )
    track = main_person(detections)
    assert (track.boxes[track.tracked, 0] == 100).all()
    assert not track.tracked[60:110].any()


def test_eyes_move_with_the_box_and_are_unknown_where_no_detection_has_them():
    detections = frames(*[[face(100 + k)] for k in range(60)])
    for k in (0, *range(30, 34), 59):
        detections[k][:, 5:] = np.nan
    track = main_person(detections, FaceSettings(smoothing_s=0.4))
    known = slice(1, 59)
    assert track.eyes[known, 0] == pytest.approx(track.boxes[known, 0] + 24)
    assert track.eyes[known, 3] == pytest.approx(np.full(58, 132))
    assert np.isnan(track.eyes[[0, 59]]).all()
    assert not np.isnan(track.boxes).any()


def test_boxes_and_eyes_are_neither_filled_nor_smoothed_across_a_cut():
    """The box stays within reach of the one before, so that only the cut tells that the face is another picture's."""
    detections = frames(*[[face(100)]] * 40, *[[]] * 5, *[[face(120)]] * 40)
    shots = np.arange(85) // 43
    track = main_person(detections, FaceSettings(smoothing_s=0.4), shots=shots, who=lambda one: 0)
    assert set(track.boxes[:40, 0].tolist()) == {100.0}
    assert set(track.boxes[45:, 0].tolist()) == {120.0}
    assert not track.tracked[40:45].any()
    assert set(track.eyes[45:, 0].tolist()) == {144.0}
    assert track.shots.tolist() == shots.tolist()


def test_a_short_false_detection_elsewhere_is_not_followed():
    detections = frames(*[[face(100)]] * 50, *[[face(500)]] * 10, *[[]] * 40, *[[face(100)]] * 50)
    assert np.nanmax(main_person(detections).boxes[:, 0]) == 100


def test_a_cut_that_moves_the_picture_is_followed_without_a_slide():
    detections = frames(*[[face(100)]] * 60, *[[face(500, side=120)]] * 60)
    track = main_person(detections, FaceSettings(smoothing_s=0.4), shots=np.arange(120) // 60, who=lambda one: 0)
    assert set(track.boxes[:60, 0].tolist()) == {100.0}
    assert set(track.boxes[60:, 0].tolist()) == {500.0}
    assert track.coverage == 1.0


def test_a_gap_at_a_cut_is_not_filled():
    detections = frames(*[[face(100)]] * 60, *[[]] * 5, *[[face(500)]] * 60)
    track = main_person(detections, shots=np.arange(125) // 63, who=lambda one: 0)
    assert not track.tracked[60:65].any()
    assert track.coverage == pytest.approx(120 / 125)


@pytest.mark.parametrize("length", [25, 50, 70, 88, 125])
def test_a_camera_that_alternates_between_two_sides_of_a_person_loses_nothing(length):
    """The spans of the tracklets on each side overlap, but no frame has both."""
    side = np.arange(375) // length % 2
    detections = frames(*[[face(100 if k == 0 else 400)] for k in side])
    track = main_person(detections, shots=np.arange(375) // length, who=lambda one: 0)
    assert track.boxes[:, 0].tolist() == np.where(side == 0, 100.0, 400.0).tolist()
    assert track.coverage == 1.0
    # Without cuts the tracklets of both sides last, for a person may be lost for some seconds.
    assert main_person(detections, who=lambda one: 0).coverage == 1.0


def test_of_two_people_who_take_turns_the_one_who_is_seen_more_is_the_main_one():
    shots = np.searchsorted([60, 100, 160, 210], np.arange(260), "right")
    detections = frames(*[[face(100 if number % 2 == 0 else 110)] for number in shots])
    track = main_person(detections, shots=shots, who=lambda one: int(one.faces[0, 0] == 110))
    assert (track.scores > 0).tolist() == (shots % 2 == 0).tolist()


def test_people_who_are_seen_together_are_different_however_much_alike():
    detections = frames(*[[face(100), face(400)]] * 100)
    track = main_person(detections, who=lambda one: 0)
    assert set(track.boxes[:, 0].tolist()) in ({100.0}, {400.0})


@pytest.mark.parametrize(("cosine", "side", "count"), [(0.45, 80, 2), (0.45, 33, 1), (0.35, 33, 2), (0.55, 80, 1)])
def test_large_faces_must_be_more_alike_than_small_ones_to_be_one_person(cosine, side, count):
    found = tracklets(frames(*[[face(0, side=80)]] * 10, *[[face(300, side=side)]] * 10), np.zeros(20), fps=25.0)
    vectors = np.array([[1, 0], [cosine, np.sqrt(1 - cosine**2)]])
    assert len(people(found, vectors)) == count


def test_a_part_that_interrupts_a_shot_has_a_tracklet_of_its_own_and_the_shot_goes_on():
    parts = np.array([0] * 10 + [1] * 4 + [0] * 10)
    found = tracklets(frames(*[[face(0)]] * 24), parts, fps=25.0)
    assert [one.frames.tolist() for one in found] == [[*range(10), *range(14, 24)], [10, 11, 12, 13]]


def test_two_people_who_cross_a_frame_are_told_apart_by_overlap():
    detections = frames(*[[face(100 + 2 * k), face(700 - 2 * k, y=260)] for k in range(150)])
    x = main_person(detections).boxes[:, 0]
    assert (x == 100 + 2 * np.arange(150)).all() or (x == 700 - 2 * np.arange(150)).all()


def test_smoothing_reduces_jitter_and_keeps_steady_motion():
    rng = np.random.default_rng(1)
    truth = 100 + 2.0 * np.arange(200)
    noisy = frames(*[[face(x + rng.normal(0, 2))] for x in truth])
    rough, smooth = main_person(noisy).boxes[:, 0] - truth, main_person(noisy, FaceSettings()).boxes[:, 0] - truth
    assert smooth[5:-5].std() < 0.55 * rough[5:-5].std()  # the mean of five independent errors: 1 / sqrt(5) = 0.45
    still = main_person(frames(*[[face(x)] for x in truth]), FaceSettings()).boxes[:, 0]
    assert still == pytest.approx(truth)


def test_nobody_gives_an_empty_track():
    track = main_person([NOBODY] * 7)
    assert track.boxes.shape == (7, 4)
    assert not track.tracked.any()
    assert track.coverage == 0.0
    assert main_person([]).coverage == 0.0


def test_rows_round_trip():
    track = main_person(frames(*[[face(100)]] * 5, *[[]] * 30, *[[face(120)]] * 5), shots=np.arange(40) // 20)
    back = FaceTrack.from_rows(track.to_rows())
    assert np.array_equal(back.boxes, track.boxes, equal_nan=True)
    assert np.array_equal(back.scores, track.scores)
    assert np.array_equal(back.eyes, track.eyes, equal_nan=True)
    assert np.array_equal(back.shots, track.shots)
    assert back.shots.dtype == np.int32
    assert track.to_rows().shape == (40, 10)
    assert track.to_rows().dtype == np.float32
    with pytest.raises(ValueError, match=r"\[frames, 10\]"):
        FaceTrack.from_rows(np.zeros((3, 4), np.float32))


def test_two_hours_of_faces_with_false_ones_among_them_are_followed_in_seconds():
    rng = np.random.default_rng(3)
    count = 20_000
    path = 400 + np.cumsum(rng.normal(0, 2, size=(count, 2)), axis=0)
    detections = [
        np.array(
            [face(*path[k])] + [face(rng.uniform(2000, 4000), rng.uniform(0, 9000), 40, 0.7)] * (k % 3 == 0), np.float32
        )
        for k in range(count)
    ]
    assert count // 3 > MAX_TRACKLETS
    track = main_person(detections)
    assert track.boxes[:, :2] == pytest.approx(path, abs=0.01)


@pytest.mark.parametrize("name", ["two_faces_720p.mp4", "twofaces_grid.mp4"])
def test_of_two_people_on_film_one_is_followed_throughout(corpus, detector, name):
    track = track_faces(corpus / "hard" / name, detector, VideoSettings(), FaceSettings())
    assert track.coverage > 0.95
    centres = track.boxes[:, 0] + track.boxes[:, 2] / 2
    steps = np.abs(np.diff(centres[track.tracked]))
    assert steps.max() < 0.25 * np.nanmedian(track.boxes[:, 2])
    # One sits in the left half of the picture, the other in the right.
    middle = {"two_faces_720p.mp4": 640, "twofaces_grid.mp4": 360}[name]
    sides = centres[track.tracked] < middle
    assert sides.all() or not sides.any()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_face_cartoon.mp4", "no_face"),
        ("no_face_earth.mp4", "no_face"),
        ("no_face_rotated180_vfr.mp4", "low_coverage"),
        ("digit_in_ellipse_false_face.mp4", "no_face"),
        ("rotated90_two_frames.mov", "no_face"),
    ],
)
def test_recordings_without_a_face_are_refused(corpus, detector, tmp_path, name, reason):
    path = corpus / "hard" / name
    if name == "no_face_earth.mp4":
        path = cut_clip(path, tmp_path / name, 100)  # of 901 frames
    with pytest.raises(VideoError) as caught:
        track_faces(path, detector, VideoSettings(), FaceSettings())
    assert (caught.value.stage, caught.value.reason) == ("faces", reason)


def test_a_face_in_a_third_of_the_video_is_tracked_there_only(corpus, detector):
    track = track_faces(corpus / "hard" / "noface_then_face_vfr.mov", detector, VideoSettings(), FaceSettings())
    assert 0.3 < track.coverage < 0.5
    first = int(np.flatnonzero(track.tracked)[0])
    # The film changes from titles to a man once; its very last frame is black.
    assert track.tracked[first:-1].all()
    assert not track.tracked[-1]


def test_signing_people_with_small_faces_are_tracked_throughout(corpus, detector):
    for path in sorted(corpus.glob("plain/*asl*")):
        assert track_faces(path, detector, VideoSettings(), FaceSettings()).coverage > 0.95


@pytest.mark.parametrize(("rate", "share"), [(25, 0.0), (12.5, 0.5), (5, 0.8)])
def test_slow_sources_are_told_by_the_share_of_repeated_frames(corpus, drawing, detector, rate, share):
    pictures = list(islice(grid_frames(corpus / "plain" / "single_face.mp4", 25.0), 20))
    path = drawing.write("a.mp4", pictures, rate=Fraction(rate))
    quality = track_faces(path, detector, VideoSettings(), FaceSettings()).quality
    assert quality.repeated_share == pytest.approx(share, abs=0.01)


def test_pictures_that_are_held_count_as_repeated(corpus, drawing, detector):
    """Variable frame rate: every tenth picture stays for eleven frames."""
    pictures = list(islice(grid_frames(corpus / "plain" / "single_face.mp4", 25.0), 30))
    times = [number + 10 * (number // 10) for number in range(30)]
    quality = track_faces(
        drawing.write("a.mp4", pictures, times=times), detector, VideoSettings(), FaceSettings()
    ).quality
    assert quality.repeated_share == pytest.approx(20 / 50, abs=0.01)

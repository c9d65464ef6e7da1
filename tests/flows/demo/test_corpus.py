"""The demo corpus against witnesses that know nothing of how it was made: a detector, optical flow, a file reader."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import av
import cv2
import mediapipe
import numpy as np
import pytest
from mediapipe.tasks.python import BaseOptions, vision

from extractors.errors import DeviceError
from extractors.video import encoding
from flows.demo import corpus as demo_corpus
from flows.demo.corpus import CLIPS, DemoCorpus, DemoCorpusError, clip_frames, render_demo_corpus
from flows.demo.motion import HeadPose, HeadWarp
from fusion.labels.read import read_labels
from fusion.traits import TRAITS

NAMES = ("still", "nod", "shake", "tilt", "approach", "sway", "jitter", "mixed")

# Worked out by hand from the rule in the docstring, trait order.
VALUES_BY_HAND = {
    "still": (0.5, 0.9, 0.31, 0.3, 0.16),
    "nod": (0.66, 0.45, 0.82, 0.78, 0.12),
    "jitter": (0.26, 0.5, 0.19, 0.14, 0.84),
    "mixed": (0.58, 0.45, 0.59, 0.58, 0.44),
}


@pytest.fixture(scope="module")
def shown(rendered) -> dict[str, list[np.ndarray]]:
    """Every fifth frame, uint8 RGB [480, 640, 3], by clip."""
    return {name: decode(rendered, name)[::5] for name in NAMES}


@pytest.fixture(scope="module")
def faces(shown, face_model) -> dict[str, list[list]]:
    """MediaPipe's detections in every fifth frame, by clip."""
    options = vision.FaceDetectorOptions(base_options=BaseOptions(model_asset_path=str(face_model)))
    with vision.FaceDetector.create_from_options(options) as detector:
        return {
            name: [
                detector.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)).detections
                for frame in frames
            ]
            for name, frames in shown.items()
        }


@pytest.fixture(scope="module")
def face_motion(rendered, faces) -> dict[str, np.ndarray]:
    """Mean motion (dx, dy) of the middle of the face from frame to frame, px, by clip: [62, 2], two nods and shakes."""
    return {
        name: mean_motion(decode(rendered, name, 63), faces[name][0][0].bounding_box)
        for name in ("nod", "shake", "jitter")
    }


@pytest.fixture
def three_frames(monkeypatch) -> None:
    """Clips so few and so short that a test can afford to render several corpora."""
    monkeypatch.setattr(demo_corpus, "CLIPS", [dataclasses.replace(clip, frames=3) for clip in CLIPS[:3]])


def decode(corpus: DemoCorpus, name: str, frames: int | None = None) -> list[np.ndarray]:
    """So many frames of one clip from its start, or all, uint8 RGB [480, 640, 3]."""
    with av.open(str(corpus.videos / f"{name}.mp4")) as video:
        return [frame.to_ndarray(format="rgb24") for frame in islice(video.decode(video=0), frames)]


def frames_of(name: str) -> int:
    return 300 if name == "mixed" else 100


def mean_motion(clip: list[np.ndarray], box) -> np.ndarray:
    face = np.s_[box.origin_y : box.origin_y + box.height, box.origin_x : box.origin_x + box.width]
    grey = [cv2.cvtColor(np.ascontiguousarray(frame[face]), cv2.COLOR_RGB2GRAY) for frame in clip]
    fields = [
        cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 21, 3, 7, 1.5, 0) for before, after in pairwise(grey)
    ]
    edge = box.width // 5
    return np.stack(fields)[:, edge:-edge, edge:-edge].mean(axis=(1, 2))


def reversals_per_s(speed: np.ndarray) -> float:
    return float(np.count_nonzero(np.diff(np.sign(speed)))) / (len(speed) / 25)


def widths(detections: list[list]) -> np.ndarray:
    return np.array([found[0].bounding_box.width for found in detections])


def eye_line_deg(detections: list[list]) -> np.ndarray:
    """Angle of the line through both eyes in each frame, degrees."""
    eyes = np.array([[(eye.x * 640, eye.y * 480) for eye in found[0].keypoints[:2]] for found in detections])
    right, down = (eyes[:, 1] - eyes[:, 0]).T
    return np.degrees(np.arctan2(down, right))


def test_corpus_is_eight_small_silent_clips_at_25_fps_one_of_them_longer(rendered):
    assert sorted(path.name for path in rendered.videos.iterdir()) == sorted(f"{name}.mp4" for name in NAMES)
    for name in NAMES:
        path = rendered.videos / f"{name}.mp4"
        assert path.stat().st_size < 300_000
        with av.open(str(path)) as video:
            assert [stream.type for stream in video.streams] == ["video"]
            stream = video.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width, stream.height, stream.average_rate) == (640, 480, 25)
            times_s = [float(frame.pts * frame.time_base) for frame in video.decode(stream)]
        assert times_s == pytest.approx(np.arange(frames_of(name)) / 25)


def test_every_fifth_frame_shows_exactly_one_face_of_good_size(faces):
    for name, detections in faces.items():
        assert [len(found) for found in detections] == [1] * (frames_of(name) // 5), name
        assert widths(detections).min() > 145, name
        assert widths(detections).max() < 215, name


def test_still_clip_does_not_move_and_every_other_one_does(rendered):
    change = {
        name: np.mean([cv2.absdiff(after, before).mean() for before, after in pairwise(decode(rendered, name, 50))])
        for name in NAMES
    }
    assert change.pop("still") < 0.1
    assert min(change.values()) > 0.3


def test_background_and_shoulders_stay_where_they_are(shown):
    for name, (first, *others) in shown.items():
        for frame in others[3::4]:
            change = cv2.absdiff(frame, first)
            assert change[:, :60].mean() < 2, name  # the flag
            assert change[:, -110:].mean() < 2, name  # the shuttle
            assert change[-30:, :180].mean() < 2, name  # one shoulder
            assert change[-30:, -180:].mean() < 2, name  # the other


def test_shaking_head_moves_sideways_and_nodding_head_up_and_down(face_motion):
    (shake_x, shake_y), (nod_x, nod_y) = (np.abs(face_motion[name]).mean(axis=0) for name in ("shake", "nod"))
    assert shake_x > 1
    assert shake_x > 4 * shake_y
    assert nod_y > 1
    assert nod_y > 4 * nod_x


def test_swaying_head_goes_sideways_as_a_whole(faces):
    boxes = [found[0].bounding_box for found in faces["sway"]]
    middle = np.array([(box.origin_x + box.width / 2, box.origin_y + box.height / 2) for box in boxes])
    across, down = np.ptp(middle, axis=0)
    assert across > 25
    assert down < 6


def test_tilting_head_turns_the_line_through_the_eyes(faces):
    assert np.ptp(eye_line_deg(faces["tilt"])) > 7
    assert np.ptp(eye_line_deg(faces["still"])) < 1


def test_approaching_face_grows_from_first_to_last(faces):
    width = widths(faces["approach"])
    assert width[-1] > 1.12 * width[0]
    assert np.diff(width).min() > -0.02 * width[0]  # but for the detector's own scatter


def test_trembling_head_turns_back_far_more_often_than_a_shaking_one(face_motion):
    assert reversals_per_s(face_motion["jitter"][:, 0]) > 6
    assert reversals_per_s(face_motion["jitter"][:, 1]) > 6
    assert reversals_per_s(face_motion["shake"][:, 0]) < 3


def test_motions_of_the_longer_clip_follow_one_another(rendered, faces):
    """A nod first, then a shake: what moves up and down, and then sideways, is the middle of the face."""
    across, down = np.abs(mean_motion(decode(rendered, "mixed", 111), faces["mixed"][0][0].bounding_box)).T
    nod, shake = slice(10, 50), slice(70, 110)
    assert down[nod].mean() > 2 * across[nod].mean()
    assert across[shake].mean() > 2 * down[shake].mean()
    assert across[nod].mean() < across[shake].mean() / 3


def test_clips_differ_in_light_and_colour(shown):
    first = np.stack([frames[0] for frames in shown.values()]).astype(float)
    assert np.ptp(first.mean(axis=(1, 2, 3))) > 30
    colourful = np.ptp(first, axis=-1).mean(axis=(1, 2))
    assert colourful.max() > 2 * colourful.min()
    redness = (first[..., 0] - first[..., 2]).mean(axis=(1, 2))
    assert redness.min() < 0 < redness.max()


def test_labels_follow_the_stated_rule(rendered):
    with rendered.labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["video_id", "subject", *TRAITS]
    assert [row["video_id"] for row in rows] == [f"{name}.mp4" for name in NAMES]
    values = {row["video_id"].removesuffix(".mp4"): [float(row[trait]) for trait in TRAITS] for row in rows}
    for name, expected in VALUES_BY_HAND.items():
        assert values[name] == pytest.approx(expected, abs=1e-9), name


def test_every_trait_varies_even_when_one_person_is_held_out(rendered):
    labels = read_labels(rendered.labels)
    assert sorted(labels.subjects) == sorted(2 * [f"person-{number}" for number in range(4)])
    for held_out in (None, *set(labels.subjects)):
        kept = labels.values[[subject != held_out for subject in labels.subjects]]
        assert kept.std(axis=0).min() > 0.1, held_out


@pytest.mark.parametrize(
    "pose",
    [
        HeadPose(pitch=np.radians(15)),
        HeadPose(pitch=np.radians(-15)),
        HeadPose(yaw=np.radians(17)),
        HeadPose(roll=np.radians(-14)),
        HeadPose(scale=1.22),
        HeadPose(shift_px=(45, 3)),
    ],
    ids=["down", "up", "right", "lean", "near", "aside"],
)
def test_head_moves_without_folding_the_picture_or_touching_what_is_far_from_it(pose):
    x, y = np.meshgrid(np.arange(640, dtype=np.float32), np.arange(480, dtype=np.float32))
    warp = HeadWarp(size=(640, 480), head=(320, 200, 130, 150), face=(320, 220), neck=(320, 380))
    from_x, from_y = np.moveaxis(warp(np.stack([x, y, x], axis=-1), pose), -1, 0)[:2]
    inner = np.s_[30:-30, 30:-30]  # mirrored coordinates lie beyond the border
    dx_dy, dx_dx = np.gradient(from_x[inner])
    dy_dy, dy_dx = np.gradient(from_y[inner])
    assert (dx_dx * dy_dy - dx_dy * dy_dx).min() > 0.2
    far = np.hypot((x - 320) / 130, (y - 200) / 150) > 1.8
    np.testing.assert_allclose(from_x[far], x[far], atol=1e-3)
    np.testing.assert_allclose(from_y[far], y[far], atol=1e-3)
    assert np.hypot(from_x - x, from_y - y).max() > 15


def test_resting_pose_leaves_the_picture_as_it_is():
    picture = np.random.default_rng(0).uniform(0, 255, (480, 640, 3)).astype(np.float32)
    warp = HeadWarp(size=(640, 480), head=(320, 200, 130, 150), face=(320, 220), neck=(320, 380))
    np.testing.assert_allclose(warp(picture, HeadPose()), picture, atol=1e-3)


@pytest.mark.usefixtures("three_frames")
def test_same_seed_gives_the_same_pictures_and_another_seed_others():
    portrait = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    mixed = dataclasses.replace(CLIPS[NAMES.index("mixed")], frames=3, in_turn=False)
    first, again, other = (np.stack(list(clip_frames(mixed, portrait, seed=seed))) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 1


@pytest.mark.usefixtures("three_frames")
def test_complete_corpus_is_left_as_it_is(tmp_path):
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    first = render_demo_corpus(tmp_path)
    before = times()
    assert render_demo_corpus(tmp_path) == first
    assert times() == before


@pytest.mark.usefixtures("three_frames")
@pytest.mark.parametrize("damage", ["clip missing", "clip cut short", "labels changed"])
def test_damaged_corpus_is_rendered_afresh(tmp_path, damage):
    corpus = render_demo_corpus(tmp_path)
    pictures, labels = decode(corpus, "nod"), corpus.labels.read_bytes()
    clip = corpus.videos / "nod.mp4"
    if damage == "clip missing":
        clip.unlink()
    elif damage == "clip cut short":
        clip.write_bytes(clip.read_bytes()[:-100])
    else:
        corpus.labels.write_text("video_id\n", encoding="utf-8")
    render_demo_corpus(tmp_path)
    np.testing.assert_array_equal(decode(corpus, "nod"), pictures)
    assert corpus.labels.read_bytes() == labels


@pytest.mark.usefixtures("three_frames")
def test_corpus_of_another_seed_is_replaced_and_keeps_its_labels(tmp_path):
    corpus = render_demo_corpus(tmp_path, seed=1)
    pictures, labels = np.stack(decode(corpus, "nod")), corpus.labels.read_bytes()
    render_demo_corpus(tmp_path, seed=2)
    assert np.abs(pictures.astype(int) - decode(corpus, "nod")).mean() > 0.5
    assert corpus.labels.read_bytes() == labels


@pytest.mark.usefixtures("three_frames")
def test_broken_off_rendering_leaves_no_partial_clip_and_is_made_good(tmp_path, monkeypatch):
    def stops_in_third_clip(clip, portrait, *, seed) -> Iterator[np.ndarray]:
        for number, frame in enumerate(clip_frames(clip, portrait, seed=seed)):
            if clip.name == "shake" and number == 1:
                raise KeyboardInterrupt
            yield frame

    with monkeypatch.context() as broken:
        broken.setattr(demo_corpus, "clip_frames", stops_in_third_clip)
        with pytest.raises(KeyboardInterrupt):
            render_demo_corpus(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["nod.mp4", "still.mp4", "videos"]
    (tmp_path / "videos" / ".tmp-0-shake.mp4").write_bytes(b"what a killed process leaves")
    corpus = render_demo_corpus(tmp_path)
    assert sorted(path.name for path in corpus.videos.iterdir()) == ["nod.mp4", "shake.mp4", "still.mp4"]


@pytest.mark.usefixtures("three_frames")
def test_without_x264_clips_are_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "ENCODERS", ("no such encoder", "mpeg4"))
    corpus = render_demo_corpus(tmp_path)
    with av.open(str(corpus.videos / "nod.mp4")) as video:
        assert video.streams.video[0].codec_context.name == "mpeg4"
        assert len(list(video.decode(video=0))) == 3


def test_missing_encoder_missing_portrait_and_a_file_in_the_way_are_said_in_one_line(tmp_path, monkeypatch):
    with monkeypatch.context() as lacking:
        lacking.setattr(encoding, "ENCODERS", ("no such encoder",))
        with pytest.raises(DeviceError, match="install the av wheel"):
            render_demo_corpus(tmp_path)
    with monkeypatch.context() as lacking:
        lacking.setitem(sys.modules, "skimage", None)
        with pytest.raises(DemoCorpusError, match=r"pip install 'traitline\[demo\]'"):
            render_demo_corpus(tmp_path)
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(DemoCorpusError, match="name another folder"):
        render_demo_corpus(in_the_way)

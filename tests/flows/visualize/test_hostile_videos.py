"""Commands that draw or train read videos in a child process: a hostile one costs a message, not the process."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from face_tracks import track_of

from extractors.faces.track import FaceTrack
from extractors.preparation.preparer import Request
from extractors.video.digests import sha256_of
from flows.archive.reader import VideoReader
from flows.archive.videos import VideoFile
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.evaluation.layers import _inputs
from flows.pipeline.finetune import _Faces
from flows.session.errors import UserError
from flows.visualize.clip import faces_of, frames_throughout, motion_of

READERS = {
    "faces": faces_of,
    "frames": lambda config, path: frames_throughout(config, path, 100_000.0, 8),
    "motion": lambda config, path: motion_of(config, path, [1]),
}


@pytest.fixture(params=READERS)
def read(request, face_model):
    """Each way in which `traitline visualize` and the report read a video."""
    return READERS[request.param]


def config_of(tmp_path: Path, **limits: float) -> RunConfig:
    flags = {f"limits.{name}": value for name, value in limits.items()}
    return load_config(flags={"store.path": tmp_path / "store", "weights": "random", **flags})


def drawn_video(path: Path, frames: int = 20, side: int = 96) -> Path:
    """Numbered grey pictures: that of grid frame k has the level 5 * k."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuvj420p"
        for number in range(frames):
            picture = np.full((side, side, 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def track_in_the_middle(frames: int, side: int) -> FaceTrack:
    boxes = np.tile(np.array([side / 4, side / 4, side / 2, side / 2], np.float32), (frames, 1))
    return track_of(boxes)


def bomb(path: Path) -> Path:
    """One grey picture of 9000 x 9000: 243 MB once decoded, a thousandth of that in the file."""
    _, encoded = cv2.imencode(".png" if path.suffix == ".png" else ".jpg", np.full((9000, 9000, 3), 90, np.uint8))
    path.write_bytes(encoded.tobytes() * (1 if path.suffix == ".png" else 3))
    return path


@pytest.mark.parametrize("name", ["bomb.mjpeg", "bomb.png"])
def test_too_large_pictures_are_refused_and_never_decoded_here(tmp_path, face_model, name):
    path, config = bomb(tmp_path / name), config_of(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"9000 x 9000.*limits\.pixels"):
        faces_of(config, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def test_a_video_beyond_a_limit_is_refused_by_each_reader(tmp_path, read):
    path = drawn_video(tmp_path / "long.avi")
    with pytest.raises(UserError, match=r"limits\.frames"):
        read(config_of(tmp_path, frames=2), path)


def test_a_video_that_takes_too_long_is_given_up(tmp_path):
    path = drawn_video(tmp_path / "slow.avi")
    with pytest.raises(UserError, match=r"limits\.wall_s"):
        frames_throughout(config_of(tmp_path, wall_s=1e-6), path, 0.8, 1)


@pytest.mark.parametrize("name", ["faces", "motion"])  # frames alone decode at times, and at times crash
def test_a_video_that_crashes_the_decoder_costs_one_message(tmp_path, face_model, corpus, name):
    with pytest.raises(UserError, match="qcif_rgb"):
        READERS[name](config_of(tmp_path), corpus / "hard" / "crashes_decoder_qcif_rgb.avi")


def test_layers_and_fine_tuning_read_within_limits_too(tmp_path):
    path, track = drawn_video(tmp_path / "clip.avi", frames=20), track_in_the_middle(20, 96)
    faces = object.__new__(_Faces)  # its store is of no interest here
    faces._files, faces.tracks = {"clip.avi": VideoFile("clip.avi", path, "")}, {"clip.avi": track}
    config = config_of(tmp_path)
    with VideoReader(config) as reader:
        assert faces.read(reader, "clip.avi").shape == (16, 224, 224, 3)
        crops, window = _inputs(config, reader, path, track)
    assert (crops.shape, window.shape) == ((16, 224, 224, 3), (1, 64, 224, 224, 2))
    config = config_of(tmp_path, frames=2)
    with VideoReader(config) as reader:
        with pytest.raises(UserError, match=r"limits\.frames"):
            faces.read(reader, "clip.avi")
        with pytest.raises(UserError, match=r"limits\.frames"):
            _inputs(config, reader, path, track)


def test_the_frames_asked_for_come_from_their_moments(tmp_path):
    path = drawn_video(tmp_path / "clip.avi")
    with VideoReader(config_of(tmp_path)) as reader:
        found = reader.frames(path, [17, 0, 5])
    assert list(found) == [0, 5, 17]
    for number, picture in found.items():
        assert picture.shape == (96, 96, 3)
        assert np.abs(picture.astype(int) - 5 * number).max() <= 3


def test_frames_throughout_a_video_divide_it_evenly(tmp_path):
    found = frames_throughout(config_of(tmp_path), drawn_video(tmp_path / "clip.avi"), 0.8, 4)
    assert list(found) == [0.08, 0.28, 0.48, 0.68]  # the last grid frames before the middles of its quarters
    for time_s, picture in found.items():
        assert np.abs(picture.astype(int) - 5 * round(25 * time_s)).max() <= 3


def test_only_the_windows_asked_for_come_and_the_reader_outlives_a_refusal(tmp_path):
    config = load_config(
        flags={"store.path": tmp_path / "store", "weights": "random"}, assignments=["crops.window_fields=16"]
    )
    path, track = drawn_video(tmp_path / "clip.avi", frames=50), track_in_the_middle(50, 96)
    with VideoReader(config) as reader:
        (part,) = reader.parts(Request(path, track, dynamic=True, windows=frozenset([1])))
        assert (part.window.first_frame, part.fields.shape, part.fields.dtype) == (16, (17, 224, 224), np.uint8)
        with pytest.raises(UserError, match="nowhere"):
            reader.frames(tmp_path / "nowhere.avi", [0])
        assert list(reader.frames(path, [1])) == [1]


def test_frames_come_one_by_one_in_order_even_if_the_child_process_is_killed(tmp_path):
    path = drawn_video(tmp_path / "clip.avi", frames=50)
    numbers = []
    with VideoReader(config_of(tmp_path)) as reader:
        for frame in reader.each_frame(path, range(50), sha256_of(path)):
            numbers.append(frame.number)
            assert np.abs(frame.pixels.astype(int) - 5 * frame.number).max() <= 6
            if frame.number == 3 and len(numbers) == 4:
                (child,) = reader._pool._children
                os.kill(child._process.pid, signal.SIGKILL)
    assert numbers == list(range(50))


def test_a_video_other_than_that_of_the_track_is_refused(tmp_path):
    path = drawn_video(tmp_path / "clip.avi")
    with VideoReader(config_of(tmp_path)) as reader, pytest.raises(UserError, match="changed"):
        list(reader.each_frame(path, range(20), "0" * 64))

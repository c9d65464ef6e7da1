"""Grid frames are the right ones, upright, and nothing is missing unnoticed."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from extractors.errors import VideoError
from extractors.video import VideoInfo, VideoSettings, grid_frames, probe

NTSC = Fraction(30000, 1001)
FILM = Fraction(24000, 1001)


def shown_at_grid_points(times_s: list[Fraction], end_s: Fraction, fps: int = 25) -> list[int]:
    """Which frame is shown at 0, 1/fps, 2/fps, ... before the end, by exact fractions."""
    points = [Fraction(k, fps) for k in range(int(end_s * fps) + 2) if Fraction(k, fps) < end_s]
    return [max(i for i, time in enumerate(times_s) if time <= point) for point in points]


def numbers(drawing, path: Path, fps: float = 25.0) -> list[int]:
    return [drawing.number(picture) for picture in grid_frames(path, fps)]


def refusal(path: Path, **limits: float) -> VideoError:
    with pytest.raises(VideoError) as caught:
        list(grid_frames(path, 25.0, limits=VideoSettings(**limits)))
    assert caught.value.stage == "decode"
    return caught.value


@pytest.mark.parametrize("rate", [8, 15, FILM, 24, 25, NTSC, 30, 50, 60, 120])
def test_each_grid_point_shows_the_frame_on_screen_at_that_time(drawing, rate):
    path = drawing.write("a.mp4", drawing.pictures(70), rate=rate)
    times = [Fraction(i) / rate for i in range(70)]
    assert numbers(drawing, path) == shown_at_grid_points(times, 70 / Fraction(rate))


@pytest.mark.parametrize("fps", [5, 12, 30, 60])
def test_the_grid_can_have_another_rate(drawing, fps):
    path = drawing.write("a.mp4", drawing.pictures(50), rate=25)
    times = [Fraction(i, 25) for i in range(50)]
    assert numbers(drawing, path, fps) == shown_at_grid_points(times, Fraction(2), fps)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "libx264", {"bf": "2"}),
        ("a.webm", "libvpx", {"b": "1M"}),
        ("a.flv", "libx264", {"bf": "2"}),
        ("a.ts", "libx264", {"bf": "2"}),
        ("a.mpg", "mpeg2video", {"qmax": "3", "bf": "2"}),
        ("a.avi", "mpeg4", {"qmax": "3", "bf": "2"}),
        ("a.avi", "mjpeg", {}),
        ("a.mov", "libx265", {"x265-params": "log-level=none"}),
        ("a.h264", "libx264", {"bf": "2"}),  # has no timestamps at all
    ],
)
def test_containers_with_coarse_missing_or_late_timestamps_give_the_same_frames(drawing, name, codec, options):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = drawing.write(name, drawing.pictures(40), codec=codec, options=options, pix_fmt=pix_fmt)
    assert numbers(drawing, path) == list(range(40))


def test_variable_frame_rate_is_followed_by_presentation_time(drawing):
    gaps = np.random.default_rng(0).integers(200, 9000, size=40)  # 2 ms to 0.1 s in units of 1/90000 s
    times = np.concatenate([[0], np.cumsum(gaps)]).tolist()
    path = drawing.write("a.mp4", drawing.pictures(41), times=times, time_base=Fraction(1, 90000))
    exact = [Fraction(time, 90000) for time in times]
    shown = numbers(drawing, path)
    # How long the last frame stays is the container's business; all before it is ours.
    expected = shown_at_grid_points(exact, exact[-1])
    assert shown[: len(expected)] == expected
    assert set(shown[len(expected) :]) == {40}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_time_starts_with_the_first_frame(drawing, name):
    path = drawing.write(name, drawing.pictures(30), times=range(125, 155))
    assert numbers(drawing, path) == list(range(30))


def test_frames_before_an_edit_list_begins_are_not_shown(drawing):
    path = drawing.write("a.mp4", drawing.pictures(50), times=range(-20, 30), options={"bf": "0", "g": "100"})
    assert numbers(drawing, path) == list(range(20, 50))


def test_a_clock_that_restarts_in_mid_stream_goes_on_counting(drawing):
    first = drawing.write("first.ts", drawing.pictures(30))
    second = drawing.write("second.ts", (drawing.picture(n) for n in range(30, 60)))
    joined = drawing.folder / "joined.ts"
    joined.write_bytes(first.read_bytes() * 2 + second.read_bytes())
    assert numbers(drawing, joined) == [*range(30), *range(30), *range(30, 60)]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_display_matrix_is_applied(drawing, degrees, mirrored):
    upright = drawing.picture(5)
    # What a camera that was turned stores: the inverse of what the player does (mirror, then turn clockwise).
    stored = np.rot90(upright, k=degrees // 90)
    stored = stored[:, ::-1] if mirrored else stored
    turn = {"degrees": -degrees, "hflip": mirrored} if mirrored or degrees else None
    path = drawing.write("a.mp4", [np.ascontiguousarray(stored)] * 3, turn=turn, pix_fmt="yuv444p")
    shown = next(grid_frames(path, 25.0))
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 6
    info = probe(path)
    assert (info.width, info.height) == (160, 96)
    if not mirrored:
        assert info.rotation_deg == degrees


@pytest.mark.parametrize(
    ("aspect", "shape"), [(Fraction(2, 1), (96, 320)), (Fraction(8, 9), (96, 142)), (Fraction(999, 1), (96, 160))]
)
def test_pixels_are_made_square(drawing, aspect, shape):
    path = drawing.write("a.mp4", drawing.pictures(3), aspect=aspect)
    info = probe(path)
    assert next(grid_frames(path, 25.0)).shape == (*shape, 3)
    assert (info.height, info.width) == shape


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "width", "height"),
    [
        ("libx264", "yuv444p", 161, 97),
        ("libx264", "yuv420p10le", 160, 96),
        ("libx264", "yuvj420p", 160, 96),
        ("ffv1", "gray", 160, 96),
        ("ffv1", "yuva420p", 162, 98),
        ("ffv1", "bgr0", 167, 96),
        ("ffv1", "gray16le", 160, 96),
    ],
)
def test_odd_sizes_and_unusual_pixel_formats_decode(drawing, codec, pix_fmt, width, height):
    path = drawing.write("a.mkv", drawing.pictures(10, width=width, height=height), codec=codec, pix_fmt=pix_fmt)
    shown = list(grid_frames(path, 25.0))
    assert [drawing.number(picture) for picture in shown] == list(range(10))
    truth = drawing.picture(9, width=width, height=height)
    if "gray" in pix_fmt:
        truth = cv2.cvtColor(cv2.cvtColor(truth, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    assert shown[9].shape == truth.shape
    assert np.abs(shown[9].astype(int) - truth).mean() < 6


def test_pictures_are_contiguous_read_only_and_repeated_as_the_same_object(drawing):
    path = drawing.write("a.mkv", drawing.pictures(6, width=167), codec="ffv1", pix_fmt="bgr0", rate=10)
    shown = list(grid_frames(path, 25.0))
    assert all(picture.flags.c_contiguous and not picture.flags.writeable for picture in shown)
    assert len({id(picture) for picture in shown}) == 6


def test_interlaced_video_has_no_combs(drawing):
    def fields(count):
        for i in range(count):
            picture = np.zeros((96, 160, 3), np.uint8)
            for parity in (0, 1):  # the bar moves on between the two fields of a frame
                picture[parity::2, 8 * i + 4 * parity :][:, :16] = 255
            yield picture

    path = drawing.write("a.mp4", fields(12), options={"x264-params": "tff=1", "crf": "5"})
    shown = list(grid_frames(path, 25.0))
    assert len(shown) == 12
    for picture in shown[1:]:
        rows = picture[8:-8].astype(int)
        assert np.abs(np.diff(rows, axis=0)).mean() < 1.0


def test_a_promise_that_is_not_kept_is_refused_as_truncated(drawing):
    path = drawing.write("a.mp4", drawing.pictures(100), container_options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(path).reason == "truncated"
    assert 0 < len(list(grid_frames(path, 25.0, limits=None))) < 100


def test_matroska_that_breaks_off_is_refused_as_truncated(drawing):
    path = drawing.write("a.mkv", drawing.pictures(100), options={"g": "10"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert refusal(path).reason == "truncated"


def test_short_video_beside_longer_sound_is_not_called_truncated(tmp_path, drawing):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for index, picture in enumerate(drawing.pictures(50)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for index in range(40):  # 4 s of silence beside 2 s of pictures
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, 800 * index
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert numbers(drawing, path) == list(range(50))


def spoil(path: Path, wanted: set[int]) -> None:
    """Overwrite the packets of these numbers, so that they do not decode."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for index in wanted:
        position, size = places[index]
        data[position : position + size] = bytes(size)
    path.write_bytes(data)


def test_the_frame_before_a_broken_one_stays_shown(drawing):
    path = drawing.write("a.mp4", drawing.pictures(100), options={"g": "1"})
    spoil(path, {40, 70})
    expected = list(range(100))
    expected[40], expected[70] = 39, 69
    assert numbers(drawing, path) == expected


def test_too_many_broken_frames_are_refused_as_damaged(drawing):
    path = drawing.write("a.mp4", drawing.pictures(100), options={"g": "1"})
    spoil(path, {40, 50, 60})
    error = refusal(path)
    assert error.reason == "damaged"
    assert "3 of 100" in error.message
    assert len(list(grid_frames(path, 25.0, limits=VideoSettings(max_broken_share=0.03)))) == 100


def test_broken_frames_before_the_first_good_one_do_not_count(drawing):
    path = drawing.write("a.ts", drawing.pictures(60), options={"g": "20", "bf": "0"})
    spoil(path, {0})
    # Frames 1 to 19 refer to the lost one.
    assert numbers(drawing, path)[-40:] == list(range(20, 60))


def test_a_frame_shown_for_too_long_is_refused(drawing):
    path = drawing.write("a.mp4", drawing.pictures(40), times=[*range(20), *range(520, 540)])
    assert refusal(path).reason == "timestamps"
    assert len(list(grid_frames(path, 25.0, limits=VideoSettings(max_still_s=30)))) == 540


def write_sound(path: Path, *, cover: np.ndarray | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        picture = None
        if cover is not None:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width = cover.shape[:2]
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if picture is not None:
            frame = av.VideoFrame.from_ndarray(cover, format="rgb24").reformat(format="yuvj420p")
            frame.pts = 0
            container.mux(picture.encode(frame))
            container.mux(picture.encode())
    return path


def test_sound_without_video_is_refused(tmp_path):
    assert refusal(write_sound(tmp_path / "a.m4a")).reason == "no_video"


def test_a_cover_picture_is_no_video(tmp_path, drawing):
    path = write_sound(tmp_path / "a.m4a", cover=drawing.picture(1))
    with av.open(str(path)) as container:
        assert container.streams.video
    assert refusal(path).reason == "no_video"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not_a_video"),
        (b"this is no video\n", "not_a_video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "not_a_video"),
        (None, "unreadable"),
    ],
)
def test_what_is_no_video_is_refused_without_a_word_on_the_terminal(tmp_path, capfd, content, reason):
    path = tmp_path / "-a: b%03d.mp4"
    if content is not None:
        path.write_bytes(content)
    assert refusal(path).reason == reason
    with pytest.raises(VideoError):
        probe(path)
    assert capfd.readouterr() == ("", "")


def test_a_folder_is_refused(tmp_path):
    assert refusal(tmp_path).reason == "unreadable"


def test_names_that_look_like_addresses_and_patterns_are_files(drawing):
    for name in ["http:a.mp4", "-a.mp4", "a%03d.mp4", "é 'x'\n.mp4"]:
        assert numbers(drawing, drawing.write("a.mp4", drawing.pictures(3)).rename(drawing.folder / name)) == [0, 1, 2]


def test_probe_says_what_the_first_frame_shows(drawing):
    path = drawing.write("a.mp4", drawing.pictures(50), turn={"degrees": -90})
    assert probe(path) == VideoInfo(
        width=96, height=160, rotation_deg=90, duration_s=2.0, frames_promised=50, codec="h264"
    )


def test_one_frame_gives_one_grid_frame(drawing):
    assert numbers(drawing, drawing.write("a.mp4", drawing.pictures(1))) == [0]


@pytest.mark.parametrize("name", ["single_face.mp4", "rot90_phone_style_single_face.mp4", "vfr_single_face.mp4"])
def test_opencv_shows_the_same_pictures_at_the_same_times(corpus, name):
    path = next(corpus.glob(f"*/{name}"))
    capture = cv2.VideoCapture(str(path))
    pictures, times = [], []
    while capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        pictures.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    for k, picture in enumerate(grid_frames(path, 25.0)):
        witness = pictures[np.searchsorted(times, k / 25 + 1e-4) - 1]
        assert picture.shape == witness.shape
        assert np.abs(picture.astype(int) - witness).mean() < 2.0
    assert k == 59


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.mp4", "not_a_video"),
        ("text.mp4", "not_a_video"),
        ("audioonly.mp4", "no_video"),
        ("corrupted.mp4", "damaged"),
        ("truncated_single_face.mp4", "not_a_video"),
        ("truncated_faststart_single_face.mp4", "truncated"),
    ],
)
def test_unusable_recordings_are_refused_with_their_reason(corpus, capfd, name, reason):
    assert refusal(corpus / "hard" / name).reason == reason
    assert capfd.readouterr() == ("", "")


def test_recording_that_kills_opencv_leaves_this_process_alive(corpus):
    path = corpus / "hard" / "crashes_decoder_qcif_rgb.avi"
    code = "import sys; from extractors.video import grid_frames; print(len(list(grid_frames(sys.argv[1], 25.0))))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_all_good_recordings_decode_to_their_promised_length(corpus):
    for path in sorted([*corpus.glob("fi_v2/*.mp4"), *corpus.glob("plain/*")]):
        count = sum(1 for _ in grid_frames(path, 25.0))
        assert count / 25 == pytest.approx(probe(path).duration_s, abs=0.08), path.name


def test_settings_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match="greater than 0"):
        VideoSettings(fps=0)
    with pytest.raises(ValueError, match="Extra inputs"):
        VideoSettings(frames_per_second=25)

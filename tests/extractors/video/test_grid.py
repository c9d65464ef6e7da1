"""Grid frames are the right ones, upright, with square pixels, whatever the file is like."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from extractors.video.decoding import opened, promised_s
from extractors.video.grid import grid_frames
from extractors.video.settings import VideoSettings

NTSC = Fraction(30000, 1001)
FILM = Fraction(24000, 1001)


def shown_at_grid_points(times_s: list[Fraction], end_s: Fraction, fps: int = 25) -> list[int]:
    """Which frame is shown at 0, 1/fps, 2/fps, ... before the end, by exact fractions."""
    points = [Fraction(k, fps) for k in range(int(end_s * fps) + 2) if Fraction(k, fps) < end_s]
    return [max(i for i, time in enumerate(times_s) if time <= point) for point in points]


@pytest.mark.parametrize("rate", [8, 15, FILM, 24, 25, NTSC, 30, 50, 60, 120])
def test_each_grid_point_shows_the_frame_on_screen_at_that_time(drawing, rate):
    path = drawing.write("a.mp4", drawing.pictures(70), rate=rate)
    times = [Fraction(i) / rate for i in range(70)]
    assert drawing.numbers(path) == shown_at_grid_points(times, 70 / Fraction(rate))


@pytest.mark.parametrize("rate", [15, NTSC, 30, 60])
def test_a_grid_of_the_video_s_own_rate_shows_each_frame_once_though_times_are_rounded(drawing, rate):
    path = drawing.write("a.mkv", drawing.pictures(70), rate=rate, times=range(7, 77))
    assert drawing.numbers(path, float(rate)) == list(range(70))


@pytest.mark.parametrize("fps", [5, 12, 30, 60])
def test_the_grid_can_have_another_rate(drawing, fps):
    path = drawing.write("a.mp4", drawing.pictures(50), rate=25)
    times = [Fraction(i, 25) for i in range(50)]
    assert drawing.numbers(path, fps) == shown_at_grid_points(times, Fraction(2), fps)


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
    assert drawing.numbers(path) == list(range(40))


def test_variable_frame_rate_is_followed_by_presentation_time(drawing):
    gaps = np.random.default_rng(0).integers(200, 9000, size=40)  # 2 ms to 0.1 s in units of 1/90000 s
    times = np.concatenate([[0], np.cumsum(gaps)]).tolist()
    path = drawing.write("a.mp4", drawing.pictures(41), times=times, time_base=Fraction(1, 90000))
    exact = [Fraction(time, 90000) for time in times]
    shown = drawing.numbers(path)
    # How long the last frame stays is the container's business; all before it is ours.
    expected = shown_at_grid_points(exact, exact[-1])
    assert shown[: len(expected)] == expected
    assert shown[len(expected) :] in ([], [40], [40, 40])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_time_starts_with_the_first_frame(drawing, name):
    path = drawing.write(name, drawing.pictures(30), times=range(125, 155))
    assert drawing.numbers(path) == list(range(30))


def test_frames_before_an_edit_list_begins_are_not_shown(drawing):
    path = drawing.write("a.mp4", drawing.pictures(50), times=range(-20, 30), options={"bf": "0", "g": "100"})
    assert drawing.numbers(path) == list(range(20, 50))


def test_a_clock_that_restarts_in_mid_stream_goes_on_counting(drawing):
    first = drawing.write("first.ts", drawing.pictures(30))
    second = drawing.write("second.ts", (drawing.picture(n) for n in range(30, 60)))
    joined = drawing.folder / "joined.ts"
    joined.write_bytes(first.read_bytes() * 2 + second.read_bytes())
    assert drawing.numbers(joined) == [*range(30), *range(30), *range(30, 60)]


def test_short_recordings_that_were_joined_are_shown_whole(drawing):
    parts = [drawing.write(f"{start}.ts", (drawing.picture(start + n) for n in range(20))) for start in (0, 20, 40)]
    joined = drawing.folder / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert drawing.numbers(joined) == list(range(60))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_display_matrix_is_applied(drawing, degrees, mirrored):
    upright = drawing.picture(5)
    # What a camera that was turned stores: the inverse of what the player does (turn clockwise, then mirror).
    stored = np.rot90(upright[:, ::-1] if mirrored else upright, k=degrees // 90)
    turn = {"degrees": -degrees, "hflip": mirrored} if mirrored or degrees else None
    path = drawing.write("a.mp4", [np.ascontiguousarray(stored)] * 3, turn=turn, pix_fmt="yuv444p")
    shown = next(grid_frames(path, 25.0))
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 6


@pytest.mark.parametrize(
    ("aspect", "shape"), [(Fraction(2, 1), (96, 320)), (Fraction(8, 9), (96, 142)), (Fraction(999, 1), (96, 160))]
)
def test_pixels_are_made_square(drawing, aspect, shape):
    path = drawing.write("a.mp4", drawing.pictures(3), aspect=aspect)
    assert next(grid_frames(path, 25.0)).shape == (*shape, 3)


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


def test_names_that_look_like_addresses_and_patterns_are_files(drawing):
    for name in ["http:a.mp4", "-a.mp4", "a%03d.mp4", "é 'x'\n.mp4"]:
        assert drawing.numbers(drawing.write("a.mp4", drawing.pictures(3)).rename(drawing.folder / name)) == [0, 1, 2]


def test_one_frame_gives_one_grid_frame(drawing):
    assert drawing.numbers(drawing.write("a.mp4", drawing.pictures(1))) == [0]


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


def test_recording_that_kills_opencv_leaves_this_process_alive(corpus):
    path = corpus / "hard" / "crashes_decoder_qcif_rgb.avi"
    code = "import sys; from extractors.video.grid import grid_frames; print(len(list(grid_frames(sys.argv[1], 25.0))))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_good_recordings_decode_to_their_promised_length(corpus):
    for path in [*sorted(corpus.glob("fi_v2/*.mp4"))[:2], *sorted(corpus.glob("plain/*"))]:
        count = sum(1 for _ in grid_frames(path, 25.0))
        with opened(path) as (container, stream):
            assert count / 25 == pytest.approx(promised_s(container, stream), abs=0.08), path.name


def test_settings_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match="greater than 0"):
        VideoSettings(fps=0)
    with pytest.raises(ValueError, match="Extra inputs"):
        VideoSettings(frames_per_second=25)

"""Non-videos and incomplete videos are refused with their reason; small damage is tolerated."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import system_calls

from extractors.errors import VideoError
from extractors.video import grid
from extractors.video.decoding import Tally, opened, pictures
from extractors.video.grid import grid_frames
from extractors.video.settings import DEFAULT_LIMITS, Limits, VideoSettings


def refusal(path: Path, **limits: float) -> VideoError:
    with pytest.raises(VideoError) as caught:
        list(grid_frames(path, 25.0, thresholds=VideoSettings(**limits)))
    assert caught.value.stage == "decode"
    return caught.value


def test_a_promise_that_is_not_kept_is_refused_as_truncated(drawing):
    path = drawing.write("a.mp4", drawing.pictures(100), container_options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(path).reason == "truncated"
    assert 0 < len(list(grid_frames(path, 25.0, thresholds=None))) < 100


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
    assert drawing.numbers(path) == list(range(50))


def test_a_message_has_the_name_of_a_file_as_tables_can_hold_it(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    assert refusal(path).message.startswith("cannot open caf\\xe9.mp4")
    path.write_bytes(b"no video")
    assert refusal(path).message.startswith("caf\\xe9.mp4 (8 bytes) cannot be read")


def write_with_frames_that_are_not_there(path: Path, count: int, every: int) -> None:
    """MPEG-4 in which one in so many packets states that it has no picture, without complaint from any decoder."""
    nothing = bytes([0, 0, 1, 0xB6, 0x10, 0x40])  # a "video object plane" with vop_coded = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        packets = [
            packet
            for number in range(count)
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.full((96, 160, 3), number, np.uint8)))
        ]
        for number, packet in enumerate([*packets, *stream.encode()]):
            if number % every == 1:
                empty = av.Packet(nothing)
                empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
                empty.stream, empty.duration = stream, packet.duration
                packet = empty
            container.mux(packet)


@pytest.mark.parametrize(("every", "share"), [(3, 2 / 3), (30, 29 / 30)])
def test_fewer_frames_than_promised_are_counted_and_refused_below_the_threshold(tmp_path, every, share):
    path = tmp_path / "a.mp4"
    write_with_frames_that_are_not_there(path, 60, every)
    tally = Tally()
    list(grid_frames(path, 25.0, thresholds=VideoSettings(min_frames_share=0.6), tally=tally))
    assert tally.share == pytest.approx(share)
    assert tally.broken == 0
    if share < VideoSettings().min_frames_share:
        found = refusal(path)
        assert found.reason == "truncated"
        assert "40 of 60 frames" in found.message
    else:
        assert len(list(grid_frames(path, 25.0))) == 60


def test_avi_that_holds_its_pictures_for_long_promises_no_frames(drawing):
    """AVI writes an empty packet for each tick of its clock, and counts it."""
    times = [0, 1, 2, 20, 21, 22, 40, 41, 42]
    path = drawing.write("a.avi", drawing.pictures(9), times=times, codec="mpeg4")
    with opened(path) as (_, stream):
        assert stream.frames == 43
    tally = Tally()
    assert len(list(grid_frames(path, 25.0, tally=tally))) == 43
    assert tally.share == 1.0


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
    assert drawing.numbers(path) == expected


def test_damage_that_ffmpeg_takes_for_a_failing_disk_is_the_videos_fault(drawing):
    """One flipped bit: the description of the tracks is said to be longer than the file."""
    path = drawing.write("a.mkv", drawing.pictures(40), options={"g": "10"})
    data = bytearray(path.read_bytes())
    data[data.index(b"\x16\x54\xae\x6b\x40") + 4] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(OSError, match="Input/output error"):
        av.open(str(path))
    assert refusal(path).reason == "not_a_video"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
def test_a_disk_that_fails_is_not_the_videos_fault():
    """The first page of a process's memory stands for a bad sector: who reads it gets the same error."""
    with pytest.raises(OSError, match="Input/output error"):
        list(grid_frames("/proc/self/mem", 25.0))


def test_a_file_is_read_through_once_however_many_of_its_packets_look_like_a_failing_disk(drawing):
    """FFmpeg reports a damaged head of a ProRes picture as "operation not permitted"."""
    path = drawing.write("a.mov", drawing.pictures(20), codec="prores_ks", pix_fmt="yuv422p10le")
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place in places[1:]:
        data[place + 20] = 0xFF  # coding of fields, colour and alpha
    path.write_bytes(data)
    tally = Tally()
    opened_files = files_opened(lambda: list(grid_frames(path, 25.0, thresholds=None, tally=tally)), drawing.folder)
    assert tally.good == 1
    assert tally.broken >= 15
    assert opened_files == ["open", "open"]  # by FFmpeg, and to read it through


def test_a_stream_that_comes_up_on_the_way_is_passed_over(drawing):
    """One frame of a broadcast recording with the number of another stream, by a single flipped bit."""
    path = drawing.write("a.ts", drawing.pictures(100), options={"g": "1"})
    data = bytearray(path.read_bytes())
    starts = [place for place in range(0, len(data), 188) if data[place + 1 : place + 3] == b"\x41\x00"]
    data[starts[60] + 1] ^= 0x04
    path.write_bytes(data)
    assert drawing.numbers(path) == [59 if number == 60 else number for number in range(100)]


def without_its_first(source: Path, goal: Path, count: int) -> Path:
    """The same packets but for the first ones: a recording that was begun in mid-stream."""
    with av.open(str(source)) as old, av.open(str(goal), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in [packet for packet in old.demux(stream) if packet.size][count:]:
            packet.stream = copy
            new.mux(packet)
    return goal


def test_what_lies_before_the_first_key_frame_of_a_broadcast_is_not_missing(drawing):
    source = drawing.write("a.ts", drawing.pictures(100), options={"g": "25", "bf": "2", "sc_threshold": "0"})
    tally = Tally()
    pictures = list(grid_frames(without_its_first(source, drawing.folder / "b.ts", 10), 25.0, tally=tally))
    assert [drawing.number(picture) for picture in pictures] == list(range(25, 100))
    assert tally.lead_s == pytest.approx(0.6, abs=0.09)
    assert tally.share == pytest.approx(1.0, abs=0.01)


def test_most_of_a_video_before_its_first_key_frame_is_missing(drawing):
    source = drawing.write("a.ts", drawing.pictures(400), rate=25, options={"g": "300", "sc_threshold": "0", "bf": "0"})
    assert refusal(without_its_first(source, drawing.folder / "b.ts", 10)).reason == "truncated"


def test_too_many_broken_frames_are_refused_as_damaged(drawing):
    path = drawing.write("a.mp4", drawing.pictures(100), options={"g": "1"})
    spoil(path, {40, 50, 60})
    error = refusal(path)
    assert error.reason == "damaged"
    assert "3 of 100" in error.message
    assert len(list(grid_frames(path, 25.0, thresholds=VideoSettings(max_broken_share=0.03)))) == 100


def test_broken_frames_before_the_first_good_one_do_not_count(drawing):
    path = drawing.write("a.mp4", drawing.pictures(100), options={"g": "1"})
    spoil(path, {0, 1, 2})
    assert drawing.numbers(path) == list(range(3, 100))


def pictures_before_the_refusal(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[int, str]:
    """How many pictures are shown before a video is refused, and why."""
    shown: list[np.ndarray] = []
    with pytest.raises(VideoError) as caught:
        shown.extend(grid_frames(path, 25.0, limits=limits))
    return len(shown), caught.value.reason


@pytest.mark.parametrize("intact", [1, 5, 16, 17, 40])
def test_a_refusal_comes_after_all_pictures_before_it_although_frames_are_decoded_in_runs(drawing, monkeypatch, intact):
    def failing(*of_video: Any) -> Iterator[av.VideoFrame]:
        yield from islice(pictures(*of_video), intact)
        raise VideoError("decode", "unsupported", "the decoder gives up")

    monkeypatch.setattr(grid, "pictures", failing)
    path = drawing.write("a.mp4", drawing.pictures(60))
    # When a frame ends is known only from the next one.
    assert pictures_before_the_refusal(path) == (intact - 1, "unsupported")


def test_frames_beyond_the_limit_are_refused_after_those_within(drawing):
    path = drawing.write("a.mp4", drawing.pictures(40))
    assert pictures_before_the_refusal(path, Limits(frames=20)) == (19, "too_large")


def test_a_frame_shown_for_too_long_is_refused(drawing):
    path = drawing.write("a.mp4", drawing.pictures(40), times=[*range(20), *range(520, 540)])
    assert refusal(path).reason == "timestamps"
    assert len(list(grid_frames(path, 25.0, thresholds=VideoSettings(max_still_s=30)))) == 540


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
    path = write_sound(tmp_path / "a.mp4", cover=drawing.picture(1))
    with av.open(str(path)) as container:
        assert container.streams.video
    assert refusal(path).reason == "no_video"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not_a_video"),
        (b"not a video\n", "not_a_video"),
        (None, "unreadable"),
    ],
)
def test_non_videos_are_refused_without_a_word_on_the_terminal(tmp_path, capfd, content, reason):
    path = tmp_path / "-a: b%03d.mp4"
    if content is not None:
        path.write_bytes(content)
    assert refusal(path).reason == reason
    assert capfd.readouterr() == ("", "")


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
LISTS = {
    "HLS": HLS,
    "HLS of playlists": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n",
    "concat": "ffconcat version 1.0\nfile {}\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "reference": "[Reference]\nRef1={}\n",
    "SMIL": "<smil><body><video src='{}'/></body></smil>",
}


@pytest.fixture
def canary(drawing, tmp_path) -> Path:
    """A good video in a folder of its own, which nobody has any business to read."""
    (tmp_path / "canary").mkdir()
    return drawing.write("canary/a.ts", drawing.pictures(30), codec="mpeg4")


def files_opened(work: Callable[[], object], folder: Path) -> list[str]:
    if reason := system_calls.supported():
        pytest.skip(reason)
    return system_calls.run(work, folder).calls


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "m3u8"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_other_files_has_none_of_them_read(tmp_path, canary, kind, suffix):
    for name in ("canary/a.ts", str(canary)):
        path = tmp_path / f"a.{suffix}"
        path.write_text(LISTS[kind].format(name))
        assert files_opened(lambda path=path: refusal(path), canary.parent) == []
        assert refusal(path).reason == "not_a_video"


@pytest.mark.parametrize(("kind", "suffix"), [("HLS", "m3u8"), ("concat", "mp4")])
def test_ffmpeg_by_itself_would_read_them(tmp_path, canary, kind, suffix):
    """So that the test above can fail."""
    path = tmp_path / f"a.{suffix}"
    path.write_text(LISTS[kind].format("canary/a.ts"))

    def decode() -> None:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            assert sum(1 for _ in container.decode(video=0)) == 30

    assert "open" in files_opened(decode, canary.parent)


@pytest.mark.parametrize("suffix", ["mp4", "m3u8"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_addresses_never_reaches_the_network(tmp_path, kind, suffix):
    with socket.create_server(("127.0.0.1", 0)) as server:
        path = tmp_path / f"a.{suffix}"
        for protocol in ("http", "tcp", "rtmp"):
            path.write_text(LISTS[kind].format(f"{protocol}://127.0.0.1:{server.getsockname()[1]}/a.ts"))
            assert refusal(path).reason == "not_a_video"
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_folder_is_refused(tmp_path):
    assert refusal(tmp_path).reason == "unreadable"


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

"""Long videos, large pictures, slow and fast ones, and sound that goes on: the same rules, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from extractors.faces.levelling import view_of
from extractors.faces.settings import CropSettings
from extractors.preparation.pool import Finished, PreparerPool
from extractors.preparation.preparer import FaceCrop, Motion, PreparationSettings, Preparer, Request
from extractors.preparation.stopwatch import Stopwatch
from extractors.video.grid import grid_frames

TWO_HOURS_S = 7200
# What time and memory may differ by between a video's beginning and its end.
MOST_GROWTH_MB = 150
FLAT = 1.5


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """A face in the middle, about a quarter of the width of uint8 RGB [400, 400, 3]."""
    data = pytest.importorskip("skimage.data")
    return data.astronaut()[:400, 20:420]


def memory_mb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def write(path: Path, pictures: Iterable[np.ndarray], *, codec: str, rate: int, **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        for index, picture in enumerate(pictures):
            if index == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("rate", "count"), [(1, 12), (240, 480)])
def test_a_frame_a_second_and_240_of_them_fall_on_the_grid_by_their_times(drawing, rate, count):
    path = drawing.write("a.mp4", drawing.pictures(count), rate=rate)
    grid = range(25 * count // rate)
    # 240 / 25 is not an integer: the frame on screen is the last one that has begun.
    assert drawing.numbers(path) == [k * rate // 25 for k in grid]


@pytest.mark.parametrize(("rate", "count"), [(1, 4), (240, 192)])
def test_a_face_is_tracked_at_a_frame_a_second_and_at_240(settings, portrait, tmp_path, rate, count):
    path = write(tmp_path / "a.mp4", (portrait for _ in range(count)), codec="libx264", rate=rate)
    track, *parts, end = prepared(settings, Request(path, None, static=True, dynamic=False))
    assert isinstance(end, Finished)
    assert len(track.scores) == 25 * count // rate
    assert track.coverage == 1.0
    assert sum(isinstance(part, FaceCrop) for part in parts) == 16


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(("sound_s", "delay_s"), [(5, 0), (2, 3), (1, 0)])
def test_sound_that_lasts_longer_or_comes_later_does_not_change_the_frames(tmp_path, drawing, name, sound_s, delay_s):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        sound = container.add_stream("aac", rate=8000, layout="mono")
        for picture in drawing.pictures(50):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")))
        container.mux(video.encode())
        for index in range(8000 * sound_s // 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 8000 * delay_s + 1024 * index
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert drawing.numbers(path) == list(range(50))


def test_a_face_in_8k_is_tracked_and_cut_out(settings, portrait, tmp_path):
    shown = np.full((4320, 7680, 3), 90, np.uint8)
    face_px = 3000
    shown[1000 : 1000 + face_px, 3000 : 3000 + face_px] = cv2.resize(portrait, (face_px, face_px))
    path = tmp_path / "8k.mjpeg"
    path.write_bytes(3 * cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))[1].tobytes())
    short = replace(settings, crops=CropSettings(window_fields=2, min_fields=2))
    track, *parts, end = prepared(short, Request(path, None, static=True, dynamic=True))
    assert isinstance(end, Finished)
    assert (len(track.scores), track.coverage) == (3, 1.0)
    x, y, width, _ = track.boxes[0]
    assert 3000 < x < x + width < 3000 + face_px
    assert 1000 < y < 1000 + face_px
    # The crop shows what the same part of the portrait shows.
    crop = next(part.pixels for part in parts if isinstance(part, FaceCrop))
    view = view_of(track.boxes[0], track.eyes[0], short.crops.margin)
    corners = (view.corners[:3] - [3000, 1000]) * 400 / face_px
    place = cv2.getAffineTransform(np.float32([[0, 0], [224, 0], [224, 224]]), corners.astype(np.float32))
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    truth = cv2.warpAffine(portrait, place, (224, 224), flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(float)
    assert np.corrcoef(crop.ravel(), truth.ravel())[0, 1] > 0.97


@pytest.mark.slow
def test_two_hours_decode_in_bounded_memory_and_at_one_pace(drawing):
    """180,000 pictures, each with its number's last nine bits."""
    count = 25 * TWO_HOURS_S
    pictures = [drawing.picture(number) for number in range(512)]
    path = write(drawing.folder / "long.mkv", (pictures[k % 512] for k in range(count)), codec="mpeg4", rate=25, g="25")
    tenth = count // 10
    marks, memory = [time.perf_counter()], []
    for k, picture in enumerate(grid_frames(path, 25.0)):
        assert drawing.number(picture) == k % 512
        if (k + 1) % tenth == 0:
            marks.append(time.perf_counter())
            memory.append(memory_mb())
    assert k + 1 == count
    paces_ms = 1000 * np.diff(marks) / tenth
    report(f"decoded {path.stat().st_size / 2**20:.0f} MB", paces_ms, memory)


@pytest.mark.slow
def test_two_hours_of_a_face_are_tracked_and_cropped_in_bounded_memory_and_at_one_pace(settings, portrait, tmp_path):
    """7,200 pictures of a second each, so that the detector sees 7,200 and the rest of the way 180,000."""
    turns = 2 * np.pi * np.arange(64) / 64
    shifts = np.round(3 * np.stack([np.sin(turns), np.cos(turns)], axis=1)).astype(int)  # larger steps would be cuts
    pictures = [np.roll(cv2.resize(portrait, (320, 320)), shift, axis=(0, 1)) for shift in shifts]
    path = write(tmp_path / "long.mkv", (pictures[k % 64] for k in range(TWO_HOURS_S)), codec="mpeg4", rate=1, g="10")
    marks: list[tuple[float, float]] = []
    with Preparer(settings, lambda: marks.append((time.perf_counter(), memory_mb()))) as preparer:
        track, *parts = preparer.prepare(Request(path, None, static=True, dynamic=False), Stopwatch())
    assert len(track.scores) == 25 * TWO_HOURS_S
    assert (track.coverage, track.quality.people, track.quality.confirmed_share) == (1.0, 1, 1.0)
    assert len(parts) == 16
    # A mark for each picture that the detector was shown, then one for each window that was cut out.
    for what, found in (("tracked", marks[:TWO_HOURS_S]), ("cropped", marks[TWO_HOURS_S:])):
        times, memory = np.array(found).T
        tenths = np.linspace(0, len(times) - 1, 11).astype(int)
        frames = np.diff(tenths) * (25 if what == "tracked" else 64)
        report(what, 1000 * np.diff(times[tenths]) / frames, memory[tenths].tolist())


def report(what: str, paces_ms: np.ndarray, memory: list[float]) -> None:
    """Say how it went, and check that the end is as the beginning."""
    print(
        f"\n{what}: {paces_ms[0]:.3f} ms a frame at first, {paces_ms[-1]:.3f} at the end, median "
        f"{np.median(paces_ms):.3f}; {memory[0]:.0f} MB at first, {memory[-1]:.0f} at the end"
    )
    assert memory[-1] - memory[0] < MOST_GROWTH_MB
    # Halves, and not tenths: others may use this machine meanwhile.
    first, second = np.split(paces_ms, [len(paces_ms) // 2])
    assert np.median(second) < FLAT * np.median(first)


def prepared(settings: PreparationSettings, request: Request) -> list[object]:
    with PreparerPool(settings, 1, stall_s=120) as pool:
        return [
            Motion(part.window, part.fields.copy()) if isinstance(part, Motion) else part
            for _, part in pool.prepare([request])
        ]

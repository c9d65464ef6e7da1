"""Damaged videos through the processes that prepare them: each is prepared or refused, and the next one is served.

Mutants are cut, spliced, overwritten, have flipped bits or other numbers in their headers, all by a seed.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import av
import pytest
from video_mutants import MUTATIONS, write_mutants

from extractors.errors import VideoError
from extractors.faces.settings import CropSettings, FaceModels, FaceSettings
from extractors.optical_flow.parameters import OpticalFlowSettings
from extractors.preparation.pool import Finished, PreparerPool
from extractors.preparation.preparer import PreparationSettings, Request
from extractors.video.grid import grid_frames
from extractors.video.settings import Limits, VideoSettings

CORPUS = [
    *("plain/single_face.mp4", "plain/grid_bbaf2n.mpg", "hard/vfr_single_face.mp4", "hard/lowres64_single_face.mp4"),
    "plain/intel-iot-devkit_sample-videos__asl_gestures_bird.mkv",
    *("hard/rot90_phone_style_single_face.mp4", "hard/faceleaves_single_face.mp4", "hard/twofaces_grid.mp4"),
    *("hard/sevenframes_single_face.mp4", "hard/rotated90_two_frames.mov", "hard/crashes_decoder_qcif_rgb.avi"),
    "hard/digit_in_ellipse_false_face.mp4",
]
LIMITS = Limits(pixels=1920 * 1088, frames=2000, memory_mb=1024, cpu_s=30, wall_s=60)
FPS = 25


def remuxed(source: Path, goal: Path, **options: str) -> Path:
    """The same pictures in another container, or with the index in front."""
    with av.open(str(source)) as old, av.open(str(goal), "w", options=options) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    return goal


def prepare_all(face_models: FaceModels, paths: list[Path]) -> list[Finished | VideoError]:
    """How each video ended; two processes prepare them."""
    settings = PreparationSettings(
        *(face_models, VideoSettings(fps=FPS), FaceSettings(), CropSettings()),
        OpticalFlowSettings(engine="cpu", preset="fast"),
        LIMITS,
    )
    requests = [Request(path, track=None, static=True, dynamic=False) for path in paths]
    ends: dict[int, Finished | VideoError] = {}
    with PreparerPool(settings, 2, stall_s=60) as pool:
        for number, part in pool.prepare(requests):
            if isinstance(part, Finished | VideoError):
                assert number not in ends
                ends[number] = part
    return [ends[number] for number in range(len(paths))]


def grid_points(path: Path) -> tuple[int, float]:
    """How many come, and how many the file's index promises."""
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        stream = container.streams.best("video")
        promised = 0.0 if stream.duration is None else float(stream.duration * stream.time_base) * FPS
    return sum(1 for _ in grid_frames(path, FPS, limits=LIMITS)), promised


def check(face_models: FaceModels, sources: list[Path], folder: Path, count: int) -> Counter[str]:
    """Prepare so many mutants between a good video and itself; returns how often each ending came."""
    folder.mkdir()
    mutants = [path for path, _, _ in write_mutants(sources, folder, count)]
    first, *ends, last = prepare_all(face_models, [sources[0], *mutants, sources[0]])
    assert describe(last) == describe(first)  # whatever came between
    endings: Counter[str] = Counter()
    for path, end in zip(mutants, ends, strict=True):
        endings[describe(end)] += 1
        if isinstance(end, VideoError):
            assert end.stage in ("decode", "faces", "motion"), (path, end)
            assert re.fullmatch("[a-z_]+", end.reason), (path, end)
            assert "\n" not in end.message
        if isinstance(end, Finished) or end.stage != "decode":
            found, promised = grid_points(path)
            assert found > 0.9 * promised - 1, (path, found, promised)
    return endings


def describe(end: Finished | VideoError) -> str:
    return f"{end.stage}: {end.reason}" if isinstance(end, VideoError) else "prepared"


def test_mutants_of_drawn_videos_are_refused_or_whole(drawing, face_models, tmp_path):
    sources = [
        drawing.write("a.mp4", drawing.pictures(40), options={"g": "10"}, container_options={"movflags": "+faststart"}),
        drawing.write("b.mkv", drawing.pictures(40), options={"g": "10"}),
        drawing.write("c.ts", drawing.pictures(40), codec="mpeg2video"),
    ]
    endings = check(face_models, sources, tmp_path / "mutants", len(MUTATIONS) * len(sources))
    assert endings["faces: no_face"] > 0  # decoded
    assert len(endings) >= 4, endings


@pytest.mark.slow
def test_512_mutants_of_real_videos_are_refused_or_whole(corpus, face_models, tmp_path):
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    face = corpus / "plain" / "single_face.mp4"
    sources = [
        *(corpus / name for name in CORPUS),
        remuxed(face, tmp_path / "index first.mp4", movflags="+faststart"),
        remuxed(corpus / "hard" / "vfr_single_face.mp4", tmp_path / "vfr.mp4", movflags="+faststart"),
        remuxed(face, tmp_path / "fragments.mp4", **fragments),
        remuxed(face, tmp_path / "broadcast.ts"),
    ]
    endings = check(face_models, sources, tmp_path / "mutants", 4 * len(MUTATIONS) * len(sources))
    assert endings.total() == 512
    assert endings["prepared"] > 50
    assert len(endings) >= 8
    print(", ".join(f"{ending} {count}" for ending, count in endings.most_common()))

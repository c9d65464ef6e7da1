"""Features are those of the bytes that their digest is of, whatever happens to the file while it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from extractors.errors import VideoError
from extractors.faces.settings import CropSettings, FaceSettings
from extractors.optical_flow.parameters import OpticalFlowSettings
from extractors.preparation.pool import PreparerPool
from extractors.preparation.preparer import PreparationSettings, Request
from extractors.video.digests import FileWatch, sha256_of
from extractors.video.settings import VideoSettings


def replace_by_rename(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes()[::-1])
    other.replace(path)


def rewrite_in_place(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"other")


def rewrite_and_put_the_time_back(path: Path) -> None:
    before = path.stat()
    rewrite_in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewrite_and_put_the_bytes_back(path: Path) -> None:
    content = path.read_bytes()
    rewrite_and_put_the_time_back(path)
    path.write_bytes(content)


def swap_and_swap_back(path: Path) -> None:
    content, kept = path.read_bytes(), path.with_suffix(".kept")
    path.rename(kept)
    path.write_bytes(content[::-1])
    kept.replace(path)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove(path: Path) -> None:
    path.unlink()


CHANGES: list[Callable[[Path], None]] = [
    *(replace_by_rename, rewrite_in_place, rewrite_and_put_the_time_back, rewrite_and_put_the_bytes_back),
    *(swap_and_swap_back, truncate, remove),
]


@pytest.fixture
def aged(tmp_path) -> Path:
    """A file whose last change lies before the system's next tick."""
    path = tmp_path / "a.mp4"
    path.write_bytes(b"as filmed" * 1000)
    tick = path.with_suffix(".tick")
    while not tick.exists() or tick.stat().st_ctime_ns == path.stat().st_ctime_ns:
        tick.write_bytes(b"")
    return path


def test_a_file_that_stays_as_it_is_is_no_change(aged):
    seen = []
    assert FileWatch(aged, sha256_of(aged)).change(lambda: seen.append(1)) is None
    assert seen
    assert FileWatch(aged, None).change() is None


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_happens_to_the_file_meanwhile_is_a_change(aged, change):
    watch = FileWatch(aged, sha256_of(aged))
    change(aged)
    error = watch.change()
    assert (error.stage, error.reason) == ("decode", "file_changed")
    assert "a.mp4" in error.message


@pytest.mark.parametrize("sha256", ["", "0" * 64])
def test_bytes_of_another_digest_are_a_change(aged, sha256):
    assert FileWatch(aged, sha256).change().reason == "file_changed"


@pytest.mark.parametrize("change", [rewrite_in_place, replace_by_rename, truncate])
def test_a_video_that_changes_between_scan_and_decoding_is_refused_as_changed(face_models, drawing, change):
    path = drawing.write("a.mp4", drawing.pictures(10))
    sha256 = sha256_of(path)
    change(path)
    settings = PreparationSettings(
        face_models, VideoSettings(), FaceSettings(), CropSettings(), OpticalFlowSettings(engine="cpu")
    )
    good = drawing.write("b.mp4", drawing.pictures(10))
    requests = [
        Request(video, None, static=True, dynamic=True, sha256=digest)
        for video, digest in ((path, sha256), (good, sha256_of(good)))
    ]
    with PreparerPool(settings, 1, stall_s=60) as pool:
        ends = [part for _, part in pool.prepare(requests) if isinstance(part, VideoError)]
    assert [end.reason for end in ends] == ["file_changed", "no_face"]

"""What all tests share: the folder of real recordings, which stays outside the project."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_disk import SmallDisk

from extractors import assets

CORPUS = Path(os.environ.get("TRAITLINE_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder of real clips, labels and references; tests that need it are skipped where it is absent."""
    if not CORPUS.is_dir():
        pytest.skip(f"no corpus of real recordings at {CORPUS} (set TRAITLINE_CORPUS)")
    return CORPUS


@pytest.fixture(scope="session")
def face_model() -> Path:
    """MediaPipe's face detection model, fetched once into the user's cache where it is not there yet."""
    return assets.resolve("face_detector") / "face_detection_short_range.tflite"


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[..., SmallDisk]]:
    """Mounts small disks, as `small_disk(size)`; tests that ask for this are skipped where that is not permitted."""
    disks: list[SmallDisk] = []

    def mount(size: int, files: int = 10_000) -> SmallDisk:
        folder = tmp_path / f"disk {len(disks)}"
        folder.mkdir()
        try:
            disks.append(SmallDisk(folder, size, files))
        except PermissionError as error:
            pytest.skip(f"a small disk cannot be mounted here: {error}")
        return disks[-1]

    yield mount
    for disk in disks:
        disk.close()

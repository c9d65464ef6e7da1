"""Both networks on a GPU: their numbers are those of a CPU under the same key, whatever the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from gpu import NEEDS_GPU

from extractors.errors import DeviceError
from extractors.networks.precision import check_precision
from extractors.optical_flow.computer import OpticalFlowComputer, scale_for_i3d
from extractors.video.grid import grid_frames

pytestmark = NEEDS_GPU

FIELDS = 16
# A process of its own for each precision and device: neither can be changed in one that has computed.
PROGRAM = """
import sys
import numpy as np
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.static.extractor import StaticFeatureExtractor
items, precision, *batches = sys.argv[1:]
given, found = np.load(items), {}
static = StaticFeatureExtractor("random", precision=precision)
dynamic = DynamicFeatureExtractor("random", precision=precision)
for batch in batches:
    static.batch_size = dynamic.batch_size = int(batch)
    found |= {f"static {batch}": static.extract(given["crops"]), f"dynamic {batch}": dynamic.extract(given["windows"])}
np.savez(f"{items}.found.npz", **found)
"""


def features(items: Path, precision: str, *batches: int, gpu: bool = True) -> dict[str, np.ndarray]:
    """The features of both networks, by network and batch."""
    environment = dict(os.environ) if gpu else os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", PROGRAM, items, precision, *map(str, batches)], env=environment, check=True)
    with np.load(f"{items}.found.npz") as found:
        return dict(found)


def assert_within(found: np.ndarray, expected: np.ndarray, most: float) -> None:
    """Each vector differs by at most so much, relative to its length."""
    off = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    print(f"relative distance {off.max():.2g} at most, {off.mean():.2g} on average")
    assert off.max() <= most


def save(path: Path, pictures: np.ndarray) -> Path:
    """Crops, and windows of the motion between them."""
    grey = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])
    fields = scale_for_i3d(OpticalFlowComputer("cpu").compute(grey))
    windows = np.stack([fields[start : start + FIELDS] for start in range(0, len(fields) - FIELDS + 1, FIELDS // 4)])
    np.savez(path, crops=pictures, windows=windows)
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """37 pictures of a texture that moves."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    pictures = np.stack([texture[2 * t : 2 * t + 224, t : t + 224] for t in range(37)])
    return save(tmp_path_factory.mktemp("drawn") / "items.npz", pictures)


@pytest.fixture(scope="module")
def drawn_on_gpu(drawn) -> dict[str, np.ndarray]:
    return features(drawn, "float32", 1, 16, 32)


def test_features_of_drawn_pictures_are_those_of_a_cpu(drawn, drawn_on_gpu):
    for name, expected in features(drawn, "float32", 16, gpu=False).items():
        assert_within(drawn_on_gpu[name], expected, 1e-3)


def test_features_of_recordings_are_those_of_a_cpu(corpus, tmp_path):
    for video in sorted(corpus.glob("fi_v2/*.mp4"))[:3]:
        pictures = np.stack([cv2.resize(picture, (224, 224)) for picture in islice(grid_frames(video, 25.0), 37)])
        items = save(tmp_path / "items.npz", pictures)
        found = features(items, "float32", 16)
        for name, expected in features(items, "float32", 16, gpu=False).items():
            assert_within(found[name], expected, 1e-3)


@pytest.mark.parametrize("network", ["static", "dynamic"])
@pytest.mark.parametrize("batch", [1, 32])  # 37 crops and 6 windows: their last batches are not full
def test_batches_change_the_last_bits_at_most(drawn_on_gpu, network, batch):
    assert_within(drawn_on_gpu[f"{network} {batch}"], drawn_on_gpu[f"{network} 16"], 1e-5)


@pytest.mark.parametrize("network", ["static", "dynamic"])
def test_tf32_rounds_and_float32_does_not(drawn, drawn_on_gpu, network):
    try:
        check_precision("tf32")
    except DeviceError as error:
        pytest.skip(str(error))
    rounded = features(drawn, "tf32", 16)[f"{network} 16"]
    exact = drawn_on_gpu[f"{network} 16"]
    assert np.linalg.norm(rounded - exact) > 1e-5 * np.linalg.norm(exact)
    assert_within(rounded, exact, 1e-2)


def test_fields_that_stay_on_the_gpu_have_the_features_of_fields_that_go_through_the_host(i3d_extractor, monkeypatch):
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (280, 280), dtype=np.uint8), (0, 0), 2)
    frames = np.stack([texture[t : t + 224, 2 * t : 2 * t + 224] for t in range(FIELDS + 1)])
    computer = OpticalFlowComputer("gpu")
    whole, short = scale_for_i3d(computer.compute(frames)), scale_for_i3d(computer.compute(frames[:6]))
    expected = i3d_extractor.extract(np.stack([whole, short[np.arange(FIELDS) % 5]]))
    on_gpu = computer.compute_scaled(np.stack([frames, frames[np.minimum(np.arange(FIELDS + 1), 5)]]))
    assert_within(i3d_extractor.extract_on_device(on_gpu, [FIELDS, 5]), expected, 1e-5)
    monkeypatch.setattr(i3d_extractor, "batch_size", 2)
    assert_within(i3d_extractor.extract_on_device(on_gpu, [FIELDS, 5]), expected, 1e-5)

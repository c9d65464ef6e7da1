"""Agreement of the engines with OpenCV on real recordings, and with measured motion."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from gpu import NEEDS_GPU

from extractors.optical_flow.computer import OpticalFlowComputer
from extractors.optical_flow.parameters import EXACT, PRESETS, TVL1Parameters

GPU = pytest.param("gpu", marks=NEEDS_GPU)


def recordings(corpus: Path) -> list[Path]:
    return [*sorted(corpus.glob("fi_v2/*.mp4")), *sorted(corpus.glob("plain/*.m*"))]


def real_pairs(videos: Iterable[Path], side_px: int, firsts: Sequence[int] = (3, 20, 40)) -> list[np.ndarray]:
    """Pairs of successive frames, uint8 [2, side, side]: the speaker, or whatever is in the middle."""
    pairs = []
    for video in videos:
        with av.open(str(video)) as container:
            decoded = islice(container.decode(video=0), max(firsts) + 2)
            frames = [frame.to_ndarray(format="gray") for frame in decoded]
        height, width = frames[0].shape
        side = int(0.7 * min(height, width))
        top, left = int(0.08 * height), (width - side) // 2
        crops = [frame[top : top + side, left : left + side] for frame in frames]
        for first in firsts:
            pair = crops[first : first + 2]
            if len(pair) == 2:
                size = (side_px, side_px)
                pairs.append(np.stack([cv2.resize(crop, size, interpolation=cv2.INTER_AREA) for crop in pair]))
    return pairs


def computed(engine: str, pairs: list[np.ndarray], parameters: TVL1Parameters) -> np.ndarray:
    """Displacement in each pair, pixels: float32 [pairs, H, W, 2]; on two threads, as OpenCV is slow."""
    computer = OpticalFlowComputer(engine, threads=1, parameters=parameters)
    computer.compute(pairs[0])
    with ThreadPoolExecutor(2) as pool:
        return np.stack(list(pool.map(lambda pair: computer.compute(pair)[0], pairs)))


def read_flo(path: Path) -> np.ndarray:
    """Field of a Middlebury .flo file: float32 [H, W, 2]."""
    raw = path.read_bytes()
    width, height = np.frombuffer(raw, np.int32, 2, offset=4)
    return np.frombuffer(raw, np.float32, offset=12).reshape(height, width, 2)


def read_grey(*paths: Path) -> np.ndarray:
    return np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths])


def middlebury_error(folder: Path, engine: str, preset: str) -> float:
    """Mean end-point error over the pixels with measured motion, in pixels."""
    truth = read_flo(folder / "flow10.flo")
    field = OpticalFlowComputer(engine, preset).compute(read_grey(folder / "frame10.png", folder / "frame11.png"))[0]
    measured = (np.abs(truth) < 1e9).all(axis=-1)
    return float(np.linalg.norm(field - truth, axis=-1)[measured].mean())


def difference_to_opencv(engine: str, pairs: list[np.ndarray], parameters: TVL1Parameters = EXACT) -> np.ndarray:
    """End-point differences of all pixels of all pairs, in pixels."""
    difference = computed(engine, pairs, parameters) - computed("opencv", pairs, parameters)
    return np.linalg.norm(difference, axis=-1).ravel()


def test_cpu_engine_agrees_with_opencv_on_real_pairs(corpus):
    """One pair of every other recording; the slow tests have three of each, all of full size."""
    videos = recordings(corpus)
    large, small = real_pairs(videos[::10], side_px=224, firsts=[20]), real_pairs(videos[::2], side_px=96, firsts=[3])
    assert len(large) >= 2
    assert len(small) >= 7
    difference = np.concatenate([difference_to_opencv("cpu", pairs) for pairs in (large, small)])
    assert difference.mean() <= 0.02
    assert np.percentile(difference, 95) <= 0.05


def test_cpu_engine_agrees_with_opencv_with_every_preset(corpus):
    pairs = real_pairs(recordings(corpus), side_px=96, firsts=(3,))[::4]
    for parameters in PRESETS.values():
        assert difference_to_opencv("cpu", pairs, parameters).mean() <= 0.02


@pytest.mark.parametrize("engine", [pytest.param("cpu", marks=pytest.mark.slow), GPU])
def test_engine_agrees_with_opencv_on_forty_full_pairs(corpus, engine):
    difference = difference_to_opencv(engine, real_pairs(recordings(corpus), side_px=224))
    assert difference.mean() <= 0.02
    assert np.percentile(difference, 95) <= 0.05


@pytest.mark.parametrize("engine", ["cpu", GPU])
@pytest.mark.parametrize("name", ["Dimetrodon", "RubberWhale", "Venus"])
def test_error_on_middlebury_is_that_of_opencv(corpus, name, engine):
    folder = corpus / "flow" / name
    reference = {"Dimetrodon": 0.179, "RubberWhale": 0.156, "Venus": 0.303}[name]  # OpenCV 4.13, defaults, pixels
    assert middlebury_error(folder, engine, "exact") == pytest.approx(reference, abs=0.01)
    assert middlebury_error(folder, engine, "fast") == pytest.approx(reference, abs=0.03)
    assert middlebury_error(folder, engine, "large_motion") == pytest.approx(reference, abs=0.03)


def test_opencvs_gold_field_is_matched(corpus):
    frames = read_grey(corpus / "flow" / "RubberWhale1.png", corpus / "flow" / "RubberWhale2.png")
    field = OpticalFlowComputer("cpu", "exact").compute(frames)[0]
    gold = read_flo(corpus / "flow" / "opencv_gold_rubberwhale_tvl1.flo")
    assert (np.linalg.norm(field - gold, axis=-1) <= 0.1).mean() >= 0.94


@pytest.mark.slow
def test_compiling_is_announced_and_spared_the_next_process(tmp_path):
    program = (
        "import numpy as np; from extractors.optical_flow import OpticalFlowComputer;"
        "OpticalFlowComputer('cpu').compute(np.zeros((2, 32, 32), np.uint8))"
    )

    def run() -> tuple[dict[Path, int], str]:
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
        )
        kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}
        return kept, done.stderr

    compiled, messages = run()
    assert compiled
    assert "compiling" in messages
    kept, messages = run()
    assert "compiling" not in messages
    assert kept == compiled

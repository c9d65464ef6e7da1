"""Time per pair of 224x224 frames for every optical-flow engine, all in one interleaved run.

Run it as `python tests/benchmarks/bench_optical_flow.py [--corpus DIR]`. The reference is OpenCV in as many
single-thread processes as there are cores. Nothing is asserted about time: the table is for people.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median

import av
import cv2
import numpy as np

from extractors.devices import usable_cores
from extractors.optical_flow.computer import OpticalFlowComputer

SIDE_PX = 224
DEFAULT_CORPUS = Path(os.environ.get("TRAITLINE_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))


def speaker_frames(corpus: Path, pairs_per_video: int) -> list[np.ndarray]:
    """Runs of successive grey frames around the speaker: uint8 [pairs + 1, 224, 224] of each video."""
    runs = []
    for video in sorted(corpus.glob("fi_v2/*.mp4")):
        with av.open(str(video)) as container:
            decoded = islice(container.decode(video=0), pairs_per_video + 21)
            frames = [frame.to_ndarray(format="gray") for frame in decoded]
        height, width = frames[0].shape
        side = int(0.7 * min(height, width))
        top, left = int(0.08 * height), (width - side) // 2
        crops = [frame[top : top + side, left : left + side] for frame in frames[20:]]
        runs.append(np.stack([cv2.resize(crop, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for crop in crops]))
    return runs


def compute_in_process(engine: str, preset: str, frames: np.ndarray) -> None:
    """One run of frames, on one thread of this process."""
    OpticalFlowComputer(engine, preset, threads=1).compute(frames)


def contestants(cores: int, pool: ProcessPoolExecutor, with_xla: bool) -> dict[str, Callable[[np.ndarray], None]]:
    """What is compared, by the name in the table; each takes one run of frames."""

    def opencv_processes(frames: np.ndarray) -> None:
        # Shares of equal length overlap by one frame, so that no pair is left out.
        shares = np.array_split(np.arange(len(frames) - 1), cores)
        tasks = [pool.submit(compute_in_process, "opencv", "exact", frames[s[0] : s[-1] + 2]) for s in shares]
        for task in tasks:
            task.result()

    engines = {
        f"opencv, {cores} processes of 1 thread": opencv_processes,
        "opencv, 1 thread": OpticalFlowComputer("opencv", threads=1).compute,
        "cpu, 1 thread": OpticalFlowComputer("cpu", threads=1).compute,
        f"cpu, {cores} threads": OpticalFlowComputer("cpu", threads=cores).compute,
        f"cpu, {cores} threads, fast": OpticalFlowComputer("cpu", "fast", threads=cores).compute,
    }
    if with_xla:
        engines["xla"] = OpticalFlowComputer("xla").compute
        engines["xla, fast"] = OpticalFlowComputer("xla", "fast").compute
    return engines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS, help="folder of recordings")
    parser.add_argument("--pairs", type=int, default=4, help="pairs taken from each of the ten videos")
    parser.add_argument("--xla", action="store_true", help="measure the xla engine too: for machines with a GPU")
    arguments = parser.parse_args()

    cores = usable_cores()
    runs = speaker_frames(arguments.corpus, arguments.pairs)
    with ProcessPoolExecutor(cores) as pool:
        engines = contestants(cores, pool, arguments.xla)
        for compute in engines.values():
            compute(runs[0])  # compiles, starts processes, fills caches
        pair_ms: dict[str, list[float]] = {name: [] for name in engines}
        for frames in runs:
            for name, compute in engines.items():
                start = time.perf_counter()
                compute(frames)
                pair_ms[name].append(1000 * (time.perf_counter() - start) / (len(frames) - 1))

    reference = median(next(iter(pair_ms.values())))
    print(f"{sum(len(frames) - 1 for frames in runs)} pairs of {SIDE_PX}x{SIDE_PX} px, {cores} cores")
    print(f"{'engine':34} {'ms/pair':>9} {'pairs/s':>9} {'times':>7}")
    for name, times in pair_ms.items():
        typical = median(times)
        print(f"{name:34} {typical:9.1f} {1000 / typical:9.1f} {reference / typical:7.1f}")


if __name__ == "__main__":
    main()

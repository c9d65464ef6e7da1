"""Time per pair of 224x224 frames for every optical-flow engine, all in one interleaved run.

Run it as `python tests/benchmarks/bench_optical_flow.py [--corpus DIR]`. The reference is OpenCV in as many
single-thread processes as there are cores. On a GPU, its engines are compared, too, and a second table shows the gpu
engine by batch and by size. Nothing is asserted about time: the tables are for people.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from extractors.devices import usable_cores
from extractors.optical_flow.computer import OpticalFlowComputer

SIDE_PX = 224
DEFAULT_CORPUS = Path(os.environ.get("TRAITLINE_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))


def speaker_frames(corpus: Path, pairs_per_video: int) -> list[np.ndarray]:
    """Runs of successive grey frames around the speaker: uint8 [pairs + 1, 224, 224] of each video."""
    import av

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


def contestants(cores: int, pool: ProcessPoolExecutor, has_gpu: bool) -> dict[str, Callable[[np.ndarray], object]]:
    """What is compared, by the name in the table; each takes one run of frames."""

    def opencv_processes(frames: np.ndarray) -> None:
        # Shares of equal length overlap by one frame, so that no pair is left out.
        shares = [share for share in np.array_split(np.arange(len(frames) - 1), cores) if len(share)]
        tasks = [pool.submit(compute_in_process, "opencv", "exact", frames[s[0] : s[-1] + 2]) for s in shares]
        for task in tasks:
            task.result()

    engines = {
        f"opencv, {cores} processes of 1 thread": opencv_processes,
        "opencv, 1 thread": OpticalFlowComputer("opencv", "exact", threads=1).compute,
        "cpu, 1 thread": OpticalFlowComputer("cpu", "exact", threads=1).compute,
        f"cpu, {cores} threads": OpticalFlowComputer("cpu", "exact", threads=cores).compute,
    }
    for preset in ("fast", "large_motion"):
        engines[f"cpu, {cores} threads, {preset}"] = OpticalFlowComputer("cpu", preset, threads=cores).compute
    if has_gpu:
        engines["gpu"] = OpticalFlowComputer("gpu", "exact").compute
        for preset in ("fast", "large_motion"):
            engines[f"gpu, {preset}"] = OpticalFlowComputer("gpu", preset).compute
    return engines


def seconds(compute: Callable[[], object], times: int = 7) -> float:
    """Median time of one call, after a first one."""
    compute()
    measured = []
    for _ in range(times):
        start = time.perf_counter()
        compute()
        measured.append(time.perf_counter() - start)
    return median(measured)


def forwards_and_backwards(run: np.ndarray, pairs: int) -> np.ndarray:
    """`pairs` + 1 frames of one run, again and again, without a cut."""
    last = len(run) - 1
    return run[[last - abs(i % (2 * last) - last) for i in range(pairs + 1)]]


def print_gpu_table(runs: list[np.ndarray]) -> None:
    """Pairs a second of the gpu engine: NumPy in and out, and with the fields left on the GPU."""
    print(f"\n{'gpu engine, pairs/s':34} {'NumPy out':>11} {'stay on GPU':>11}")
    rows = [(f"{pairs} pairs", "exact", pairs, SIDE_PX) for pairs in (1, 64, 256, 379, 1024)]
    rows += [(f"256 pairs, {preset}", preset, 256, SIDE_PX) for preset in ("fast", "large_motion")]
    rows += [(f"256 pairs of {side}x{side} px", "exact", 256, side) for side in (112, 160, 320)]
    batches = {name: forwards_and_backwards(runs[0], pairs) for name, _, pairs, _ in rows}
    rows += [("256 pairs, 4 of them cuts", "exact", 256, SIDE_PX)]
    batches[rows[-1][0]] = np.concatenate([run[:52] for run in (forwards_and_backwards(r, 51) for r in runs[:5])])[:257]
    for name, preset, pairs, side in rows:
        batch = batches[name]
        if side != SIDE_PX:
            batch = np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in batch])
        computer = OpticalFlowComputer("gpu", preset)
        to_host = seconds(functools.partial(computer.compute, batch))
        stays = seconds(functools.partial(computer.compute_scaled, batch))
        print(f"{name:34} {pairs / to_host:11,.0f} {pairs / stays:11,.0f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS, help="folder of recordings")
    parser.add_argument("--frames", type=Path, help="in place of it, uint8 [runs, frames, 224, 224] in a .npy file")
    parser.add_argument("--pairs", type=int, default=4, help="pairs taken from each of the ten videos")
    arguments = parser.parse_args()

    cores = usable_cores()
    has_gpu = OpticalFlowComputer().engine == "gpu"
    if arguments.frames is None:
        runs = speaker_frames(arguments.corpus, arguments.pairs)
    else:
        runs = [run[: arguments.pairs + 1] for run in np.load(arguments.frames)]
    with ProcessPoolExecutor(cores, multiprocessing.get_context("forkserver")) as pool:
        engines = contestants(cores, pool, has_gpu)
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
        print(f"{name:34} {typical:9.2f} {1000 / typical:9,.1f} {reference / typical:7.1f}")
    if has_gpu:
        print_gpu_table(runs)


if __name__ == "__main__":
    main()

"""Everything that a GPU is worth: optical flow, networks, and the extraction of clips from file to features.

Run it as `python tests/benchmarks/bench_gpu.py [--video FILE] [--clips N] [--precision P] [--price-per-hour P]`, on a
machine with an NVIDIA GPU; without one it says so, and prints what a CPU can show. Weights are random. Without a video,
it takes a 15 s clip of the corpus if that is present, else a demo clip of 4 s. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
from bench_extraction import GpuWatch, default_clip, jobs, processor_s
from bench_optical_flow import SIDE_PX, forwards_and_backwards, seconds
from rich.console import Console
from rich.table import Table

from extractors.devices import usable_cores
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.optical_flow.computer import OpticalFlowComputer
from extractors.optical_flow.gpu import why_unusable
from extractors.preparation.stopwatch import STAGES
from extractors.static.extractor import StaticFeatureExtractor
from extractors.video.grid import grid_frames
from flows.archive.families import families_of
from flows.config.load import load_config
from flows.extraction.extractor import Extractor

FIELDS = 64
ON_GPU = ("optical flow", "static network", "dynamic network")


def pictures(video: Path, count: int) -> np.ndarray:
    """The middle squares of a video's first pictures: uint8 RGB [count, 224, 224, 3]."""
    found = []
    for picture in islice(grid_frames(video, 25.0), count):
        side = min(picture.shape[:2])
        top, left = ((length - side) // 2 for length in picture.shape[:2])
        square = picture[top : top + side, left : left + side]
        found.append(cv2.resize(square, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA))
    return np.stack(found)


def table(title: str, rows: dict[str, str]) -> Table:
    """A table of two columns."""
    made = Table(title=title, show_header=False)
    made.add_column()
    made.add_column(justify="right")
    for name, value in rows.items():
        made.add_row(name, value)
    return made


def parts(crops: np.ndarray, engines: list[str], precision: str) -> dict[str, str]:
    """Pairs a second of each engine, and milliseconds per window and crop as an extraction runs the networks."""
    grey = np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops])
    rows, window = {}, forwards_and_backwards(grey, FIELDS)
    i3d = DynamicFeatureExtractor("random", precision=precision)
    for engine in engines:
        computer, pairs = OpticalFlowComputer(engine), 256 if engine == "gpu" else FIELDS
        batch = forwards_and_backwards(grey, pairs)
        rows[f"{engine}: pairs/s"] = f"{pairs / seconds(functools.partial(computer.compute_scaled, batch)):,.0f}"
        fields = computer.compute_scaled(window)
        run: Callable[[], object] = functools.partial(i3d.extract_on_device, [fields], FIELDS)
        if isinstance(fields, np.ndarray):
            run = functools.partial(i3d.extract, fields[None])
        rows[f"{engine}: I3D, ms per window"] = f"{1000 * seconds(run):.1f}"
    resnet, faces = StaticFeatureExtractor("random", precision=precision), np.resize(crops, (16, *crops.shape[1:]))
    rows["ResNet-50, ms per crop, 16 at a time"] = (
        f"{1000 * seconds(functools.partial(resnet.extract, faces)) / len(faces):.2f}"
    )
    return rows


def extraction(video: Path, clips: int, precision: str, price: float | None, scratch: Path) -> dict[str, str]:
    """Extract one clip with a cold start, then a shard of clips."""
    flags = {"weights": "random", "store.path": scratch / "store"}
    config = load_config(flags=flags | {"static.precision": precision, "dynamic.precision": precision})
    shards, start = jobs(video, clips), time.perf_counter()
    with Extractor(config, families_of(config), videos=clips) as extractor:
        ready_s = time.perf_counter() - start
        extractor.extract(next(shards)[:1])
        first_s, start, work = time.perf_counter() - start, time.perf_counter(), processor_s()
        with GpuWatch() as gpus:
            stages = extractor.extract(next(shards)).seconds
        wall_s, work_s = time.perf_counter() - start, processor_s() - work
    rows = {"ready to start, s": f"{ready_s:.1f}", "until the first clip is done, s": f"{first_s:.1f}"}
    rows |= {f"{stage}, ms of work per clip": f"{1000 * stages.get(stage, 0) / clips:,.0f}" for stage in STAGES}
    at_the_networks = sum(stages.get(stage, 0) for stage in ON_GPU)
    rows["optical flow and networks, ms per clip"] = f"{1000 * at_the_networks / clips:,.0f}"
    rows["wall, ms per clip"] = f"{1000 * wall_s / clips:,.0f}"
    rows["clips per second"] = f"{clips / wall_s:.2f}"
    rows["core-seconds per clip"] = f"{work_s / clips:.2f}"
    rows[f"cores busy, of {usable_cores()}"] = f"{work_s / wall_s:.1f}"
    rows["GPU busy"] = f"{mean(gpus.percent):.0f} %" if gpus.percent else "no GPU here"
    hours = 10_000 * wall_s / clips / 3600
    rows["10,000 clips"] = f"{hours:.1f} h" + ("" if price is None else f", {hours * price:.2f}")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="clip to extract")
    parser.add_argument("--clips", type=int, help="clips in the shard (count); by default 64 with a GPU, 2 without")
    parser.add_argument("--precision", default="float32", help="of both networks: float32, tf32 or bfloat16")
    parser.add_argument("--price-per-hour", type=float, help="of this machine, in any currency: the cost is told")
    arguments = parser.parse_args()
    console, missing = Console(width=120), why_unusable()
    if missing:
        console.print(f"The engine gpu cannot run here ({missing}): this is what the CPU does.")
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video if arguments.video is not None else default_clip(Path(folder))
        clips = arguments.clips or (2 if missing else 64)
        rows = extraction(video, clips, arguments.precision, arguments.price_per_hour, Path(folder))
        title = f"{video.name}, {arguments.precision}, {clips} clips in a shard"
        console.print(table(title, rows))
        engines = ["cpu"] if missing else ["gpu", "cpu"]
        console.print(table("Each alone", parts(pictures(video, FIELDS + 1), engines, arguments.precision)))


if __name__ == "__main__":
    main()

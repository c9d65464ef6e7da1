"""Everything that a GPU is worth: optical flow, networks, and the extraction of clips from file to features.

Run it as `python tests/benchmarks/bench_gpu.py [--video FILE] [--clips N] [--precision P] [--price-per-hour P]`, on a
machine with an NVIDIA GPU. Without one, it prints the same tables of what a CPU does, and which rows need a GPU.
Weights are random. Without a video, it takes a 15 s clip of the corpus if that is present, else a demo clip of 4 s.
Nothing is asserted.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from statistics import mean

import av
import cv2
import numpy as np
from av.codec.hwaccel import HWAccel
from bench_extraction import GpuWatch, default_clip, jobs, processor_s
from bench_optical_flow import SIDE_PX, forwards_and_backwards, seconds
from rich.console import Console
from rich.table import Table

from extractors.devices import has_gpu, usable_cores
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.optical_flow.computer import OpticalFlowComputer
from extractors.optical_flow.gpu import why_unusable
from extractors.preparation.stopwatch import STAGES
from extractors.static.extractor import StaticFeatureExtractor
from extractors.video.grid import grid_frames
from flows.archive.families import families_of
from flows.config.load import load_config
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import Committed

FIELDS = 64
NEEDS_GPU = "needs a GPU"
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


def parts(crops: np.ndarray, missing: str, precision: str) -> dict[str, str]:
    """Pairs a second of each engine, and milliseconds per window and crop as an extraction runs the networks."""
    grey = np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops])
    window = forwards_and_backwards(grey, FIELDS)
    together = {f"gpu: pairs/s, {pairs} a call": ("gpu", pairs) for pairs in (FIELDS, 256)}
    together[f"cpu: pairs/s, {FIELDS} a call"] = ("cpu", FIELDS)
    computers = {engine: OpticalFlowComputer(engine) for engine in ("gpu", "cpu")}
    rows = {}
    for name, (engine, pairs) in together.items():
        if engine == "gpu" and missing:
            rows[name] = NEEDS_GPU
            continue
        batch = forwards_and_backwards(grey, pairs)
        rows[name] = f"{pairs / seconds(functools.partial(computers[engine].compute_scaled, batch)):,.0f}"
    i3d = DynamicFeatureExtractor("random", precision=precision)
    rows["I3D, ms per window, fields in host memory"] = in_ms(
        functools.partial(i3d.extract, np.from_dlpack(computers["cpu"].compute_scaled(window))[None])
    )
    on_gpu = "I3D, ms per window, fields left on the GPU"
    if missing or not has_gpu():
        rows[on_gpu] = NEEDS_GPU
    else:
        fields = computers["gpu"].compute_scaled(window[None])
        rows[on_gpu] = in_ms(functools.partial(i3d.extract_on_device, fields, [FIELDS]))
    resnet, faces = StaticFeatureExtractor("random", precision=precision), np.resize(crops, (16, *crops.shape[1:]))
    rows["ResNet-50, ms per crop, 16 at a time"] = in_ms(functools.partial(resnet.extract, faces), items=len(faces))
    return rows


def decoded(video: Path, device: HWAccel | None) -> Iterator[av.VideoFrame]:
    """The frames of a video, decoded in one thread or by a device."""
    with av.open(str(video), hwaccel=device) as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(video=0)


def decoding(video: Path, missing: str) -> dict[str, str]:
    """Milliseconds of a core that decoding takes, by the CPU and by NVDEC, and whether both have the same pixels."""
    rows, pixels = {}, []
    for name, device in {"CPU": None, "NVDEC": HWAccel("cuda", allow_software_fallback=False)}.items():
        row, start = f"decode with {name}, core-ms", processor_s()
        if device is not None and missing:
            rows[row] = NEEDS_GPU
            continue
        try:
            for _ in decoded(video, device):
                pass
            rows[row] = f"{1000 * (processor_s() - start):,.0f}"
            frames = (frame.reformat(format="yuv420p").to_ndarray() for frame in decoded(video, device))
            pixels.append([zlib.crc32(frame.tobytes()) for frame in frames])
        except av.FFmpegError as error:
            rows[row] = str(error)
    pairs = list(zip_longest(*pixels))
    same = len(pixels) == 2 and f"{sum(one == other for one, other in pairs)} of {len(pairs)}"
    rows["frames with the same pixels"] = same or NEEDS_GPU
    return rows


def in_ms(call: Callable[[], object], *, items: int = 1) -> str:
    """Median time of a call for one of its items."""
    return f"{1000 * seconds(call) / items:.2f}"


class WatchedExtractor(Extractor):
    """Notes when its networks are built.

    Attributes:
        built_at: by the clock of `time.perf_counter`.
    """

    def _build_networks(self) -> None:
        super()._build_networks()
        self.built_at = getattr(self, "built_at", time.perf_counter())


def extraction(video: Path, clips: int, precision: str, price: float | None, scratch: Path) -> dict[str, str]:
    """Extract one clip with a cold start, then a shard of clips."""
    flags = {"weights": "random", "store.path": scratch / "store"}
    config = load_config(flags=flags | {"static.precision": precision, "dynamic.precision": precision})
    shards, start = jobs(video, clips), time.perf_counter()
    with WatchedExtractor(config, families_of(config), videos=clips) as extractor:
        list(extractor.extract(next(shards)[:1]))
        built_s = extractor.built_at - start
        first_s, start, work = time.perf_counter() - start, time.perf_counter(), processor_s()
        with GpuWatch() as gpus:
            stages = sum(extractor.extract(next(shards)), Committed()).seconds
        wall_s, work_s = time.perf_counter() - start, processor_s() - work
    rows = {"until the networks are built, s": f"{built_s:.1f}", "until the first clip is done, s": f"{first_s:.1f}"}
    rows |= {f"{stage}, ms of work per clip": f"{1000 * stages.get(stage, 0) / clips:,.0f}" for stage in STAGES}
    at_the_networks = sum(stages.get(stage, 0) for stage in ON_GPU)
    rows["optical flow and networks together, ms of work per clip"] = f"{1000 * at_the_networks / clips:,.0f}"
    rows["wall, ms per clip"] = f"{1000 * wall_s / clips:,.0f}"
    rows["clips per second"] = f"{clips / wall_s:.3g}"
    rows["core-seconds per clip"] = f"{work_s / clips:.2f}"
    rows[f"cores busy, of {usable_cores()}"] = f"{work_s / wall_s:.2f}"
    rows["GPU busy"] = f"{mean(gpus.percent):.0f} %" if gpus.percent else NEEDS_GPU
    hours = 10_000 * wall_s / clips / 3600
    rows["10,000 clips, hours"] = f"{hours:.1f}"
    if price is not None:
        rows[f"10,000 clips at {price:g} an hour"] = f"{hours * price:.2f}"
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
        console.print(f"The engine gpu cannot run here ({missing}). The tables show what the CPU does.")
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video if arguments.video is not None else default_clip(Path(folder))
        clips = arguments.clips or (2 if missing else 64)
        rows = extraction(video, clips, arguments.precision, arguments.price_per_hour, Path(folder))
        title = f"{video.name}, {arguments.precision}, {clips} clips in a shard"
        console.print(table(title, rows))
        if not missing and not has_gpu():  # asked now, because it imports TensorFlow, which belongs to the start above
            console.print("TensorFlow sees no GPU: the networks run on the CPU.")
        console.print(table(f"Decoding {video.name}, one thread", decoding(video, missing)))
        alone = parts(pictures(video, FIELDS + 1), missing, arguments.precision)
        console.print(table(f"Each alone, {arguments.precision}", alone))


if __name__ == "__main__":
    main()

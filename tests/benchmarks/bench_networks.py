"""Time per item of both feature networks, against PyTorch's eager mode and OpenVINO, all in one interleaved run.

Run it as `python tests/benchmarks/bench_networks.py [--threads N] [--jit] [--error]`. PyTorch and OpenVINO take part
where they can be imported; they are no dependencies. All contestants have the same weights, and what they compute is
compared before anything is timed. --error measures on the corpus how far off bfloat16 is. Nothing is asserted about
time.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median

import cv2
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from rich.console import Console
from rich.table import Table

from extractors.devices import usable_cores
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.dynamic.sequences import OpticalFlowSequenceLoader
from extractors.errors import DeviceError
from extractors.networks.inference import for_inference
from extractors.networks.precision import check_precision
from extractors.static.extractor import StaticFeatureExtractor
from extractors.video.grid import grid_frames

CORPUS = Path(os.environ.get("TRAITLINE_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))
FIELDS = 64
Run = Callable[[np.ndarray], np.ndarray]


@dataclass
class Contestant:
    """One way to run a network on batches of one size."""

    name: str
    run: Run
    items: np.ndarray
    first_s: float = 0.0
    item_ms: list[float] = field(default_factory=list)


def ours(model: keras.Model, items: np.ndarray, batch_sizes: tuple[int, ...], jit: bool) -> list[Contestant]:
    """The Keras model as it is, and as `for_inference` makes it, in each precision."""
    usual = items[: batch_sizes[-1]]
    model.jit_compile = False
    contestants = [Contestant("not folded", model.predict_on_batch, usual)]
    for precision in ("float32", "bfloat16") if has_bfloat16() else ("float32",):
        network = for_inference(model, precision)
        for size in batch_sizes:
            contestants.append(Contestant(f"{precision}, batch {size}", network.predict_on_batch, items[:size]))
    if jit:
        compiled = for_inference(model)
        compiled.jit_compile = True
        contestants.append(Contestant("float32, jit", compiled.predict_on_batch, usual))
    return contestants


def others(model: keras.Model, items: np.ndarray, threads: int, torch_network: str) -> list[Contestant]:
    """PyTorch eager and OpenVINO, where they are there."""
    contestants = []
    if importlib.util.find_spec("torch"):
        import torch
        import torch_networks

        torch.set_num_threads(threads)
        contestants.append(Contestant("PyTorch eager", getattr(torch_networks, torch_network)(model), items))
    if importlib.util.find_spec("openvino"):
        for precision in ("f32", "bf16") if has_bfloat16() else ("f32",):
            contestants.append(Contestant(f"OpenVINO {precision}", openvino(model, items, threads, precision), items))
    return contestants


def openvino(model: keras.Model, items: np.ndarray, threads: int, precision: str) -> Run:
    """The network compiled by OpenVINO for batches of just this shape."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        graph = openvino.convert_model(folder)
        graph.reshape(items.shape)
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        compiled = openvino.Core().compile_model(graph, "CPU", options)
    return lambda batch: compiled(batch)[0]


def has_bfloat16() -> bool:
    """Whether this machine computes with bfloat16."""
    try:
        check_precision("bfloat16")
    except DeviceError:
        return False
    return True


def measure(contestants: list[Contestant], repeats: int) -> None:
    """Check that all compute the same, then time them in turns."""
    expected = contestants[0].run(contestants[0].items)
    for contestant in contestants:
        start = time.perf_counter()
        features = np.asarray(contestant.run(contestant.items), np.float32)
        contestant.first_s = time.perf_counter() - start
        both = min(len(features), len(expected))
        off = np.linalg.norm(features[:both] - expected[:both]) / np.linalg.norm(expected[:both])
        if not off < 0.02:
            raise RuntimeError(f"{contestant.name} computes something else: {off:.3g} off")
    for _ in range(repeats):
        for contestant in contestants:
            start = time.perf_counter()
            contestant.run(contestant.items)
            contestant.item_ms.append(1000 * (time.perf_counter() - start) / len(contestant.items))


def show(title: str, contestants: list[Contestant], console: Console) -> None:
    """Print one table; the ratio is the time of another contestant over ours of the same line."""
    table = Table(title=title)
    table.add_column("network")
    references = [c for c in contestants if c.name in ("PyTorch eager", "OpenVINO f32", "OpenVINO bf16")]
    for heading in ("ms per item", "best", "first call, s", *(f"{c.name} / this" for c in references)):
        table.add_column(heading, justify="right")
    for c in contestants:
        ratios = [f"{median(reference.item_ms) / median(c.item_ms):.2f}" for reference in references]
        table.add_row(c.name, f"{median(c.item_ms):.1f}", f"{min(c.item_ms):.1f}", f"{c.first_s:.2f}", *ratios)
    console.print(table)
    for module, name in (("torch", "PyTorch"), ("openvino", "OpenVINO")):
        if not importlib.util.find_spec(module):
            console.print(f"{name} is not installed here and did not take part.")


def with_real_statistics(model: keras.Model, items: np.ndarray) -> keras.Model:
    """Give every BatchNorm the mean and variance that these items have there, as training would."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(items, training=True)
    return model


def errors(model: keras.Model, seen: np.ndarray, unseen: np.ndarray) -> tuple[np.ndarray, float]:
    """How far bfloat16 is from float32 on unseen items: relative L2 of each, and RMS over the spread between items."""
    model = with_real_statistics(model, seen)
    exact, rounded = (
        np.concatenate([network.predict_on_batch(item[None]) for item in unseen])
        for network in (for_inference(model), for_inference(model, "bfloat16"))
    )
    off = rounded - exact
    spread = np.sqrt((exact.std(axis=0) ** 2).mean())
    return np.linalg.norm(off, axis=1) / np.linalg.norm(exact, axis=1), float(np.sqrt((off**2).mean()) / spread)


def pictures(video: Path, count: int) -> list[np.ndarray]:
    """Pictures of a video, the middle square, half a second apart: uint8 RGB [224, 224, 3]."""
    found = []
    for picture in islice(grid_frames(video, 2.0), count):
        top, left = (max(0, (side - min(picture.shape[:2])) // 2) for side in picture.shape[:2])
        side = min(picture.shape[:2])
        square = picture[top : top + side, left : left + side]
        found.append(cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA))
    return found


def show_errors(static: keras.Model, dynamic: keras.Model, console: Console) -> None:
    """Print how far bfloat16 is off: statistics from the first half of the clips, errors on the others."""
    clips = sorted((CORPUS / "fi_v2").glob("*.mp4"))
    if not clips or not has_bfloat16():
        console.print(f"The error of bfloat16 needs a CPU that has it and clips in {CORPUS / 'fi_v2'}.")
        return
    loader = OpticalFlowSequenceLoader(fields=FIELDS)
    windows = np.stack([loader.load(clip) for clip in clips])
    crops = np.stack([crop for clip in clips for crop in pictures(clip, 8)]).astype(np.float32)
    prepared = keras.applications.resnet.preprocess_input(crops)
    table = Table(
        title=f"bfloat16 against float32, random weights, BatchNorm statistics of {len(clips) // 2} real clips"
    )
    for heading in ("network", "items", "median relative L2", "largest", "error / spread between items"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for name, model, items in (("ResNet-50", static, prepared), ("I3D", dynamic, windows)):
        half = len(items) // 2
        relative, noise = errors(model, items[:half], items[half:])
        table.add_row(name, str(half), f"{np.median(relative):.2%}", f"{relative.max():.2%}", f"{noise:.2%}")
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = usable_cores()
    parser.add_argument("--threads", type=int, default=cores, help="threads of each contestant")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each contestant")
    parser.add_argument("--jit", action="store_true", help="measure XLA too")
    parser.add_argument("--error", action="store_true", help="measure the error of bfloat16 too, on the corpus")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)

    console = Console(width=140)  # no line of the table is broken
    static, dynamic = StaticFeatureExtractor("random").model, DynamicFeatureExtractor("random").model
    generator = np.random.default_rng(0)
    crops = generator.uniform(-120, 120, (32, 224, 224, 3)).astype(np.float32)
    windows = generator.uniform(-0.3, 0.3, (2, FIELDS, 224, 224, 2)).astype(np.float32)
    for title, model, items, sizes, usual, torch_network in (
        ("ResNet-50, 224x224x3", static, crops, (1, 4, 32, 16), 16, "torch_resnet"),
        (f"I3D, {FIELDS}x224x224x2", dynamic, windows, (2, 1), 1, "torch_i3d"),
    ):
        contestants = ours(model, items, sizes, arguments.jit)
        contestants += others(model, items[:usual], arguments.threads, torch_network)
        measure(contestants, arguments.repeats)
        show(f"{title}, {arguments.threads} threads", contestants, console)
    if arguments.error:
        show_errors(static, dynamic, console)


if __name__ == "__main__":
    main()

"""How fast the model is trained and applied, beside what the processor could do, plain Keras, and PyTorch.

Run it as `python tests/benchmarks/bench_training.py [--clips N] [--repeats N]`. Clips have 16 face tokens of 2048
numbers and 6 motion tokens of 1024, drawn, in a store of Parquet shards. Every repeat measures everything in turn, each
on a share of the clips, and the medians are scaled to an epoch of 6,000 clips:

- floor: the multiplications and additions of the model's matrix products, once forward and for a step twice backward
  (without the gradient of the inputs), at the rate that a product of 2048 x 2048 matrices reaches in the same repeat.
- step: the training step alone (`train_on_batch`), on one batch that is there already.
- epoch: an epoch of `traitline train`, with clips that stay in memory, and with clips read from the store.
- PyTorch: the same step written with its own layers, where it is importable.
- score: the clips of the store through `fusion.model.scoring.predict`, and Keras' `model.predict` on padded arrays.

Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# PyTorch's threads would spin while they wait for each other, which on a busy machine takes 10 times as long
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from flows.archive.clips import StoredClips, read_clips
from flows.archive.families import Families
from flows.config.settings import RunConfig, StoreSettings
from fusion.clips.sources import ClipsInMemory
from fusion.clips.tokens import pad_batch
from fusion.model.model import CompletePersonalityModel
from fusion.model.scoring import predict
from fusion.settings import TrainSettings
from fusion.training.fit import EpochReport, LabelledSource, fit
from storage import Family, FeatureStore, VideoFeatures

try:
    import torch
except ImportError:
    torch = None

EPOCH_CLIPS = 6000
STATIC, DYNAMIC = (16, 2048), (6, 1024)
WIDTH, HEADS, HIDDEN = 128, 4, 64
BATCH = 64


def fill_store(folder: Path, count: int) -> tuple[RunConfig, Families, list[str]]:
    """A store of drawn features, distributed as averaged ReLU maps."""
    rng = np.random.default_rng(0)
    store = FeatureStore(folder)
    families = {
        kind: Family(kind, dim, {"drawn": 0}, ("face_coverage",))
        for kind, (_, dim) in (("static", STATIC), ("dynamic", DYNAMIC))
    }
    names = [f"{number:06d}.mp4" for number in range(count)]
    for kind, (tokens, dim) in (("static", STATIC), ("dynamic", DYNAMIC)):
        start_s = np.linspace(0, 15, tokens)
        for first in range(0, count, 64):
            videos = [
                VideoFeatures(
                    name,
                    "0" * 64,
                    rng.gamma(0.6, 0.6, (tokens, dim)).astype(np.float32),
                    start_s,
                    start_s + 1,
                    {"face_coverage": np.ones(tokens, np.float32)},
                )
                for name in names[first : first + 64]
            ]
            store.write(families[kind], videos)
    config = RunConfig(store=StoreSettings(path=folder))
    return config, Families(families["static"], families["static"], families["dynamic"]), names


def products(training: bool) -> float:
    """Multiplications and additions of the matrix products for one clip."""
    (static, static_dim), (dynamic, dynamic_dim) = STATIC, DYNAMIC
    inputs = static * static_dim * WIDTH + dynamic * dynamic_dim * WIDTH
    attention = (2 * static + 2 * dynamic) * WIDTH * WIDTH * HEADS + 2 * HEADS * static * dynamic * WIDTH
    head = WIDTH * HIDDEN + HIDDEN * 5
    return 2.0 * (inputs * (2 if training else 1) + (attention + head) * (3 if training else 1))


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def flop_rate() -> float:
    """Multiplications and additions a second of one large product."""
    matrix = tf.random.normal((2048, 2048))
    return 2.0 * 2048**3 / min(seconds(lambda: tf.linalg.matmul(matrix, matrix).numpy()) for _ in range(4))


def torch_step(batch: dict[str, np.ndarray], labels: np.ndarray) -> Callable[[], object]:
    """The same model and step in PyTorch, with its own attention kernel."""
    nn, functional = torch.nn, torch.nn.functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inner = WIDTH * HEADS
            self.static, self.dynamic = nn.Linear(STATIC[1], WIDTH), nn.Linear(DYNAMIC[1], WIDTH)
            self.query, self.key, self.value = (nn.Linear(WIDTH, inner) for _ in range(3))
            self.out, self.norm = nn.Linear(inner, WIDTH), nn.LayerNorm(WIDTH, eps=1e-3)
            self.batch_norm, self.dropout = nn.BatchNorm1d(WIDTH, eps=1e-3), nn.Dropout(0.3)
            self.head = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 5))
            self.static_mean, self.static_std = torch.zeros(STATIC[1]), torch.ones(STATIC[1])
            self.dynamic_mean, self.dynamic_std = torch.zeros(DYNAMIC[1]), torch.ones(DYNAMIC[1])

        def encode(self, time_s: torch.Tensor) -> torch.Tensor:
            angle = time_s[..., None] * (2 * np.pi / torch.logspace(0, 3, WIDTH // 2))
            return torch.cat([angle.sin(), angle.cos()], dim=-1)

        def heads(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)

        def forward(self, b: dict[str, torch.Tensor]) -> torch.Tensor:
            static = torch.where(b["static_mask"][..., None], b["static"], 0)
            dynamic = torch.where(b["dynamic_mask"][..., None], b["dynamic"], 0)
            static = self.static((static - self.static_mean) / self.static_std) + self.encode(b["static_time_s"])
            dynamic = self.dynamic((dynamic - self.dynamic_mean) / self.dynamic_std) + self.encode(b["dynamic_time_s"])
            query, key, value = (
                self.heads(layer(tokens))
                for layer, tokens in ((self.query, static), (self.key, dynamic), (self.value, dynamic))
            )
            mask = b["dynamic_mask"][:, None, None, :]
            answer = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            fused = self.norm(static + self.out(answer.transpose(1, 2).flatten(2)))
            real = b["static_mask"][..., None]
            pooled = (fused * real).sum(1) / real.sum(1)
            return self.head(self.dropout(self.batch_norm(pooled)))

    model = Model()
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    inputs = {name: torch.from_numpy(value) for name, value in batch.items()}
    target = torch.from_numpy(labels)

    def step() -> None:
        adam.zero_grad()
        functional.mse_loss(model(inputs), target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()

    return step


class Bench:
    """Everything that is measured, made once."""

    def __init__(self, folder: Path, clips: int) -> None:
        self._clips = clips
        self.config, self.families, self.names = fill_store(folder, clips)
        self.memory = ClipsInMemory(
            [clip.tokens for clip in read_clips(self.config.store.path, self.families, self.names)]
        )
        self.stored = StoredClips(self.config.store.path, self.families, self.names)
        self.labels = np.random.default_rng(0).random((clips, 5)).astype(np.float32)
        self.labelled = {
            "epoch, clips in memory": LabelledSource(self.memory, self.labels),
            "epoch, clips from the store": LabelledSource(self.stored, self.labels),
        }
        self.model = self.fit(self.labelled["epoch, clips in memory"], 1)[0]
        self.batch = pad_batch(self.memory.read(np.arange(BATCH)))
        self.padded = pad_batch(self.memory.read(np.arange(clips)))
        self.torch_step = torch_step(self.batch, self.labels[:BATCH]) if torch else None

    def steps(self, step: Callable[[], object], count: int = 12) -> float:
        """Seconds that an epoch of these steps takes."""
        return seconds(lambda: [step() for _ in range(count)]) / (count * BATCH) * EPOCH_CLIPS

    def own_step(self) -> float:
        """The loss, so that the step is done."""
        inputs = {name: self.batch[name] for name in self.model.input_signature()}
        return float(self.model.train_on_batch(inputs, self.labels[:BATCH]))

    def fit(self, source: LabelledSource, epochs: int) -> tuple[CompletePersonalityModel, list[float]]:
        """A model and the seconds that each epoch took; the first compiles."""
        ends = [time.perf_counter()]

        def on_epoch(_: EpochReport) -> None:
            ends.append(time.perf_counter())

        fitted = fit(
            lambda: CompletePersonalityModel(STATIC[1], DYNAMIC[1]),
            TrainSettings(kind="specified", batch_size=BATCH, epochs=epochs),
            source,
            None,
            buffer_clips=self._clips,
            folder=None,
            identity="",
            on_epoch=on_epoch,
        )
        return fitted.model, np.diff(ends).tolist()

    def measure(self) -> dict[str, float]:
        """Seconds for 6,000 clips, of everything, once."""
        whole = EPOCH_CLIPS / self._clips
        model = self.model
        rate = flop_rate()
        found = {
            "step: floor": EPOCH_CLIPS * products(True) / rate,
            "step": self.steps(self.own_step),
            **{name: min(self.fit(source, 3)[1][1:]) * whole for name, source in self.labelled.items()},
        }
        if self.torch_step:
            found["step: PyTorch"] = self.steps(self.torch_step)
        stored = (clip.tokens for clip in read_clips(self.config.store.path, self.families, self.names))
        found |= {
            "score: floor": EPOCH_CLIPS * products(False) / rate,
            "score, clips in memory": seconds(lambda: predict(model, self.memory.read(np.arange(self._clips)))) * whole,
            "score, clips from the store": seconds(lambda: predict(model, stored)) * whole,
            "score: model.predict": seconds(lambda: model.predict(self.padded, batch_size=BATCH, verbose=0)) * whole,
        }
        return found


RATIOS = {
    "step": "step: floor",
    "step: PyTorch": "step",
    "epoch, clips in memory": "step",
    "epoch, clips from the store": "step",
    "score, clips in memory": "score: floor",
    "score, clips from the store": "score: floor",
    "score: model.predict": "score, clips in memory",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1024, help="drawn clips")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch) / "store", arguments.clips)
        bench.measure()  # compiles
        runs = [bench.measure() for _ in range(arguments.repeats)]
    table = Table(title=f"6,000 clips of 16 x 2048 and 6 x 1024, median of {arguments.repeats}")
    for heading in ("what", "seconds", "clips/s", "ratio", "to"):
        table.add_column(heading, justify="left" if heading in ("what", "to") else "right")
    for name in runs[0]:
        took = median(run[name] for run in runs)
        reference = RATIOS.get(name)
        ratio = f"{median(run[name] / run[reference] for run in runs):.2f}" if reference else ""
        table.add_row(name, f"{took:.2f}", f"{EPOCH_CLIPS / took:.0f}", ratio, reference or "")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

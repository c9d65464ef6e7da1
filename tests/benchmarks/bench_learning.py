"""What the default model learns of drawn clips, beside ridge regression, PCA with ridge regression, and a perceptron.

Run it as `python tests/benchmarks/bench_learning.py [--clips N ...] [--seeds N ...] [--worlds W ...] [--cameras C ...]
[--models M ...]`. Clips have tokens of 2048 and 1024 numbers of low rank with noise, drawn by two generators, see
`tests/support/learning_worlds.py`; a trait follows from the mean face token, from the mean motion token, from a product
of both at the same moment, from the person as in First Impressions, or from nothing. Every model learns from the same
clips and scores 1,000 clips of other people. Ridge regressions are fitted to all clips after three folds of people have
chosen the penalty of each trait; the perceptron is that of `fusion.evaluation.baselines`. "products" is a ridge
regression on 576 numbers: tokens less their clip's mean, 24 principal components of each kind, their products at equal
times, mean over the clip. `--models specified` measures the specified network.

The table shows the mean and the range of R2 over the seeds, how far the default stays behind the best baseline in its
worst cell, and the seconds of processor time that training takes. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
from learning_worlds import CAMERAS, FACES_PER_MOTION, WORLDS, Recordings, World, draw_labels
from measures import metrics
from rich.console import Console
from rich.table import Table
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from fusion.evaluation.baselines import mlp
from fusion.evaluation.metrics import METRICS
from fusion.model.scoring import predict
from fusion.settings import TrainSettings
from fusion.training.train import train

TEST_CLIPS = 1000
PENALTIES = 10.0 ** np.arange(-3, 4.1, 0.5)
PCA_COMPONENTS = 128
PRODUCT_COMPONENTS = 24
SURVEYED_CLIPS = 1500
KINDS = ("bilinear", "specified")


def pooled(clips: Recordings, count: int) -> np.ndarray:
    return np.hstack([clips.static[:count].mean(axis=1), clips.dynamic[:count].mean(axis=1)])


def ridge_scores(known: np.ndarray, labels: np.ndarray, people: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Fit ridge regressions with a penalty for each column of the labels, chosen on three folds of people."""

    def path(rows: np.ndarray, wanted: np.ndarray, targets: np.ndarray) -> Iterator[np.ndarray]:
        centre, mean = rows.mean(axis=0), targets.mean(axis=0)
        if len(rows) < rows.shape[1]:
            _, singular, right = np.linalg.svd(rows - centre, full_matrices=False)
            squares, axes = singular**2, right.T
        else:
            squares, axes = np.linalg.eigh((rows - centre).T @ (rows - centre))
        projected, answers = (wanted - centre) @ axes, axes.T @ ((rows - centre).T @ (targets - mean))
        for penalty in PENALTIES * np.mean(squares):
            yield projected @ (answers / (squares + penalty)[:, None]) + mean

    errors = np.zeros((len(PENALTIES), labels.shape[1]))
    for fit, out in GroupKFold(3, shuffle=True, random_state=0).split(known, groups=people):
        errors += [np.square(scores - labels[out]).sum(axis=0) for scores in path(known[fit], known[out], labels[fit])]
    scores = np.stack(list(path(known, asked, labels)))
    return np.take_along_axis(scores, errors.argmin(axis=0)[None, None], axis=0)[0]


def baseline_scores(
    known: np.ndarray, asked: np.ndarray, labels: np.ndarray, people: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    scaler = StandardScaler().fit(known)
    known, asked = scaler.transform(known), scaler.transform(asked)
    yield "ridge", ridge_scores(known, labels, people, asked)
    pca = PCA(min(PCA_COMPONENTS, len(known) - 1), random_state=0).fit(known)
    yield "PCA + ridge", ridge_scores(pca.transform(known), labels, people, pca.transform(asked))


def products(known: Recordings, asked: Recordings, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean products of components of a face and of the motion of its moment: of the first clips, and of those asked."""
    moments: list[list[np.ndarray]] = [[], []]
    for kind, repeats in (("static", 1), ("dynamic", FACES_PER_MOTION)):
        centred = [
            tokens - tokens.mean(axis=1, keepdims=True) for tokens in (getattr(known, kind), getattr(asked, kind))
        ]
        surveyed = centred[0][: min(count, SURVEYED_CLIPS)].reshape(-1, centred[0].shape[2])
        axes = PCA(PRODUCT_COMPONENTS, svd_solver="covariance_eigh").fit(surveyed).components_.T
        for part, tokens in zip(moments, (centred[0][:count], centred[1]), strict=True):
            part.append(np.repeat(tokens @ axes, repeats, axis=1))
    first, second = (
        (np.einsum("nti,ntj->nij", *part) / part[0].shape[1]).reshape(len(part[0]), -1) for part in moments
    )
    return first, second


class Cells:
    """R2, CCC and seconds of every camera, world, number of clips and model, one value for each seed."""

    def __init__(self) -> None:
        self.r2: dict[tuple[str, str, int, str], list[float]] = defaultdict(list)
        self.ccc: dict[tuple[str, str, int, str], list[float]] = defaultdict(list)
        self.seconds: dict[tuple[str, str, int, str], list[float]] = defaultdict(list)

    def add(
        self, cell: tuple[str, str, int, str], seed: int, scores: np.ndarray, labels: np.ndarray, seconds: float
    ) -> None:
        found = dict(zip(METRICS, metrics(scores, labels).mean(axis=1).tolist(), strict=True))
        self.r2[cell].append(found["r2"])
        self.ccc[cell].append(found["ccc"])
        self.seconds[cell].append(seconds)
        print(*cell, f"seed {seed}: R2 {found['r2']:.3f}, CCC {found['ccc']:.3f}, {seconds:.0f} s", flush=True)


def measure(
    cells: Cells, camera_name: str, worlds: dict[str, World], counts: list[int], seed: int, models: list[str]
) -> None:
    """Worlds that share their clips, whose labels ridge regressions take side by side."""
    world = next(iter(worlds.values()))
    camera = CAMERAS[camera_name](seed)
    drawing = {"clips_each": world.clips_each, "person_share": world.person_share}
    known = camera.record(max(counts), 100 + seed, **drawing)
    unseen = camera.record(TEST_CLIPS, 900 + seed, **drawing)
    labels = {name: draw_labels(world, [known, unseen], seed) for name, world in worlds.items()}
    clips, asked, subjects = known.clips(), unseen.clips(), known.subjects()
    means, asked_means = pooled(known, len(clips)), pooled(unseen, len(asked))
    for count in counts:

        def add(name: str, model: str, scores: np.ndarray, started: float, share: int = 1, count: int = count) -> None:
            seconds = (time.process_time() - started) / share
            cells.add((camera_name, name, count, model), seed, scores, labels[name][1], seconds)

        together = np.hstack([own[:count] for own, _ in labels.values()])
        people = known.person[:count]
        start = time.process_time()
        shared: list[tuple[str, np.ndarray]] = []
        if "ridge" in models:
            shared += baseline_scores(means[:count], asked_means, together, people)
        if "products" in models:
            first, second = products(known, unseen, count)
            shared.append(("products", ridge_scores(first, together, people, second)))
        for model, scores in shared:
            for place, name in enumerate(labels):
                add(name, model, scores[:, 5 * place : 5 * place + 5], start, len(labels) * len(shared))
        for name, (own, _) in labels.items():
            if "MLP" in models:
                start = time.process_time()
                add(name, "MLP", mlp(means[:count], own[:count], subjects[:count], asked_means, seed=seed), start)
            for kind in KINDS:
                if kind in models:
                    start = time.process_time()
                    settings = TrainSettings(kind=kind, seed=seed)
                    trained = train(clips[:count], own[:count], subjects[:count], settings)
                    add(name, kind, predict(trained.model, asked), start)


def show(cells: Cells, models: list[str]) -> None:
    table = Table(
        "clips drawn",
        "planted (ceiling)",
        "clips",
        *models,
        title="R2 on people never seen (range over seeds); CCC; CPU s",
    )
    behind = []
    for camera, name, count in sorted({cell[:3] for cell in cells.r2}):
        row = [camera, f"{WORLDS[name].title} ({WORLDS[name].ceiling:g})", f"{count:,}"]
        for model in models:
            values = cells.r2[camera, name, count, model]
            if not values:
                row.append("")
                continue
            ccc, seconds = (np.mean(kept[camera, name, count, model]) for kept in (cells.ccc, cells.seconds))
            row.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f}); {ccc:.3f}; {seconds:.0f}")
        table.add_row(*row)
        others = [np.mean(cells.r2[camera, name, count, model]) for model in models if model not in KINDS]
        if others and cells.r2[camera, name, count, "bilinear"]:
            behind.append(max(others) - np.mean(cells.r2[camera, name, count, "bilinear"]))
    console = Console(width=200)
    console.print(table)
    if behind:
        console.print(f"The default model is at most {max(behind):.3f} behind the best baseline.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[200, 1000, 6000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--cameras", nargs="+", default=list(CAMERAS), choices=list(CAMERAS))
    parser.add_argument("--models", nargs="+", default=["ridge", "MLP", "products", "bilinear"])
    asked = parser.parse_args()
    models = [name for model in asked.models for name in ([model, "PCA + ridge"] if model == "ridge" else [model])]
    cells = Cells()
    groups: dict[tuple[int, float], dict[str, World]] = {}
    for name in asked.worlds:
        world = WORLDS[name]
        groups.setdefault((world.clips_each, world.person_share), {})[name] = world
    for seed, camera, worlds in product(asked.seeds, asked.cameras, groups.values()):
        measure(cells, camera, worlds, asked.clips, seed, asked.models)
    show(cells, models)


if __name__ == "__main__":
    main()

"""A drawn store with a model, an evaluation, a refused video, and names that would run if they were not escaped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from drawn_store import draw_store

from flows.archive.families import Families, families_of
from flows.archive.models import ModelReference
from flows.archive.videos import Archive, known_videos, scan_videos
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.evaluation.evaluate import evaluate_clips
from flows.pipeline.score import score
from flows.pipeline.train import train
from storage import FeatureStore, VideoFeatures
from storage.tables.failures import Failure, FailureLog

# "/" cannot be in a file's name: what closes the element is a folder's name and a file's.
SCRIPT = "<script>alert(1)</script>.mp4"
BREAKOUT = "\"'><img src=x onerror=alert(1)> {{ 7 * 7 }}.mp4"
REFUSED = "</title></svg><script>alert(2)</script>.mp4"


@dataclass(frozen=True)
class ReportStore:
    """Settings, features, videos and the model of a store that a report can be made of."""

    config: RunConfig
    families: Families
    videos: Archive
    model: ModelReference


def make_report_store(folder: Path) -> None:
    """Draw 50 clips of 25 people, train on them, evaluate, and score them together with the two strange names."""
    _, groups = draw_store(folder, people=25, clips_each=2)
    config = _config(folder)
    families = families_of(config)
    _add_strange(folder / "strange", config, families)
    videos = known_videos(config.store.path, families)
    score.fn(config, videos, train.fn(config, videos))
    evaluate_clips(_config(folder, kind="bilinear"), groups, labels_only=False)


def open_report_store(folder: Path) -> ReportStore:
    """The store that `make_report_store` has made in this folder, or in one of which this is a copy."""
    config = _config(folder)
    families = families_of(config)
    return ReportStore(config, families, known_videos(config.store.path, families), ModelReference("traits", "1"))


def _config(folder: Path, kind: str = "specified") -> RunConfig:
    flags = {"labels": folder / "labels.csv", "store.path": folder / "store"}
    settings = ("weights=random", f"train.kind={kind}", "train.epochs=2", "uncertainty.calibration_fraction=0.4")
    quick = (
        "evaluate.seeds=1",
        "evaluate.folds=2",
        "evaluate.only=[mean, ridge_static, bilinear]",
    )
    return load_config(flags=flags, assignments=(*settings, *quick))


def _add_strange(folder: Path, config: RunConfig, families: Families) -> None:
    for name in (SCRIPT, BREAKOUT, REFUSED):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    files = {video.video_id: video for video in scan_videos(folder, folder / "digests.parquet")}
    rng = np.random.default_rng(0)
    for kind, tokens in (("static", 4), ("dynamic", 3)):
        family = getattr(families, kind)
        start = np.arange(tokens, dtype=np.float64)
        quality = {column: np.ones(tokens, np.float32) for column in family.quality}
        vectors = {name: rng.normal(size=(tokens, family.dim)) for name in (SCRIPT, BREAKOUT)}
        FeatureStore(config.store.path).write(
            family,
            [
                VideoFeatures(name, files[name].sha256, rows.astype(np.float32), start, start + 1, quality)
                for name, rows in vectors.items()
            ],
        )
    refused = Failure(
        *(REFUSED, files[REFUSED].sha256, families.features, "decode"),
        *("not_a_video", f"{REFUSED} holds no video", 1),
    )
    FailureLog(config.store.path).add([refused])

"""A small store of drawn features with labels that follow from them by a known rule."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np

from flows.archive.families import families_of
from flows.config.load import load_config
from fusion.traits import TRAITS
from storage import FeatureStore, VideoFeatures


def draw_store(folder: Path, *, people: int, clips_each: int, seed: int = 0) -> tuple[Path, Path]:
    """Write STORE with features of random weights, labels.csv and groups.csv into a folder.

    Openness and extraversion rise with a direction of the mean face token, agreeableness with one of the mean motion
    token, the others are noise. The label file puts every third clip into the validation part, so that most people
    are on both sides; in the group "loud" labels are noisier.

    Returns:
        Paths of the labels and of the groups; the store is `folder / "store"`.
    """
    config = load_config(flags={"weights": "random", "store.path": folder / "store"})
    families, store = families_of(config), FeatureStore(folder / "store")
    rng = np.random.default_rng(seed)
    directions = {kind: rng.normal(size=dim) / np.sqrt(dim) for kind, dim in (("static", 2048), ("dynamic", 1024))}
    shards: dict[str, list[VideoFeatures]] = {"static": [], "dynamic": []}
    rows = []
    for clip in range(people * clips_each):
        person, name = clip // clips_each, f"p{clip // clips_each:03d}/{clip:04d}.mp4"
        loud = person % 2 == 1
        signal = {}
        for kind, tokens in (("static", 4 if clip % 10 else 2), ("dynamic", 2)):
            signal[kind] = rng.normal()
            direction = directions[kind]
            vectors = rng.normal(size=(tokens, len(direction))) + 20 * signal[kind] * direction
            start = np.arange(tokens, dtype=np.float64)
            family = getattr(families, kind)
            quality = {column: np.ones(tokens, np.float32) for column in family.quality}
            quality["face_coverage"] = np.full(tokens, 0.4 if clip % 7 == 0 else 0.95, np.float32)
            digest = hashlib.sha256(name.encode()).hexdigest()
            shards[kind].append(VideoFeatures(name, digest, vectors.astype(np.float32), start, start + 1, quality))
        look, motion = signal["static"], signal["dynamic"]
        values = 0.5 + 0.1 * np.array([look, rng.normal(), look, motion, rng.normal()])
        values += rng.normal(0, 0.05 if loud else 0.01, 5)
        part = "validation" if clip % 3 == 0 else "training"
        rows.append([name, f"p{person}", part, *np.clip(values, 0, 1).round(4)])
    for kind, videos in shards.items():
        store.write(getattr(families, kind), videos)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["video_id", "subject", "split", *TRAITS], *rows])
    with (folder / "groups.csv").open("w", newline="") as file:
        groups = [[f"p{person}", "loud" if person % 2 else "calm"] for person in range(people)]
        csv.writer(file).writerows([["subject", "voice"], *groups])
    return folder / "labels.csv", folder / "groups.csv"

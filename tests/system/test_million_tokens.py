"""`traitline evaluate-features` on a million tokens: the memory that it takes, and truth that was drawn into them."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flows.archive.families import families_of
from flows.config.load import load_config
from fusion.traits import TRAITS
from storage import FeatureStore, VideoFeatures

TOKENS_EACH, CLIPS_EACH = 16, 10
MOST_GROWTH_MB = 300  # the tokens themselves are 8,450 MB


def draw(folder: Path, clips: int) -> Path:
    """Write a store of clips with 16 face tokens and one of motion each, and labels.csv, whose path is returned.

    A token is half its person and half noise, so that two of one person have a cosine of 1/2, of two people 0.
    """
    config = load_config(flags={"weights": "random", "store.path": folder / "store"})
    families, store = families_of(config), FeatureStore(folder / "store")
    rng = np.random.default_rng(0)
    noise = {dim: rng.normal(size=(4 * TOKENS_EACH * 101, dim)).astype(np.float32) for dim in (2048, 1024)}
    rows = []
    for first in range(0, clips, 256):
        shard: dict[str, list[VideoFeatures]] = {"static": [], "dynamic": []}
        for clip in range(first, min(first + 256, clips)):
            person, name = clip // CLIPS_EACH, f"{clip:06d}.mp4"
            digest = hashlib.sha256(name.encode()).hexdigest()
            for kind, tokens in (("static", TOKENS_EACH), ("dynamic", 1)):
                family = getattr(families, kind)
                face = np.random.default_rng(person).normal(size=family.dim).astype(np.float32)
                at = int(rng.integers(len(noise[family.dim]) - tokens))
                vectors = face + noise[family.dim][at : at + tokens] * np.float32(rng.choice([-1, 1]))
                start = np.arange(tokens, dtype=np.float64)
                quality = {column: np.ones(tokens, np.float32) for column in family.quality}
                shard[kind].append(VideoFeatures(name, digest, vectors, start, start + 1, quality))
            rows.append([name, f"p{person}", *[0.5] * len(TRAITS)])
        for kind, videos in shard.items():
            store.write(getattr(families, kind), videos)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["video_id", "subject", *TRAITS], *rows])
    return folder / "labels.csv"


def evaluate(labels: Path) -> tuple[float, dict]:
    """Run the command; its peak of resident memory in MB, and what it found of faces."""
    store = labels.parent / "store"
    command = [str(Path(sys.executable).with_name("traitline")), "evaluate-features", "--weights", "random"]
    command += ["--labels", str(labels), "--store", str(store)]
    peak_mb = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            peak_mb = max(peak_mb, int(found[1]) * 1024 / 1e6 if found else 0.0)
            time.sleep(0.05)
        shown = process.stderr.read()
    assert process.returncode == 0, shown
    (folder,) = (store / "reports").iterdir()
    return peak_mb, json.loads((folder / "features.json").read_text())["families"]["static"]


@pytest.mark.slow
def test_a_million_tokens_take_hardly_more_memory_than_a_fiftieth_of_them(tmp_path):
    peaks = {}
    for clips in (1_250, 62_500):
        folder = tmp_path / str(clips)
        folder.mkdir()
        started = time.perf_counter()
        labels = draw(folder, clips)
        drawn = time.perf_counter()
        peaks[clips], found = evaluate(labels)
        print(f"{clips * TOKENS_EACH:,} tokens: peak {peaks[clips]:.0f} MB; drawn in {drawn - started:.0f} s, ", end="")
        print(f"evaluated in {time.perf_counter() - drawn:.0f} s")
        assert found["dimensions"]["tokens"] == clips * TOKENS_EACH
        assert found["identity"]["consistency"] == pytest.approx(0.5, abs=0.01)
        assert found["identity"]["discriminability"] == pytest.approx(1.0, abs=0.01)
        assert found["identity"]["auc"] > 0.999
    assert peaks[62_500] - peaks[1_250] < MOST_GROWTH_MB

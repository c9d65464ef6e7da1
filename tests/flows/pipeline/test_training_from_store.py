"""Training reads features from the store, a part at a time, and goes on where it was broken off."""

from __future__ import annotations

import csv
import tracemalloc

import numpy as np
import pytest

from flows.archive.clips import StoredClips
from flows.archive.families import Families, families_of
from flows.archive.videos import VideoFile
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.pipeline.train import train as train_flow
from flows.session.errors import UserError
from fusion.settings import TrainSettings
from fusion.training.checkpoint import CHECKPOINT
from fusion.training.train import train
from fusion.traits import TRAITS
from storage import FeatureStore, StoreError, VideoFeatures
from storage.maintenance.garbage import unused_families
from storage.maintenance.rewriting import plan_merges, rewrite
from storage.tables.manifest import Manifest

CLIPS, SHARD = 256, 16


@pytest.fixture
def stored(tmp_path) -> tuple[RunConfig, Families, list[str]]:
    """A store of drawn features and a label file; the first static number of a clip is its own."""
    rng = np.random.default_rng(0)
    names = [f"{number:03d}.mp4" for number in range(CLIPS)]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video_id", "subject", *TRAITS])
        rows.writerows([name, name, *rng.uniform(0.3, 0.7, 5).round(4)] for name in names)
    flags = {"weights": "random", "store.path": tmp_path / "store", "labels": tmp_path / "labels.csv"}
    config = load_config(flags=flags, assignments=["train.kind=specified", "train.epochs=2", "train.keep_useless=true"])
    families = families_of(config)
    store = FeatureStore(config.store.path)
    for family, tokens in ((families.static, 16), (families.dynamic, 6)):
        times = np.arange(tokens, dtype=np.float64)
        for first in range(0, CLIPS, SHARD):
            videos = []
            for number in range(first, first + SHARD):
                vectors = rng.random((tokens, family.dim)).astype(np.float32)
                vectors[0, 0] = number
                quality = {name: np.ones(tokens, np.float32) for name in family.quality}
                videos.append(VideoFeatures(names[number], f"{number:064x}", vectors, times, times + 1, quality))
            store.write(family, videos)
    return config, families, names


def test_a_group_holds_neighbours_of_a_shard_and_is_read_in_the_order_asked_for(stored):
    config, families, names = stored
    clips = StoredClips(config.store.path, families, names[::-1])
    groups = clips.groups()
    assert [len(group) for group in groups] == [SHARD] * (CLIPS // SHARD)
    assert sorted(np.concatenate(groups).tolist()) == list(range(CLIPS))
    rows = groups[1][[5, 0, 9]]
    read = clips.read(rows)
    assert [clip.video_id for clip in read] == [names[::-1][row] for row in rows]
    assert [clip.static[0, 0] for clip in read] == [clip.dynamic[0, 0] for clip in read]
    assert [f"{int(clip.static[0, 0]):03d}.mp4" for clip in read] == [clip.video_id for clip in read]


def test_the_manifest_is_read_once_however_many_groups_are_read(stored, monkeypatch):
    config, families, names = stored
    listed = []
    places = Manifest.places
    monkeypatch.setattr(Manifest, "places", lambda self, key, *of: listed.append(key) or places(self, key, *of))
    clips = StoredClips(config.store.path, families, names)
    for group in clips.groups():
        clips.read(group)
    assert len(listed) == len(set(listed)) == 2  # static and dynamic
    # what was merged meanwhile is found all the same
    store = FeatureStore(config.store.path)
    for family in (families.static, families.dynamic):
        (sources, *_) = plan_merges(store, family)
        assert rewrite(store, family, sources)
    assert [clip.video_id for clip in clips.read(np.array([7, 200]))] == [names[7], names[200]]


def test_features_that_went_away_meanwhile_are_named(stored):
    config, families, names = stored
    clips = StoredClips(config.store.path, families, ["gone.mp4", *names])
    with pytest.raises(StoreError, match=r"features of gone\.mp4 were removed"):
        clips.read(np.array([0, 1]))


def peak_mb(config: RunConfig, families: Families, names: list[str], settings: TrainSettings) -> float:
    """Most memory that arrays took during a training."""
    labels = np.random.default_rng(0).random((CLIPS, 5)).astype(np.float32)
    tracemalloc.start()
    train(StoredClips(config.store.path, families, names), labels, names, settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


@pytest.mark.slow  # counting every allocation takes half a minute
def test_more_clips_than_memory_allows_are_never_all_in_memory(stored):
    config, families, names = stored
    settings = TrainSettings(kind="specified", epochs=1, batch_size=8)
    train(
        StoredClips(config.store.path, families, names[:8]), np.full((8, 5), 0.5), names[:8], settings
    )  # what is loaded once
    all_mb = CLIPS * (16 * families.static.dim + 6 * families.dynamic.dim) * 4 / 2**20
    kept_mb = peak_mb(config, families, names, settings)
    streamed_mb = peak_mb(config, families, names, settings.model_copy(update={"memory_mb": 1}))
    print(f"{all_mb:.1f} MiB of features: peak {kept_mb:.1f} MiB kept, {streamed_mb:.1f} MiB streamed")
    assert kept_mb > all_mb
    assert streamed_mb < all_mb / 2.5


def test_no_features_are_garbage_while_a_training_reads_them(stored, monkeypatch):
    config, families, names = stored
    root = config.store.path
    found = [unused_families(root, idle_s=0)]

    def ready(*_: object) -> list[str]:
        found.append(unused_families(root, idle_s=0))
        return []

    monkeypatch.setattr("flows.pipeline.train.ready_videos", ready)
    with pytest.raises(UserError):
        train_flow.fn(config, [VideoFile(name, root / name, "0" * 64) for name in names])
    found.append(unused_families(root, idle_s=0))
    both = {families.static, families.dynamic}
    assert list(map(set, found)) == [both, set(), both]


def test_a_training_that_could_not_be_kept_goes_on_from_its_checkpoint(stored):
    config, _, names = stored
    videos = [VideoFile(name, config.store.path / name, f"{number:064x}") for number, name in enumerate(names[:48])]
    (config.store.path / "models").write_text("in the way")
    with pytest.raises((StoreError, OSError)):
        train_flow.fn(config, videos)
    (checkpoint,) = config.store.path.glob(f"runs/training-*/{CHECKPOINT}")
    (config.store.path / "models").unlink()
    assert str(train_flow.fn(config, videos)) == "traits/1"
    assert not checkpoint.exists()
    assert list(checkpoint.parent.glob("train/events.out.*"))
    assert str(train_flow.fn(config, videos)) == "traits/1"  # nothing left to train

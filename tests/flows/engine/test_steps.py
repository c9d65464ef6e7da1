"""Steps on two Dask workers give what they give in one process, also if one is killed, and runs share their work."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from drawn_store import draw_store

from flows.archive.drift import drifts_of
from flows.archive.families import families_of
from flows.archive.models import ModelReference
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.config.settings import DaskSettings, RunConfig
from flows.evaluation.evaluate import evaluate_clips
from flows.pipeline import score as score_flow
from flows.pipeline.train import train
from flows.scoring import worker, worklist
from storage import FeatureStore, ModelSerializer
from storage.tables.scores import ScoreStore

CLIPS = 60
EVALUATED = "mean, subject_lookup_shrunk, ridge_static, bilinear"


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> RunConfig:
    """A store of drawn features with a model that has scored nothing."""
    folder = tmp_path_factory.mktemp("archive")
    labels, _ = draw_store(folder, people=CLIPS // 2, clips_each=2)
    settings = [f"evaluate.only=[{EVALUATED}]", "evaluate.seeds=1", "evaluate.folds=2", "search.folds=2"]
    settings += ["train.folds=2", "train.components=6", "train.keep_useless=true"]
    config = load_config(
        flags={"weights": "random", "store.path": folder / "store", "labels": labels}, assignments=settings
    )
    train.fn(config, known_videos(config.store.path, families_of(config)))
    return config


@pytest.fixture
def config(archive, tmp_path) -> RunConfig:
    return in_store(archive, Path(shutil.copytree(archive.store.path, tmp_path / "store")))


def in_store(config: RunConfig, store: Path) -> RunConfig:
    return config.model_copy(update={"store": config.store.model_copy(update={"path": store})})


def on_dask(config: RunConfig, client) -> RunConfig:
    settings = DaskSettings(address=client.scheduler.address)
    return config.model_copy(update={"runner": "dask", "dask": settings})


def scored(config: RunConfig) -> dict[str, tuple[float, ...]]:
    return {row.video_id: row.traits for row in ScoreStore(config.store.path).read("traits", "1")}


def rows(config: RunConfig) -> int:
    return sum(map(len, ScoreStore(config.store.path).table("traits", "1").scan(columns=["video_id"])))


def assert_no_worker_has_loaded_prefect(cluster) -> None:
    """It takes more than a second and 40 MB in each process."""
    assert not any(cluster.run(lambda: "prefect" in sys.modules).values())


def test_rescore_with_one_of_two_workers_killed_scores_everything_once(archive, config, cluster, tmp_path, monkeypatch):
    model = ModelReference("traits", "1")
    here = in_store(archive, Path(shutil.copytree(archive.store.path, tmp_path / "here")))
    assert score_flow.rescore.fn(here, model).scored_now == CLIPS
    monkeypatch.setattr(worklist, "CLIPS_PER_COMMIT", 3)
    victims = list(cluster.run(os.getpid).values())
    killed: list[int] = []

    def kill() -> None:
        while rows(config) < 6:
            time.sleep(0.02)
        os.kill(victims[0], signal.SIGKILL)
        killed.append(rows(config))

    thread = threading.Thread(target=kill)
    thread.start()
    report = score_flow.rescore.fn(on_dask(config, cluster), model)
    thread.join()
    print(f"killed one of two workers when {killed} of {CLIPS} were scored")
    truth, found = scored(here), scored(config)
    assert found.keys() == truth.keys()
    names = sorted(truth)
    np.testing.assert_allclose([found[name] for name in names], [truth[name] for name in names], atol=1e-5)
    assert report.scored_now == CLIPS
    # What the killed worker had committed is done again if Dask had not fetched its result yet.
    assert rows(config) <= CLIPS + killed[0] + 3
    assert drifts_of(config.store.path, model) == []
    assert_no_worker_has_loaded_prefect(cluster)


def test_two_rescores_on_one_store_share_the_work(config, monkeypatch):
    model = ModelReference("traits", "1")
    monkeypatch.setattr(worklist, "CLIPS_PER_COMMIT", 3)
    real, both, begun = worker.joined_clips, threading.Barrier(2), threading.local()

    def once_both_have_some(*given):
        if not hasattr(begun, "at"):
            begun.at = both.wait(120)
        return real(*given)

    monkeypatch.setattr(worker, "joined_clips", once_both_have_some)
    counts: list[int] = []
    runs = [
        threading.Thread(target=lambda: counts.append(score_flow.rescore.fn(config, model).scored_now))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert rows(config) == len(scored(config)) == sum(counts) == CLIPS
    assert min(counts) > 0


@contextmanager
def one_killed(cluster, function: str) -> Iterator[None]:
    """Have one of the two workers killed, the first to call a function for the second time within the block.

    Args:
        function: "module:name", called as an attribute of that module.
    """
    with tempfile.TemporaryDirectory() as folder:
        killed = f"{folder}/killed"

        def arm() -> None:
            import os
            import pkgutil
            import signal
            from contextlib import suppress

            module = pkgutil.resolve_name(function.partition(":")[0])
            real, calls = pkgutil.resolve_name(function), []

            def call(*args, **kwargs):
                calls.append(1)
                if len(calls) > 1:
                    with suppress(OSError):  # there already, or the block has ended
                        os.close(os.open(killed, os.O_CREAT | os.O_EXCL))
                        os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            setattr(module, function.partition(":")[2], call)

        before = cluster.run(os.getpid).values()
        cluster.run(arm)
        yield
        cluster.wait_for_workers(2, timeout=120)
        assert len({*before} & {*cluster.run(os.getpid).values()}) == 1


@pytest.mark.slow
def test_an_evaluation_that_loses_a_worker_has_the_same_results(archive, config, cluster):
    def figures(found: RunConfig) -> str:
        protocols = json.dumps(evaluate_clips(found, None, labels_only=False).results["protocols"], sort_keys=True)
        return json.dumps(json.loads(protocols, object_hook=lambda found: {**found, "seconds": 0}), sort_keys=True)

    there = on_dask(config, cluster)  # a copy of the store, because predictions are kept in it
    with one_killed(cluster, "flows.evaluation.kept:timed_prediction"):
        measured = figures(there)
    assert measured == figures(archive)
    assert_no_worker_has_loaded_prefect(cluster)


@pytest.mark.slow
def test_a_search_has_the_same_results_and_counts_its_trainings(archive, config, cluster, capsys):
    searches, counts = [], []
    for chosen in (archive, on_dask(config, cluster)):  # a copy of the store, because trainings are kept in it
        chosen = chosen.model_copy(update={"search": chosen.search.model_copy(update={"trials": 2})})
        model = train.fn(chosen, known_videos(chosen.store.path, families_of(chosen)))
        searches.append(ModelSerializer(chosen.store.path).metadata(model.name, model.version)["search"])
        counts.append(re.findall(r"Search 3 of 3.*: (\d+) of", capsys.readouterr().err)[-1])
    assert searches[0] == searches[1]
    assert int(counts[0]) == int(counts[1]) > 0
    assert_no_worker_has_loaded_prefect(cluster)


def test_verify_that_loses_a_worker_finds_the_same_and_compact_merges_on_workers(config, cluster, traitline):
    store = FeatureStore(config.store.path)
    family = next(family for family in store.families() if family.name == "dynamic")
    videos = list(store.read(family))
    for first in range(0, 12, 4):  # superseding a part of the only shard
        store.write(family, videos[first : first + 4])
    dask = ["--set", "runner=dask", "--set", f"dask.address={cluster.scheduler.address}"]
    folder = ["--store", config.store.path]
    done = traitline("store", "compact", *folder, *dask)
    assert done.returncode == 0, done.stderr
    assert len(store.shards(family)) == 1
    checksums = {video.video_id: video.checksum() for video in videos}
    assert {video.video_id: video.checksum() for video in store.read(family)} == checksums
    assert traitline("store", "verify", *folder, *dask).returncode == 0
    (shard,) = store.shards(family)
    shard.write_bytes(shard.read_bytes()[:-100])
    here = traitline("store", "verify", *folder)
    with one_killed(cluster, "storage.maintenance.verification:find_problem"):
        there = traitline("store", "verify", *folder, *dask)
    assert here.returncode == there.returncode == 1
    assert shard.name in here.stderr
    assert here.stderr == there.stderr
    assert_no_worker_has_loaded_prefect(cluster)

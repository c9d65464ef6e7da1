"""Features are the same bits however the work is cut up: real networks with random weights, on drawn clips."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from flows.archive.families import families_of
from flows.archive.videos import scan_videos
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.engine.choice import open_engine
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import Job
from flows.extraction.worker import open_stretches
from storage import FeatureStore

CLIPS = ("nod.mp4", "mixed.mp4", "shake.mp4")


def rows(config: RunConfig) -> dict[tuple[str, str], tuple[bytes, ...]]:
    """All that a store holds of each video: numbers, times and quality, as bytes."""
    store, families = FeatureStore(config.store.path), families_of(config)
    return {
        (family.name, row.video_id): (
            row.vectors.tobytes(),
            row.start_s.tobytes(),
            row.end_s.tobytes(),
            *(row.quality[name].tobytes() for name in family.quality),
        )
        for family in (families.faces, families.static, families.dynamic)
        for row in store.read(family)
    }


@pytest.mark.slow
def test_features_do_not_depend_on_workers_threads_batches_or_shards(rendered, tmp_path):
    """One process with all cores and whole shards, against two workers with half of them each and other batches."""
    flags = {"videos": rendered.videos, "weights": "random", "store.path": tmp_path / "one"}
    one = load_config(flags=flags)
    videos = scan_videos(rendered.videos, tmp_path / "digests.parquet", lambda *_: None)
    jobs = [Job(video, static=True, dynamic=True) for video in videos if Path(video.path).name in CLIPS]
    with Extractor(one, families_of(one)) as extractor:
        list(extractor.extract(jobs))
    other = {"static.batch_size": 5, "dynamic.batch_size": 2, "extract.processes": 3, "store.path": tmp_path / "two"}
    other |= {"runner": "dask", "dask.workers": 2}
    two = load_config(flags=flags | other)
    assert families_of(two) == families_of(one)  # one key, so it must be the same numbers
    stretches = [tuple(jobs[2:]), tuple(jobs[:2])]
    with open_engine(two) as engine:
        engine.run(partial(open_stretches, two, families_of(two), 3), stretches, lambda *_: None)
    expected, found = rows(one), rows(two)
    assert len(expected) == 3 * len(CLIPS)
    assert found == expected

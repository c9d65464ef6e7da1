"""The start of an extraction: videos are prepared while networks are built, and what cannot work is refused."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drawn_networks import patch_network

from extractors.assets.files import AssetError
from extractors.networks.network_file import FileBackbone
from extractors.video.digests import sha256_of
from flows.archive.families import families_of
from flows.archive.videos import VideoFile
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import Job
from flows.session.errors import UserError
from storage import FeatureStore


@pytest.fixture
def config(small_networks, tmp_path) -> RunConfig:
    """Settings with networks of the test's own."""
    loaded = load_config(flags={"weights": "random", "store.path": tmp_path / "store"}, assignments=small_networks)
    copied = shutil.copy(loaded.static.base_model, tmp_path / "faces.onnx")
    return loaded.model_copy(update={"static": loaded.static.model_copy(update={"base_model": str(copied)})})


@pytest.fixture
def job(short_clips) -> Job:
    clip = short_clips.videos / "nod.mp4"
    return Job(VideoFile("nod.mp4", clip, sha256_of(clip)), static=True, dynamic=True)


def test_a_video_is_being_prepared_when_the_first_network_is_built(config, job, monkeypatch):
    build, pictures_before = FileBackbone.build, []

    def wait_for_pictures(network: FileBackbone):
        (child,) = extractor._pool._children
        deadline = time.monotonic() + 60
        while not (count := int.from_bytes(child._memory[:8], sys.byteorder)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pictures_before.append(count)
        return build(network)

    monkeypatch.setattr(FileBackbone, "build", wait_for_pictures)
    with Extractor(config, families_of(config)) as extractor:
        assert not pictures_before
        (committed,) = extractor.extract([job])
        again = extractor.features(job.video)
    assert len(pictures_before) == 2  # both networks, each built once
    assert (committed.extracted, committed.failed) == (1, 0)
    (kept,) = FeatureStore(config.store.path).read(families_of(config).dynamic)
    np.testing.assert_array_equal(kept.vectors, again["dynamic"].vectors)


def test_another_network_than_that_of_the_run_is_refused_before_any_process_starts(config, tmp_path):
    families = families_of(config)
    patch_network(tmp_path / "other.onnx", seed=5)
    static = config.static.model_copy(update={"base_model": str(tmp_path / "other.onnx")})
    extractor = Extractor(config.model_copy(update={"static": static}), families)
    with pytest.raises(UserError, match=r"other\.onnx is another network here than where the run began"):
        extractor.__enter__()
    assert not hasattr(extractor, "_pool")


def test_a_network_that_cannot_be_built_ends_the_shard_with_its_message_and_the_child_is_free_again(config, job):
    path = Path(config.static.base_model)
    known = path.read_bytes()
    with Extractor(config, families_of(config)) as extractor:
        path.write_bytes(b"damaged")
        with pytest.raises(AssetError, match=r"cannot use the network .*faces\.onnx: it is not an ONNX model"):
            list(extractor.extract([job]))
        assert FeatureStore(config.store.path).families() == []
        path.write_bytes(known)
        assert [committed.extracted for committed in extractor.extract([job])] == [1]

"""Features of single videos in Python are those of a store, and a bad file is a value."""

from __future__ import annotations

import numpy as np
from clips import cut_clip

from extractors import VideoError
from flows import extract_features
from flows.config.load import load_config
from storage import FeatureStore


def test_the_features_of_a_video_are_those_that_extract_keeps(short_clips, small_networks, traitline, tmp_path):
    (tmp_path / "clips").mkdir()
    clip = tmp_path / "clips" / "nod.mp4"
    cut_clip(short_clips.videos / "nod.mp4", clip, 30)
    text, missing = tmp_path / "text.mp4", tmp_path / "missing.mp4"
    text.write_text("no video")
    config = load_config(flags={"weights": "random"}, assignments=small_networks)
    found = dict(extract_features([clip, text, missing], config))
    assert list(found) == [str(clip), str(text), str(missing)]
    for path in (text, missing):
        assert isinstance(found[str(path)], VideoError)
        assert found[str(path)].stage == "decode"
    settings = ["--weights", "random", *(part for setting in small_networks for part in ("--set", setting))]
    done = traitline("extract", "--videos", tmp_path / "clips", "--store", tmp_path / "store", *settings)
    assert done.returncode == 0, done.stderr
    store = FeatureStore(tmp_path / "store")
    families = {family.name: family for family in store.families()}
    for kind, features in found[str(clip)].items():
        (kept,) = store.read(families[kind])
        np.testing.assert_array_equal(features.vectors, kept.vectors)
        np.testing.assert_array_equal(features.start_s, kept.start_s)
        assert features.video_sha256 == kept.video_sha256
        assert set(features.quality) == set(kept.quality)

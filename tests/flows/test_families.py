"""Which settings make features of another key."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from extractors.assets import AssetError
from flows.config import load_config
from flows.families import families_of, settle_weights
from storage import FeatureStore, VideoFeatures


def families(dtype: str):
    return families_of(load_config(flags={"weights": "random", "store.dtype": dtype}))


def test_features_that_are_rounded_have_keys_of_their_own_and_never_mix_with_others(tmp_path):
    plain, rounded = families("float32"), families("float16")
    assert rounded.faces == plain.faces  # whose boxes are never rounded
    assert rounded.static != plain.static
    assert rounded.dynamic != plain.dynamic
    assert rounded.static.settings["kept_as"] == "float16"
    assert "kept_as" not in plain.static.settings  # so that older stores stay valid
    sha256 = hashlib.sha256(b"a").hexdigest()
    quality = {name: np.ones(1, np.float32) for name in plain.static.quality}
    video = VideoFeatures("a", sha256, np.full((1, 2048), 0.1, np.float32), np.zeros(1), np.ones(1), quality)
    FeatureStore(tmp_path).write(plain.static, [video])
    assert FeatureStore(tmp_path).done(rounded.static) == {}


def test_only_what_is_needed_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing is to be had
    config = load_config(flags={"weights": "pretrained", "assets": tmp_path})
    assert settle_weights(config, ()) == config
    for needs, lacking in ((("faces",), "face_detector"), (("static",), "resnet50"), (("dynamic",), "i3d")):
        with pytest.raises(AssetError, match=lacking):
            settle_weights(config, needs)
    auto = load_config(flags={"weights": "auto", "assets": tmp_path})
    assert settle_weights(auto, ()).weights == "random"
    assert settle_weights(auto, ("static", "dynamic")).weights == "random"

"""Which settings make features of another key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from extractors.assets import catalog
from extractors.assets.files import AssetError
from extractors.faces.quality import QUALITY
from flows.archive import families as module
from flows.archive.clips import read_clips
from flows.archive.families import families_of, lacking_features, settle_weights, stored_families
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.session.errors import UserError
from storage import Family, FeatureStore, VideoFeatures
from storage.shards.family import key_before_manifest
from storage.tables.scores import QUALITY_FACTS


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


def test_another_revision_of_decoding_makes_features_of_another_key(monkeypatch):
    before = families("float32")
    monkeypatch.setattr("extractors.video.settings.REVISION", 10**6)
    after = families("float32")
    for part in ("faces", "static", "dynamic"):
        assert getattr(before, part).key != getattr(after, part).key


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


def test_keys_of_the_usual_networks_are_those_of_before_there_were_others():
    """So that a store can be upgraded. Found with the program as it was then; a new revision of a part changes them."""
    expected = {
        "pretrained": ("b13c5836fda3dad1", "03d932916fce0128", "717427fa4ce58c37"),
        "random": ("b13c5836fda3dad1", "4a15f958146ad1f1", "69bc497e499de130"),
    }
    for weights, keys in expected.items():
        found = families_of(load_config(flags={"weights": weights, "optical_flow.engine": "cpu"}))
        assert tuple(map(key_before_manifest, (found.faces, found.static, found.dynamic))) == keys


@pytest.mark.parametrize(
    "setting", ["min_confirmed_share=0.5", "max_others_share=0.1", "max_gaps=3", "max_absence_s=5", "min_coverage=0.4"]
)
def test_thresholds_of_what_is_accepted_have_keys_of_their_own(setting):
    plain = families("float32")
    other = families_of(load_config(flags={"weights": "random"}, assignments=[f"faces.{setting}"]))
    for part in ("faces", "static", "dynamic"):
        assert getattr(plain, part).key != getattr(other, part).key


def test_faces_that_are_detected_less_often_have_keys_of_their_own():
    plain, often, seldom = (
        families_of(load_config(flags={"weights": "random"}, assignments=[f"faces.detect_every={every}"]))
        for every in (1, 2, 3)
    )
    assert plain == families("float32")
    assert "detect_every" not in plain.faces.settings["faces"]  # so that older stores stay valid
    for part in ("faces", "static", "dynamic"):
        assert len({getattr(found, part).key for found in (plain, often, seldom)}) == 3


@pytest.mark.parametrize("model", ["short", "full"])
def test_other_networks_for_faces_have_keys_of_their_own(model):
    plain, other = (
        families_of(load_config(flags={"weights": "random"}, assignments=[f"faces.model={name}"]))
        for name in ("auto", model)
    )
    for part in ("faces", "static", "dynamic"):
        assert getattr(plain, part).key != getattr(other, part).key


def test_the_networks_that_find_and_check_faces_are_in_the_keys_settings():
    known = catalog.known_assets()
    names = ("face_detector", "face_detector_full_range", "yunet", "face_recognizer")
    expected = {name: known[name].digest for name in names}
    found = families("float32")
    assert found.faces.settings["networks"] == expected
    assert found.static.settings["faces"]["networks"] == found.dynamic.settings["faces"]["networks"] == expected


def write_clip(root: Path, family: Family, quality: dict[str, float]) -> None:
    vectors = np.ones((3, family.dim), np.float32)
    columns = {name: np.full(3, quality.get(name, 1), np.float32) for name in family.quality}
    times = np.arange(3.0)
    digest = hashlib.sha256(b"a").hexdigest()
    FeatureStore(root).write(family, [VideoFeatures("a.mp4", digest, vectors, times, times + 1, columns)])


def test_facts_of_quality_reach_the_scores_and_what_is_not_known_is_left_out(tmp_path):
    found = families("float32")
    facts = dict.fromkeys(QUALITY, 0.5) | {"people": 3.0}
    for family in (found.static, found.dynamic):
        write_clip(tmp_path, family, facts | {"decoded_share": np.nan})
    config = load_config(flags={"weights": "random", "store.path": tmp_path})
    (clip,) = read_clips(config.store.path, found, ["a.mp4"])
    assert clip.facts.quality == {name: value for name, value in facts.items() if name != "decoded_share"}


def test_scores_have_every_fact_of_quality_that_extraction_finds():
    assert tuple(QUALITY_FACTS) == QUALITY


def test_features_of_before_facts_were_kept_are_read_with_their_coverage_alone(tmp_path):
    """A model that was trained on such goes on scoring them; they never mix with those of today."""
    today = families("float32")
    quality = ("face_coverage", "face_score")
    static = Family("static", today.static.dim, today.static.settings, quality)
    dynamic = Family("dynamic", today.dynamic.dim, today.dynamic.settings, (*quality, "fields"))
    assert static.key != today.static.key
    for family in (static, dynamic):
        write_clip(tmp_path, family, {"face_coverage": 0.5})
    stored = stored_families(tmp_path, {"static_key": static.key, "dynamic_key": dynamic.key})
    assert stored.faces.quality == ("detected",)
    config = load_config(flags={"weights": "random", "store.path": tmp_path})
    (clip,) = read_clips(config.store.path, stored, ["a.mp4"])
    assert clip.facts.quality == {"face_coverage": 0.5}
    assert FeatureStore(tmp_path).done(today.static) == {}


def test_features_of_before_a_fact_was_added_are_found_with_those_that_they_have(tmp_path):
    today = families("float32")
    before = {
        part: Family(part, family.dim, family.settings, tuple(n for n in family.quality if n != "repeated_share"))
        for part, family in (("faces", today.faces), ("static", today.static), ("dynamic", today.dynamic))
    }
    for part in ("static", "dynamic"):
        write_clip(tmp_path, before[part], {"face_coverage": 0.5})
    keys = {f"{part}_key": before[part].key for part in ("static", "dynamic")}
    assert stored_families(tmp_path, keys).faces == before["faces"]


def test_what_a_store_lacks_is_said_with_the_settings_that_differ_and_the_cure(tmp_path):
    trial = families_of(load_config(flags={"weights": "random"}))
    for family in (trial.static, trial.dynamic):
        write_clip(tmp_path, family, {})
    said = lacking_features(tmp_path, families_of(load_config()))
    assert "made with weights random (not pretrained): add `--weights random`" in said
    wanted = load_config(flags={"weights": "random"}, assignments=["video.fps=30", "seed=3"])
    said = lacking_features(tmp_path, families_of(wanted))
    for words in ("video.fps 25 (not 30)", "static.seed 0 (not 3)", "`traitline extract`"):
        assert words in said
    assert "--weights" not in said


def test_what_a_store_lacks_is_said_with_the_networks_of_what_it_has(tmp_path):
    own = families("float32")
    assert "no features" in lacking_features(tmp_path, own)
    other = families_of(load_config(flags={"weights": "random"}, assignments=["static.base_model=efficientnetb0"]))
    for family in (other.static, own.dynamic):
        write_clip(tmp_path, family, {})
    needs, has = "features of resnet50 and i3d", "static features of efficientnetb0 and dynamic features of i3d"
    keys = {"static_key": own.static.key, "dynamic_key": own.dynamic.key, "weights": "random"}
    for refused in (lambda: known_videos(tmp_path, own), lambda: stored_families(tmp_path, keys)):
        with pytest.raises(UserError, match=rf"{needs}.* has {has}.* `traitline extract`"):
            refused()


def test_engines_of_optical_flow_are_told_apart_by_name(tmp_path):
    """A machine without a GPU knows the key of one."""
    cpu, gpu = (
        families_of(load_config(flags={"store.path": tmp_path, "weights": "random", "optical_flow.engine": engine}))
        for engine in ("cpu", "gpu")
    )
    assert module._differences(cpu.dynamic, gpu.dynamic) == {"optical_flow.engine": ("cpu", "gpu")}
    assert module._differences(cpu.static, gpu.static) == {}

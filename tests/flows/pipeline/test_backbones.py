"""Several backbones in one store: each has a family of its own, faces are found once, and models know theirs."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_networks import motion_network, patch_network, patch_vectors
from drawn_store import draw_store

from extractors.assets.files import AssetError
from extractors.faces.track import FaceTrack
from flows.archive.families import backbones_of, check_same_networks, families_of, networks_of, settle_weights
from flows.archive.model_card import card_of
from flows.archive.models import ModelReference
from flows.archive.reader import VideoReader
from flows.archive.videos import scan_videos
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.extraction.extractor import Extractor
from flows.extraction.jobs import Committed, Job
from flows.extraction.worklist import Lookup
from flows.pipeline.finetune import finetune
from flows.session.errors import UserError
from flows.visualize.clip import motion_network as i3d_of
from flows.visualize.clip import static_network
from storage import FeatureStore, ModelSerializer

CLIP = "nod.mp4"


def config_with(folder: Path, static: str, **more) -> RunConfig:
    flags = {
        "store.path": folder / "store",
        "weights": "random",
        "optical_flow.preset": "fast",
        "static.base_model": str(folder / static),
        "static.preprocessing": "0-1",
        "dynamic.base_model": str(folder / "motion.onnx"),
        "extract.processes": 1,
    }
    return load_config(flags=flags | more)


def shards(folder: Path, family: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "store" / "features" / family).rglob("shard-*")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    patch_network(folder / "eight.onnx")
    patch_network(folder / "five.onnx", side=224, channels="last", dim=5, seed=1)
    motion_network(folder / "motion.onnx")
    return folder


@pytest.fixture(scope="module")
def extracted(folder, short_clips) -> tuple[tuple[Job, Committed], ...]:
    """Extract one clip with one network for faces, then with another; the same network for motion."""
    (video,) = (
        video
        for video in scan_videos(short_clips.videos, folder / "digests.parquet", lambda *_: None)
        if Path(video.path).name == CLIP
    )
    done = []
    for name in ("eight.onnx", "five.onnx"):
        config = config_with(folder, name)
        families = families_of(config)
        (job,) = Lookup(config.store.path, families).jobs([video])
        before = shards(folder, "faces"), shards(folder, "dynamic")
        with Extractor(config, families) as extractor:
            (committed,) = extractor.extract([job])
        done.append((job, committed))
    assert (shards(folder, "faces"), shards(folder, "dynamic")) == before
    return tuple(done)


def test_a_second_backbone_uses_the_faces_and_the_motion_that_are_there(extracted, folder):
    (first, first_report), (second, second_report) = extracted
    assert (first.static, first.dynamic) == (True, True)
    assert (second.static, second.dynamic) == (True, False)
    assert "faces" in first_report.seconds
    assert "optical flow" in first_report.seconds
    assert not {"faces", "optical flow", "dynamic network"} & second_report.seconds.keys()
    assert "static network" in second_report.seconds
    kept = FeatureStore(folder / "store").families()
    assert sorted((family.name, family.dim) for family in kept) == [
        ("dynamic", 4),
        ("faces", families_of(config_with(folder, "five.onnx")).faces.dim),
        ("static", 5),
        ("static", 8),
    ]


def test_both_families_have_tokens_of_the_same_moments(extracted, folder):
    store = FeatureStore(folder / "store")
    eight, five = (
        next(iter(store.read(families_of(config_with(folder, name)).static))) for name in ("eight.onnx", "five.onnx")
    )
    np.testing.assert_array_equal(eight.start_s, five.start_s)
    assert eight.vectors.shape == (16, 8)
    assert five.vectors.shape == (16, 5)


def test_tokens_are_those_of_the_crops_worked_out_in_numpy(extracted, folder, short_clips):
    config = config_with(folder, "five.onnx")
    families, store = families_of(config), FeatureStore(folder / "store")
    track = FaceTrack.from_rows(next(iter(store.read(families.faces))).vectors)
    with VideoReader(config) as reader:
        crops = reader.crops(next(short_clips.videos.rglob(CLIP)), track)
    kernel, offset = patch_network(folder / "five.onnx", side=224, channels="last", dim=5, seed=1)
    found = next(iter(store.read(families.static))).vectors
    np.testing.assert_allclose(found, patch_vectors(crops / 255, kernel, offset), rtol=1e-4, atol=1e-4)


def joined_with(folder: Path) -> RunConfig:
    """Settings under which a static token has the numbers of eight.onnx, then those of five.onnx."""
    five = {"base_model": str(folder / "five.onnx"), "preprocessing": "0-1"}
    return config_with(folder, "eight.onnx", **{"static.also": [five]})


def test_tokens_of_joined_networks_are_those_of_each_side_by_side(extracted, folder):
    config = joined_with(folder)
    families, store = families_of(config), FeatureStore(folder / "store")
    before = shards(folder, "faces"), shards(folder, "dynamic")
    (job,) = Lookup(config.store.path, families).jobs([extracted[0][0].video])
    assert (job.static, job.dynamic) == (True, False)
    with Extractor(config, families) as extractor:
        list(extractor.extract([job]))
    assert (shards(folder, "faces"), shards(folder, "dynamic")) == before
    eight, five = (families_of(config_with(folder, name)).static for name in ("eight.onnx", "five.onnx"))
    both, first, second = (next(iter(store.read(family))) for family in (families.static, eight, five))
    np.testing.assert_array_equal(both.vectors, np.hstack([first.vectors, second.vectors]))
    np.testing.assert_array_equal(both.start_s, first.start_s)


def test_the_key_of_joined_networks_holds_each_and_their_order(folder):
    eight = {"base_model": str(folder / "eight.onnx"), "preprocessing": "0-1"}
    five = {"base_model": str(folder / "five.onnx"), "preprocessing": "0-1"}

    def key(*networks) -> str:
        flags = {"weights": "random", "static": {**networks[0], "also": list(networks[1:])}}
        return families_of(load_config(flags=flags)).static.key

    copied = folder / "copy.onnx"
    copied.write_bytes((folder / "five.onnx").read_bytes())
    five_elsewhere = five | {"base_model": str(copied), "batch_size": 3}
    others = [key(eight), key(five, eight), key(eight, five | {"preprocessing": "0-255"}), key(eight, five, {})]
    assert key(eight, five) not in others
    assert len(set(others)) == len(others)
    assert key(eight, five) == key(eight, five_elsewhere)


@pytest.mark.parametrize(
    ("also", "rule"),
    [
        ([{}], "further networks, each once"),
        ([{"base_model": "vgg16"}, {"base_model": "vgg16"}], "further networks, each once"),
        ([{"base_model": "vgg16", "also": [{"base_model": "vgg19"}]}], "no also of their own"),
        ([{"base_model": "faces.onnx"}], r"static\.also\.0.*preprocessing must say what faces\.onnx takes"),
        ([{"base_modell": "vgg16"}], r"unknown setting static\.also\.0\.base_modell"),
        ([{"height": 3}], r"unknown setting static\.also\.0\.height \(--also\)$"),
        ("vgg16", r"static\.also .*should be a valid tuple"),
    ],
)
def test_a_mistake_in_the_list_of_joined_networks_is_one_line(also, rule):
    with pytest.raises(UserError, match=rule):
        load_config(flags={"static.also": also})


def test_every_joined_network_must_be_there(folder, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(folder / "keras"))
    flags = {"weights": "pretrained", "static.also": [{"base_model": "mobilenetv3small"}]}
    with pytest.raises(AssetError, match=r"ImageNet weights of mobilenetv3small .*set weights=random"):
        settle_weights(config_with(folder, "eight.onnx", **flags), ("static",))
    auto = settle_weights(config_with(folder, "eight.onnx", **flags | {"weights": "auto"}), ("static",))
    assert auto.weights == "random"
    flags = {"static.also": [{"base_model": "resnet50", "weights": "faces-9"}]}
    with pytest.raises(AssetError, match="faces-9"):
        settle_weights(config_with(folder, "eight.onnx", **flags), ("static",))


def test_a_worker_with_another_file_of_that_name_is_refused(folder):
    config = config_with(folder, "eight.onnx")
    families = families_of(config)
    check_same_networks(backbones_of(config), families)
    joined = joined_with(folder)
    check_same_networks(backbones_of(joined), families_of(joined))
    with pytest.raises(UserError, match=r"eight\.onnx \+ five\.onnx is another network here"):
        check_same_networks(backbones_of(joined), families)
    other = config.model_copy(update={"static": config.static.model_copy(update={"preprocessing": "0-255"})})
    with pytest.raises(UserError, match=r"eight\.onnx is another network here"):
        check_same_networks(backbones_of(other), families)


def test_networks_in_files_need_no_assets_but_those_for_faces(folder, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing is to be had
    config = config_with(folder, "eight.onnx", weights="auto", assets=folder / "none")
    assert settle_weights(config, ("static", "dynamic")).weights == "pretrained"


def test_fine_tuning_and_looking_into_networks_are_for_the_usual_ones_only(folder):
    config = config_with(folder, "eight.onnx", labels=folder / "labels.csv")
    with pytest.raises(UserError, match=r"fine-tuning is for resnet50 only, not for static\.base_model .*eight\.onnx"):
        finetune(config, [])
    with pytest.raises(UserError, match="resnet50 only"):
        static_network(config)
    with pytest.raises(UserError, match="i3d only"):
        i3d_of(config)
    beside = load_config(flags={"weights": "random", "static.also": [{"base_model": "vgg16"}]})
    with pytest.raises(UserError, match=r"resnet50 only, not for static\.base_model resnet50 and static\.also vgg16"):
        static_network(beside)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Drawn features of resnet50 and i3d, and beside them those of a network in a file, with labels."""
    folder = tmp_path_factory.mktemp("archive")
    patch_network(folder / "own net.onnx")
    labels, _ = draw_store(folder, people=20, clips_each=3)
    store = FeatureStore(folder / "store")
    flags = {"weights": "random", "store.path": folder / "store", "labels": labels}
    usual = families_of(load_config(flags=flags))
    own = families_of(
        load_config(flags=flags | {"static.base_model": str(folder / "own net.onnx"), "static.preprocessing": "0-1"})
    )
    (folder / "joined.yaml").write_text("static: {also: [{base_model: own net.onnx, preprocessing: 0-1}]}\n")
    joined = families_of(
        load_config(
            flags=flags | {"static.also": [{"base_model": str(folder / "own net.onnx"), "preprocessing": "0-1"}]}
        )
    )
    rng = np.random.default_rng(0)
    turn = rng.normal(size=(2048, 8)).astype(np.float32) / 45
    rows = list(store.read(usual.static))
    store.write(own.static, [replace(row, vectors=row.vectors @ turn) for row in rows])
    store.write(joined.static, [replace(row, vectors=np.hstack([row.vectors, row.vectors @ turn])) for row in rows])
    assert own.dynamic == joined.dynamic == usual.dynamic
    return folder


def test_models_of_several_backbones_of_one_store_know_theirs(archive, traitline):
    own = ["static.base_model=own net.onnx", "static.preprocessing=0-1"]
    settings = [part for setting in own for part in ("--set", setting)]
    common = ["--store", "store", "--weights", "random"]
    labelled = ["--labels", "labels.csv", "--set", "train.keep_useless=true"]
    for version, more in enumerate(([], settings), start=1):
        trained = traitline("train", *common, *labelled, *more, folder=archive)
        assert trained.returncode == 0, trained.stderr
        assert f"traits/{version} from 60 clips" in trained.stderr
    refused = traitline("score", *common, "--model", "traits/1", *settings, folder=archive)
    assert refused.returncode == 1
    line = " ".join(refused.stderr.split())
    assert re.search(r"traits/1 was trained on .* \(resnet50 and i3d\), .* \(own net\.onnx and i3d\)", line)
    assert "traitline rescore --model traits/1" in line
    for model, more in (("traits/1", []), ("traits/2", settings)):
        scored = traitline("score", *common, "--model", model, *more, folder=archive)
        assert "60 videos scored" in scored.stderr, scored.stderr
    shown = traitline("models", "show", "traits/2", "--store", "store", folder=archive).stdout
    for fact in (r"static features +│ own net\.onnx, 8 numbers", r"dynamic features +│ i3d, 1024 numbers"):
        assert re.search(fact, shown)
    out = ["--model", "traits/2", "--out", "traits.csv", *settings]
    exported = traitline("export", *common, *out, folder=archive)
    assert exported.returncode == 0, exported.stderr
    about = json.loads((archive / "traits.csv.datapackage.json").read_text())["provenance"]
    assert about["networks"]["static"]["name"] == "own net.onnx"
    assert about["networks"]["static"]["preprocessing"] == "0-1"
    with (archive / "traits.csv").open(newline="") as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"scored"}
    facts = ModelSerializer(archive / "store").metadata("traits", "2")
    text = card_of(ModelReference("traits", "2"), facts, files=[], inputs=[])
    assert "The static network is own net.onnx, 8 numbers per token, digest `sha256:" in text
    assert "The dynamic network is i3d, 1024 numbers per token." in text


@pytest.mark.slow  # the commands of the test before
def test_the_specified_network_is_trained_on_tokens_of_few_numbers(archive, traitline):
    settings = ["--set", "static.base_model=own net.onnx", "--set", "static.preprocessing=0-1"]
    name = ["--set", "train_as=few", "--set", "train.keep_useless=true"]
    name += ["--set", "train.kind=specified", "--set", "train.epochs=1"]
    common = ["--store", "store", "--weights", "random", "--labels", "labels.csv"]
    trained = traitline("train", *common, *name, *settings, folder=archive)
    assert trained.returncode == 0, trained.stderr
    assert "few/1 from 60 clips" in trained.stderr


@pytest.mark.slow  # the commands of the test before last; the tokens of joined networks have their own tests above
def test_a_model_of_joined_networks_is_searched_trained_and_described(archive, traitline):
    common = ["--store", "store", "--weights", "random", "--config", "joined.yaml"]
    search = ["--search", "2", "--set", "train.keep_useless=true", "--set", "search.folds=2"]
    trained = traitline("train", *common, *search, "--labels", "labels.csv", "--set", "train_as=joined", folder=archive)
    assert trained.returncode == 0, trained.stderr
    model = ["--model", "joined/1"]
    scored = traitline("score", *common, *model, folder=archive)
    assert "60 videos scored" in scored.stderr, scored.stderr
    refused = traitline("score", *model, "--store", "store", "--weights", "random", folder=archive)
    assert "(resnet50 + own net.onnx and i3d)" in " ".join(refused.stderr.split())
    shown = traitline("models", "show", "joined/1", "--store", "store", folder=archive).stdout
    assert re.search(r"static features +│ resnet50 \+ own net\.onnx, 2056 numbers per token", shown)
    exported = traitline("export", *common, *model, "--out", "joined.csv", folder=archive)
    assert exported.returncode == 0, exported.stderr
    network = json.loads((archive / "joined.csv.datapackage.json").read_text())["provenance"]["networks"]["static"]
    assert [(one["name"], one["dim"]) for one in network["joined"]] == [("resnet50", 2048), ("own net.onnx", 8)]
    card = ["joined/1", "--format", "onnx", "--out", "joined card", "--store", "store"]
    assert traitline("models", "export", *card, folder=archive).returncode == 0
    text = (archive / "joined card" / "README.md").read_text()
    assert "The static network is resnet50 + own net.onnx, 2056 numbers per token: 2048 from resnet50" in text
    assert "; 8 from own net.onnx, digest `sha256:" in text


def test_a_model_scores_again_without_the_file_of_its_network(archive, traitline):
    (archive / "own net.onnx").rename(archive / "elsewhere.onnx")
    try:
        done = traitline("rescore", "--store", "store", "--model", "traits/2", folder=archive)
        assert done.returncode == 0, done.stderr
        settings = ["--set", "static.base_model=own net.onnx", "--set", "static.preprocessing=0-1"]
        refused = traitline("score", "--store", "store", "--weights", "random", *settings, folder=archive)
        assert refused.returncode == 1
        assert "cannot read the network own net.onnx" in " ".join(refused.stderr.split())
    finally:
        (archive / "elsewhere.onnx").rename(archive / "own net.onnx")


def test_what_is_known_of_the_usual_networks_is_their_names_and_dimensions():
    found = networks_of(load_config(flags={"weights": "random"}))
    assert {kind: (network["name"], network["dim"]) for kind, network in found.items()} == {
        "static": ("resnet50", 2048),
        "dynamic": ("i3d", 1024),
    }

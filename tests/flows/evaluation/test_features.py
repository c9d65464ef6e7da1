"""`traitline evaluate-features` on drawn stores, and the networks themselves on photographs of three people."""

from __future__ import annotations

import json
from collections import Counter

import cv2
import numpy as np
import pytest
from drawn_store import draw_store

from extractors.assets.files import AssetError
from extractors.faces.detector import FaceDetector
from extractors.faces.levelling import cut_view, view_of
from extractors.faces.settings import CropSettings
from extractors.pictures.activations import activation_statistics
from extractors.static.extractor import StaticFeatureExtractor
from flows.archive.families import families_of
from flows.config.load import load_config
from flows.evaluation.features import evaluate_families, figures_of
from fusion.features.identity import IdentityMeter
from storage import FeatureStore


def test_a_store_is_evaluated_with_tables_pictures_and_json(traitline, tmp_path):
    labels, _ = draw_store(tmp_path, people=6, clips_each=3)
    store = tmp_path / "store"
    done = traitline("evaluate-features", "--labels", labels, "--store", store, "--weights", "random")
    assert done.returncode == 0, done.stderr
    assert "discriminability" in done.stdout
    (folder,) = (store / "reports").iterdir()
    kinds = ("components", "dimensions", "identity")
    pictures = [f"{family}-{kind}.png" for family in ("dynamic", "static") for kind in kinds]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*pictures, "features.json"])
    found = json.loads((folder / "features.json").read_text())["families"]["static"]
    vectors, people = [], []
    families = families_of(load_config(flags={"weights": "random"}))
    for clip in FeatureStore(store).read(families.static):
        unit = clip.vectors / np.linalg.norm(clip.vectors, axis=1, keepdims=True)
        vectors.append(unit.astype(np.float64))
        people += [int(clip.video_id[1:4])] * len(unit)
    cosines = np.concatenate(vectors) @ np.concatenate(vectors).T
    different = np.not_equal.outer(people, people)
    assert found["identity"]["discriminability"] == pytest.approx(1 - cosines[different].mean(), abs=1e-6)
    assert found["identity"]["different_pairs"] == different.sum() // 2
    assert found["dimensions"]["tokens"] == len(people)


def test_people_who_are_all_in_one_clip_are_not_drawn_and_the_command_says_so(tmp_path, capsys):
    labels, _ = draw_store(tmp_path, people=4, clips_each=1)
    config = load_config(flags={"labels": labels, "store.path": tmp_path / "store", "weights": "random"})
    names = [name for name, _ in figures_of(config.weights, evaluate_families(config))]
    assert names == ["static-components", "static-dimensions", "dynamic-components", "dynamic-dimensions"]
    assert "people are not compared" in capsys.readouterr().err


@pytest.mark.slow
def test_labels_without_people_leave_out_what_is_about_people(tmp_path):
    labels, _ = draw_store(tmp_path, people=3, clips_each=2)
    lines = [line.split(",") for line in labels.read_text().splitlines()]
    labels.write_text("\n".join(",".join([line[0], *line[3:]]) for line in lines))
    flags = {"labels": labels, "store.path": tmp_path / "store", "weights": "random"}
    config = load_config(flags=flags)
    evaluated = evaluate_families(config)
    assert [one.identity for one in evaluated.values()] == [None, None]
    assert [name for name, _ in figures_of(config.weights, evaluated)] == [
        *("static-components", "static-dimensions", "dynamic-components", "dynamic-dimensions")
    ]


@pytest.mark.slow
def test_every_layer_of_both_networks_is_looked_at(traitline, rendered, tmp_path):
    store = tmp_path / "store"
    choice = ("--videos", rendered.videos, "--store", store, "--weights", "random")
    assert traitline("extract", *choice).returncode == 0
    done = traitline("evaluate-features", "--labels", rendered.labels, *choice, "--clips", "2")
    assert done.returncode == 0, done.stderr
    (folder,) = (store / "reports").glob("features-*")
    families = json.loads((folder / "features.json").read_text())["families"]
    assert [len(families[kind]["layers"]) for kind in ("static", "dynamic")] == [49, 57]
    assert {"static-layers.png", "dynamic-layers.png"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_photographs_of_one_person_are_more_alike_than_those_of_different_people(corpus, face_models, weights):
    try:
        network = StaticFeatureExtractor(weights)
    except AssetError as error:
        pytest.skip(str(error))
    pictures = sorted((corpus / "stills").glob("*/*.jpg"))
    if not pictures:
        pytest.skip("no photographs in the corpus")
    with FaceDetector(face_models) as detector:
        crops = [_face(detector, cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)) for path in pictures]
    people = [path.parent.name for path in pictures]
    meter = IdentityMeter(Counter(people))
    for person, vector in zip(people, network(np.stack(crops)), strict=True):
        meter.add(person, vector[None])
    found = meter.result()
    layers = activation_statistics(network.model, [network._preprocess(np.stack(crops).astype(np.float32))])
    print(f"{weights}: consistency {found.consistency:.3f}, discriminability {found.discriminability:.3f},", end=" ")
    print(f"AUC {found.auc:.3f} ({len(found.same)} and {len(found.different)} pairs),", end=" ")
    print(f"dead channels {sum(layer.dead_channels for layer in layers)}")
    assert (len(found.same), len(found.different)) == (3 * 11 * 10 // 2, 3 * 11 * 11)
    assert found.auc > 0.5  # even random filters tell pictures of one person's shows and years apart a little


def _face(detector: FaceDetector, picture: np.ndarray) -> np.ndarray:
    """The best face, uint8 RGB [224, 224, 3]."""
    best = detector.detect(picture)[0]
    return cut_view(picture, view_of(best[:4], best[5:], CropSettings().margin), 224)

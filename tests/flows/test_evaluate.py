"""`traitline evaluate` on a drawn store, as a person runs it, and intervals on their way into the CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_store import draw_store

from flows.config import load_config
from flows.export import export
from flows.families import families_of
from flows.manifest import known_videos
from flows.score import score
from flows.train import train
from fusion.metrics import METRICS
from fusion.traits import TRAITS
from storage import ModelSerializer

CLIPS = 140
QUICK = ("mean", "subject_lookup_shrunk", "ridge_static", "token_form")


def options(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    draw_store(folder, people=CLIPS // 2, clips_each=2)
    return folder


@pytest.fixture(scope="module")
def run(folder, traitline):
    """One evaluation, quick: one seed, two folds, few predictors and epochs."""
    only = "evaluate.only=[" + ", ".join(QUICK) + "]"
    few = options(only, "evaluate.seeds=1", "evaluate.folds=2", "evaluate.draws=200", "train.epochs=2")
    groups = ["--groups", folder / "groups.csv"]
    return traitline(
        *("evaluate", "--labels", folder / "labels.csv", "--store", folder / "store", "--weights", "random"),
        *(*groups, *few, *options("uncertainty.calibration_fraction=0.3")),
    )


@pytest.fixture(scope="module")
def results(run, folder):
    assert run.returncode == 0, run.stderr
    (path,) = (folder / "store" / "reports").glob("evaluation-*.json")
    return json.loads(path.read_text())


def mean_of(results, protocol, name, metric):
    (found,) = [row for row in results["protocols"][protocol]["predictors"] if row["name"] == name]
    return found["metrics"][metric]["mean"]


def test_both_protocols_are_told_side_by_side_with_what_leaks(results):
    assert list(results["protocols"]) == ["official", "subject_folds"]
    official, folds = results["protocols"].values()
    assert official["leakage"]["share_of_known_subjects"] > 0.4
    assert folds["leakage"]["subjects_in_both"] == 0
    assert folds["leakage"]["test_clips"] == CLIPS
    assert results["shared_subjects"] == {"training and validation": official["leakage"]["subjects_in_both"]}


def test_every_measure_of_every_predictor_has_its_interval(results):
    for protocol in results["protocols"].values():
        assert tuple(row["name"] for row in protocol["predictors"]) == QUICK
        for row in protocol["predictors"]:
            assert tuple(row["metrics"]) == METRICS
            for trait in (*TRAITS, "mean"):
                cell = row["metrics"]["one_minus_mae"][trait]
                assert cell["low"] <= cell["value"] <= cell["high"]


def test_what_was_planted_in_the_faces_is_found_and_memory_does_not_help_on_unseen_people(results):
    ridge, look_up, mean = (mean_of(results, "subject_folds", name, "ccc") for name in (QUICK[2], QUICK[1], QUICK[0]))
    assert ridge["low"] > 0.2
    assert look_up["value"] == mean["value"] == 0


def test_the_model_is_tested_against_each_baseline_with_holms_correction(results):
    tests = results["protocols"]["subject_folds"]["tests"]
    assert {test["baseline"] for test in tests} == set(QUICK[:3])
    for test in tests:
        assert test["p"] <= test["p_holm"] <= 1


def test_groups_are_those_of_the_table_with_coverage_in_each(results):
    for protocol in results["protocols"].values():
        assert [(one["column"], one["group"], one["subjects"] <= CLIPS // 4) for one in protocol["slices"]] == [
            ("voice", "calm", True),
            ("voice", "loud", True),
        ]
        assert [one["group"] for one in protocol["coverage"]] == ["all", "calm", "loud"]
        assert 0.7 < protocol["coverage"][0]["traits"]["mean"]["value"] <= 1


def test_tables_name_every_predictor_and_libraries_stay_silent(run):
    for name in (*QUICK, "Leakage", "unseen people", "p (Holm)", "loud"):
        assert name in run.stdout
    assert "all figures are in" in run.stderr
    assert "Traceback" not in run.stderr


def test_labels_alone_need_no_store_and_no_network(traitline, folder, tmp_path):
    found = traitline("evaluate", "--labels", folder / "labels.csv", "--labels-only", "--store", tmp_path / "new")
    assert found.returncode == 0, found.stderr
    assert "subject_lookup_shrunk" in found.stdout
    assert "ridge" not in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels-only"], "labels are needed"),
        (["--labels", "LABELS", "--labels-only", "--groups", "LABELS"], "has no column of groups"),
    ],
)
def test_what_a_person_got_wrong_is_one_line(traitline, folder, tmp_path, arguments, message):
    named = [folder / "labels.csv" if argument == "LABELS" else argument for argument in arguments]
    found = traitline("evaluate", *named, "--store", tmp_path / "new")
    assert found.returncode == 1
    assert message in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_intervals_and_the_abstain_flag_go_from_the_model_into_the_csv(folder):
    flags = {"labels": folder / "labels.csv", "store.path": folder / "store", "out": folder / "traits.csv"}
    settings = ("weights=random", "train.epochs=2", "uncertainty.calibration_fraction=0.3")
    config = load_config(flags=flags, assignments=(*settings, "uncertainty.min_static_tokens=3"))
    videos = known_videos(config, families_of(config))
    model = train.fn(config, videos)
    stored = ModelSerializer(config.store.path).metadata(model.name, model.version)
    kept = stored["uncertainty"]["calibration"]["subjects"]
    assert kept >= 9
    assert kept + stored["train_subjects"] + stored["validation_subjects"] == CLIPS // 2
    score.fn(config, videos, model)
    export.fn(config, videos, model)
    with (folder / "traits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == CLIPS
    for row in rows:
        number = int(row["video_id"][-8:-4])
        assert ("face_coverage" in row["abstain"].split()) == (number % 7 == 0)
        assert ("few_tokens" in row["abstain"].split()) == (number % 10 == 0)
        for trait in TRAITS:
            low, value, high = (float(row[name]) for name in (f"{trait}_low", trait, f"{trait}_high"))
            assert high - value == pytest.approx(value - low, abs=1e-5)
            assert high > low
    with (folder / "labels.csv").open(newline="") as file:
        truth = {row["video_id"]: row for row in csv.DictReader(file)}
    inside = [
        float(row[f"{trait}_low"]) <= float(truth[row["video_id"]][trait]) <= float(row[f"{trait}_high"])
        for row in rows
        for trait in TRAITS
    ]
    assert np.mean(inside) > 0.85  # most of these clips were trained on

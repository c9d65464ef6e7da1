"""`traitline evaluate` on a drawn store, as a person runs it, and intervals on their way into the CSV."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drawn_store import draw_store

from flows.archive.families import families_of
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.evaluation import kept as kept_predictions
from flows.evaluation.evaluate import _cached, evaluate_clips
from flows.pipeline.export import export
from flows.pipeline.score import score
from flows.pipeline.train import train
from fusion.evaluation.metrics import METRICS
from fusion.traits import TRAITS
from storage import ModelSerializer

CLIPS = 140
QUICK = ("mean", "subject_lookup_shrunk", "ridge_static", "bilinear")


def options(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    draw_store(folder, people=CLIPS // 2, clips_each=2)
    return folder


RUNS = 4 * 3  # predictors, and one fold of the official split and two others

# What `traitline evaluate` runs, without Prefect: a process that can be killed.
CHILD = """
import sys
from pathlib import Path
from flows.config.load import load_config
from flows.evaluation.evaluate import evaluate_clips
flags = {"labels": Path(sys.argv[1], "labels.csv"), "store.path": Path(sys.argv[2]), "weights": "random"}
evaluate_clips(load_config(flags=flags, assignments=sys.argv[3:]), None, labels_only=False)
"""

SETTINGS = (
    "evaluate.only=[" + ", ".join(QUICK) + "]",
    *("evaluate.seeds=1", "evaluate.folds=2"),
    *("train.epochs=2", "uncertainty.calibration_fraction=0.3"),
)


def settings_of(folder: Path, store: Path, *more: str) -> RunConfig:
    flags = {"labels": folder / "labels.csv", "store.path": store, "weights": "random"}
    return load_config(flags=flags, assignments=[*SETTINGS, *more])


@pytest.fixture(scope="module")
def results(folder):
    """One evaluation, quick: one seed, two folds, few predictors and epochs."""
    config = settings_of(folder, folder / "store")
    return evaluate_clips(config, folder / "groups.csv", labels_only=False).results


@pytest.fixture(scope="module")
def run(folder, results, traitline):
    """The same once more, as a person runs it."""
    return traitline(
        *("evaluate", "--labels", folder / "labels.csv", "--store", folder / "store", "--weights", "random"),
        *("--groups", folder / "groups.csv", *options(*SETTINGS)),
    )


class BrokenOffError(Exception):
    """What a test breaks an evaluation off with."""


def kept(store: Path) -> dict[str, tuple[int, int]]:
    """Files of predictions with what changes when one is written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in store.glob("runs/evaluation-*/*.npz")}


def same_features(folder: Path, name: str) -> Path:
    """A store of its own with the features of the folder's."""
    for part in ("features", "manifest"):
        shutil.copytree(folder / "store" / part, folder / name / part, copy_function=os.link)
    return folder / name


def without_times(results):
    """Results but for when and how long."""
    protocols = {
        name: {**found, "predictors": [{**row, "seconds": None} for row in found["predictors"]]}
        for name, found in results["protocols"].items()
    }
    return {**results, "created_utc": None, "seconds": None, "protocols": protocols}


def test_an_evaluation_that_was_broken_off_goes_on_and_ends_with_the_figures_of_an_undisturbed_one(
    folder, results, monkeypatch, capfd
):
    store = same_features(folder, "broken off")
    config = settings_of(folder, store)
    predict, networks = kept_predictions.timed_prediction, []

    def break_off(predictor, clips, fold, seed):
        networks.extend([predictor.name] if predictor.kind == "model" else [])
        if len(networks) == 2:
            raise BrokenOffError
        return predict(predictor, clips, fold, seed)

    monkeypatch.setattr(kept_predictions, "timed_prediction", break_off)
    with pytest.raises(BrokenOffError):
        evaluate_clips(config, None, labels_only=False)
    monkeypatch.undo()
    before = kept(store)
    assert sum(name.startswith("bilinear") for name in before) == 1
    gone_on = evaluate_clips(config, folder / "groups.csv", labels_only=False).results
    assert f"{len(before)} of {RUNS} " in " ".join(capfd.readouterr().err.split())
    assert without_times(gone_on) == without_times(results)
    after = kept(store)
    assert len(after) == RUNS
    assert {name: after[name] for name in before} == before


def test_done_again_it_trains_nothing_and_says_the_same(folder, results, run):
    assert run.returncode == 0, run.stderr
    assert f"{RUNS} of {RUNS} " in run.stderr
    _, path = sorted((folder / "store" / "reports").glob("evaluation-*.json"))
    assert without_times(json.loads(path.read_text())) == without_times(results)


def test_what_was_kept_and_is_damaged_is_made_anew_and_nothing_else(folder, results):
    store = folder / "damaged"
    shutil.copytree(folder / "store", store)
    (damaged, *_) = sorted(store.glob("runs/evaluation-*/ridge_static*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    before = kept(store)
    found = evaluate_clips(settings_of(folder, store), folder / "groups.csv", labels_only=False).results
    assert without_times(found) == without_times(results)
    assert [name for name, written in kept(store).items() if before[name] != written] == [damaged.name]


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_with_the_figures_of_an_undisturbed_one(folder, results):
    store = same_features(folder, "killed")
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, folder, store, *SETTINGS],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    while not any(name.startswith("bilinear") for name in kept(store)):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = kept(store)
    assert len(before) < RUNS
    gone_on = evaluate_clips(settings_of(folder, store), folder / "groups.csv", labels_only=False).results
    assert without_times(gone_on) == without_times(results)
    assert {name: kept(store)[name] for name in before} == before


def test_other_labels_or_settings_are_another_evaluation(folder):
    def name(*settings: str, labels: Path = folder / "labels.csv") -> str:
        flags = {"labels": labels, "store.path": folder / "store", "weights": "random"}
        return _cached(load_config(flags=flags, assignments=settings)).recipe

    fewer = folder / "fewer.csv"
    fewer.write_text("".join((folder / "labels.csv").read_text().splitlines(keepends=True)[:-1]))
    same = name()
    assert same == name("evaluate.seeds=9", "evaluate.folds=3", "train.seed=4", "train.devices=2")
    others = [name("train.epochs=3"), name("uncertainty.confidence=0.8"), name(labels=fewer)]
    assert len({same, *others}) == 4


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
    # without knowledge of a person, the look-up is the mean, and does not count as a further test
    assert {test["baseline"]: test["copy_of"] for test in tests} == {**dict.fromkeys(QUICK[:3]), QUICK[1]: QUICK[0]}


def test_groups_are_those_of_the_table_with_coverage_in_each(results):
    for protocol in results["protocols"].values():
        assert [(one["column"], one["group"], one["subjects"] <= CLIPS // 4) for one in protocol["slices"]] == [
            ("voice", "calm", True),
            ("voice", "loud", True),
        ]
        assert [one["group"] for one in protocol["coverage"]] == ["all", "calm", "loud"]
        assert 0.7 < protocol["coverage"][0]["traits"]["mean"]["value"] <= 1


def test_tables_name_every_predictor_and_libraries_stay_silent(run):
    for name in (*QUICK, "Leakage", "fitted to", "unseen people", "p (Holm)", "loud"):
        assert name in run.stdout
    assert re.search(r"evaluation-\d+T\d+\.json", " ".join(run.stderr.split()))
    assert "Traceback" not in run.stderr


def test_labels_alone_need_no_store_and_no_network(traitline, folder, tmp_path):
    found = traitline("evaluate", "--labels", folder / "labels.csv", "--labels-only", "--store", tmp_path / "new")
    assert found.returncode == 0, found.stderr
    assert "subject_lookup_shrunk" in found.stdout
    assert "ridge" not in found.stdout


def test_what_a_person_got_wrong_is_one_line(traitline, folder, tmp_path):
    labels = folder / "labels.csv"
    found = traitline("evaluate", "--labels", labels, "--labels-only", "--groups", labels, "--store", tmp_path / "new")
    assert found.returncode == 1
    assert f"{labels}" in found.stderr
    assert "column" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_intervals_and_the_abstain_flag_go_from_the_model_into_the_csv(folder):
    flags = {"labels": folder / "labels.csv", "store.path": folder / "store", "out": folder / "traits.csv"}
    settings = ("weights=random", "uncertainty.min_static_tokens=3")
    config = load_config(flags=flags, assignments=settings)
    videos = known_videos(config.store.path, families_of(config))
    model = train.fn(config, videos)
    stored = ModelSerializer(config.store.path).metadata(model.name, model.version)
    assert stored["uncertainty"]["calibration"]["subjects"] == stored["train_subjects"] == CLIPS // 2
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

"""Training measures its model on unseen people, refuses one that is useless, and loses none that is not."""

from __future__ import annotations

import csv

import pytest
from drawn_store import draw_store

from flows.archive.families import families_of
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.pipeline import train as train_module
from flows.pipeline.score import score
from flows.pipeline.train import train
from fusion.errors import TrainingError
from fusion.traits import TRAITS
from storage.models.serializer import ModelSerializer
from storage.tables.scores import ScoreStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store whose labels follow from its features, and noise.csv, whose labels do not."""
    folder = tmp_path_factory.mktemp("worth")
    labels, _ = draw_store(folder, people=30, clips_each=2)
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    own = [[row[trait] for trait in TRAITS] for row in rows]
    with (folder / "noise.csv").open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(["video_id", "subject", *TRAITS])
        # the labels of somebody else
        written.writerows(
            [row["video_id"], row["subject"], *other] for row, other in zip(rows, own[30:] + own[:30], strict=True)
        )
    return folder


def settings(folder, labels: str, *more: str) -> RunConfig:
    flags = {"weights": "random", "store.path": folder / "store", "labels": folder / labels, "train_as": labels[:-4]}
    return load_config(flags=flags, assignments=more)


def trained(config: RunConfig):
    return train.fn(config, known_videos(config.store.path, families_of(config)))


def test_a_useful_model_is_kept_with_its_measures(folder):
    config = settings(folder, "labels.csv")
    model = trained(config)
    facts = ModelSerializer(config.store.path).metadata(model.name, model.version)
    assert facts["unseen"]["better_than_mean"] is True
    assert facts["unseen"]["people"] == 30
    assert facts["unseen"]["r2"]["openness"]["value"] > 0.5
    assert facts["uncertainty"]["calibration"]["subjects"] == 30


def test_a_useless_model_is_refused_unless_it_is_asked_for_and_then_its_scores_say_so(folder):
    with pytest.raises(TrainingError, match=r"no better than .* nothing is kept.*train\.keep_useless"):
        trained(settings(folder, "noise.csv"))
    assert ModelSerializer(folder / "store").versions("noise") == []
    config = settings(folder, "noise.csv", "train.keep_useless=true")
    model = trained(config)
    videos = known_videos(config.store.path, families_of(config))
    score.fn(config, videos, model)
    rows = list(ScoreStore(config.store.path).read(model.name, model.version))
    assert len(rows) == 60
    assert all("useless_model" in row.abstain for row in rows)


def test_a_network_that_is_no_better_in_validation_is_refused_though_too_few_people_are_held_out(folder):
    quick = (
        "train.kind=specified",
        "train.epochs=2",
        "train.learning_rate=0.05",
        "uncertainty.calibration_fraction=0.01",
    )
    with pytest.raises(TrainingError, match=r"no better than .* nothing is kept.*train\.keep_useless"):
        trained(settings(folder, "noise.csv", *quick))
    model = trained(settings(folder, "noise.csv", *quick, "train.keep_useless=true"))
    facts = ModelSerializer(folder / "store").metadata(model.name, model.version)
    assert facts["unseen"] is None
    assert facts["uncertainty"]["useless"] is True


def test_nobody_is_counted_if_the_labels_name_no_people(folder, capsys):
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "nameless.csv").open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(["video_id", *TRAITS])
        written.writerows([row["video_id"], *(row[trait] for trait in TRAITS)] for row in rows)
    model = trained(settings(folder, "nameless.csv"))
    facts = ModelSerializer(folder / "store").metadata(model.name, model.version)
    assert facts["subjects_known"] is False
    assert facts["unseen"]["clips"] == 60
    said = "".join(capsys.readouterr())
    assert "do not say who" in said
    assert "60 people" not in said


def test_a_trained_model_survives_an_error_in_its_measurement(folder, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(train_module, "uncertainty_of", fail)
    config = settings(folder, "labels.csv", "train.folds=4")
    with pytest.raises(ZeroDivisionError):
        trained(config)
    facts = ModelSerializer(config.store.path).metadata("labels", "2")
    assert facts["uncertainty"]["calibration"] is None

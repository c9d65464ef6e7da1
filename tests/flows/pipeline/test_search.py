"""`traitline train --search`: the model says what its search found, and what is kept of a search is not done again."""

from __future__ import annotations

import pytest
from drawn_store import draw_store

from flows.archive.families import families_of
from flows.archive.model_card import card_of, limits
from flows.archive.model_quality import search_in_words
from flows.archive.models import ModelReference
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.pipeline.train import train
from flows.report import sections
from storage.models.serializer import ModelSerializer

PEOPLE = 24
SETTINGS = ("search.folds=2", "train.folds=2", "train.components=6")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    folder = tmp_path_factory.mktemp("search")
    labels, _ = draw_store(folder, people=PEOPLE, clips_each=2)
    flags = {"weights": "random", "store.path": folder / "store", "labels": labels, "search.trials": 2}
    return load_config(flags=flags, assignments=SETTINGS)


def trained(config: RunConfig) -> tuple[ModelReference, dict]:
    model = train.fn(config, known_videos(config.store.path, families_of(config)))
    return model, ModelSerializer(config.store.path).metadata(model.name, model.version)


@pytest.fixture(scope="module")
def searched(config) -> tuple[ModelReference, dict]:
    return trained(config)


def test_a_model_states_its_search_and_is_measured_on_people_without_a_part_in_it(config, searched):
    _, facts = searched
    search = facts["search"]
    assert (search["trials"], search["folds"], search["trainings"]) == (2, 2, 2 * 3 + 4)
    assert search["given"] == {"components": 6, "ridge_components": 24}
    assert search["space"] == {"components": "6 to 64", "ridge_components": "4 to 32"}
    assert len(search["of_folds"]) == 2
    assert search["kept"] == ("found" if search["gain"]["low"] > 0 else "given")
    assert {name: facts["settings"][name] for name in search["given"]} == search[search["kept"]]
    assert facts["unseen"]["people"] == PEOPLE
    for measure in ("one_minus_mae", "r2", "ccc"):
        assert facts["unseen"][measure]["mean"] == search["unseen"][search["kept"]][measure]
    assert facts["uncertainty"]["calibration"]["subjects"] == PEOPLE


def test_show_card_and_report_give_the_figures_of_the_search(config, searched, traitline):
    model, facts = searched
    shown = traitline("models", "show", str(model), "--store", config.store.path)
    assert shown.returncode == 0
    card = card_of(model, facts, ["model.onnx"], [])
    section = sections.search(facts["search"])
    r2 = f"{facts['search']['unseen']['given']['r2']['value']:.3f}"
    result = search_in_words(facts["search"])
    for text in (shown.stdout + shown.stderr, card, str(section)):
        text = " ".join(text.split())
        assert r2 in text
        assert result[1:] in text


def test_the_same_search_is_not_repeated_and_a_damaged_part_is(config, searched):
    model, facts = searched
    assert trained(config)[0] == model
    (folder,) = config.store.path.glob("runs/search-*")
    kept = sorted(folder.glob("*.npy"))
    before = {path: path.stat().st_mtime_ns for path in kept}
    kept[0].unlink()
    kept[1].write_bytes(b"not an array")
    again = config.model_copy(update={"train_as": "again"})
    assert trained(again)[1]["search"] == facts["search"]
    changed = [path for path in kept if path.stat().st_mtime_ns != before[path]]
    assert changed == kept[:2]


def test_a_width_other_than_the_specified_one_is_stated():
    said = limits({"settings": {"kind": "specified", "width": 64}, "unseen": None})
    assert any("Not the specified network: its fused tokens have 64 numbers" in limit for limit in said)
    assert not any("specified network" in limit for limit in limits({"settings": {"kind": "specified", "width": 128}}))


def test_fewer_than_two_trials_and_nothing_to_choose_are_one_line_each(config, traitline):
    command = ("train", "--store", config.store.path, "--labels", config.labels, "--weights", "random", "--search")
    for words, said in (
        (("1",), "(--search): input should be greater than or equal to 2; got 1"),
        (("2", "--set", "train.form=vector"), "vector form leaves nothing to search"),
    ):
        done = traitline(*command, *words)
        assert done.returncode == 1
        assert said in " ".join(done.stderr.split())
        assert done.stderr.count("traitline:") == 1

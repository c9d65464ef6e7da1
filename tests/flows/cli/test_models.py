"""Models as a person handles them on the command line."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from model_version import save_version

from flows.archive.model_card import card_of, facts_of, limits
from flows.archive.models import ModelReference, chosen_model
from flows.config.load import load_config
from flows.pipeline.prepare import prepare
from flows.session.errors import UserError
from fusion import TRAITS
from fusion.clips.tokens import ClipTokens, pad_batch
from fusion.evaluation.unseen import measure_unseen
from fusion.model.scoring import predict
from fusion.settings import TrainSettings
from fusion.training.train import train
from storage import ModelSerializer


@pytest.fixture(scope="module")
def clips() -> list[ClipTokens]:
    rng = np.random.default_rng(0)
    times = np.arange(4, dtype=np.float32)
    return [
        ClipTokens(
            f"{number}.mp4",
            rng.normal(size=(4, 6)).astype(np.float32),
            times,
            rng.normal(size=(4, 5)).astype(np.float32),
            times,
        )
        for number in range(6)
    ]


FACTS = {
    "traits": list(TRAITS),
    "static_key": "5" * 16,
    "dynamic_key": "d" * 16,
    "weights": "random",
    "labels": "people.csv",
    "labels_sha256": "1" * 64,
    "subjects_known": True,
    "neuroticism_inverted": False,
    "settings": TrainSettings().model_dump(mode="json"),
    "train_clips": 6,
    "train_subjects": 3,
    "unseen": measure_unseen(
        np.full((6, 5), 0.5), np.random.default_rng(1).random((6, 5)), list("aabbcc"), mean=np.full((6, 5), 0.5)
    ),
    "uncertainty": {"settings": {"confidence": 0.9}, "calibration": None},
    "created_utc": "2026-11-01T00:00:00+00:00",
    "libraries": {"keras": "3.15.1"},
    "program": {"version": "1.0", "commit": None},
    "files": {"model.keras": "2" * 64},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory, clips):
    """A store with two versions of a model; tests must not add any."""
    store = tmp_path_factory.mktemp("models") / "store"
    labels = np.random.default_rng(1).random((6, 5)).astype(np.float32)
    trained = train(clips, labels, list("aabbcc"), TrainSettings(kind="specified", epochs=1))
    facts = {
        "recipe": "r",
        "static_key": "5" * 16,
        "dynamic_key": "d" * 16,
        "weights": "random",
        "labels": "people.csv",
        "labels_sha256": "1" * 64,
        "subjects_known": True,
        "neuroticism_inverted": False,
        "unseen": measure_unseen(labels[::-1], labels, list("aabbcc"), mean=np.full_like(labels, 0.5)),
    }
    for _ in range(2):
        ModelSerializer(store).save(trained.model, "traits", {**trained.metadata, **facts}, trained.history)
    return store


def test_list_shows_every_version_with_its_names_and_measures(root, traitline):
    ModelSerializer(root).set_alias("traits", "production", "1")
    result = traitline("models", "list", "--store", root)
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if "traits/" in line]
    assert len(rows) == 2
    assert "production" in rows[0]
    assert "latest" in rows[1]
    found = ModelSerializer(root).metadata("traits", "1")["unseen"]["ccc"]["mean"]["value"]
    assert all("people.csv" in row and "random" in row and f"{found:.3f}" in row for row in rows)


@pytest.mark.parametrize("name", ["traits", "traits/1", "traits/latest", "traits/production"])
def test_show_says_what_it_is_and_what_it_must_not_be_used_for(root, traitline, name):
    ModelSerializer(root).set_alias("traits", "production", "1")
    result = traitline("models", "show", name, "--store", root)
    assert result.returncode == 0, result.stderr
    for words in ("labels", "1" * 64, "keras", "program", "validation loss", "employment", "1-MAE"):
        assert words in result.stdout
    assert "RANDOM" in result.stdout
    version = 1 if name.endswith(("1", "production")) else 2
    lines = result.stdout.splitlines()
    assert lines[0] == f"traits/{version}"
    assert "Not for faces of people who do not know about it." in lines  # whole in a pipe, and without padding


@pytest.mark.parametrize(
    ("settings", "used", "unused"),
    [
        ({"kind": "bilinear"}, "folds components ridge_components", "epochs learning_rate width memory_mb devices"),
        ({"kind": "bilinear", "form": "vector"}, "folds", "components ridge_components epochs"),
        ({"kind": "specified"}, "epochs learning_rate width memory_mb", "folds components plateau_epochs devices"),
        ({"kind": "specified", "schedule": "plateau"}, "plateau_epochs", "folds components"),
    ],
)
def test_only_settings_that_a_model_of_the_kind_uses_are_shown(settings, used, unused):
    shown = dict(facts_of(FACTS | {"settings": TrainSettings(**settings).model_dump(mode="json")}))["settings"]
    names = {pair.partition("=")[0] for pair in shown.split()}
    assert set(used.split()) | {"kind", "form", "seed"} <= names
    assert names.isdisjoint([*unused.split(), "keep_useless"])


@pytest.mark.parametrize("known", [True, False])
def test_labels_without_people_are_told_everywhere_from_one_fact(known):
    facts = FACTS | {"subjects_known": known}
    said = [*dict(facts_of(facts)).values(), *limits(facts), card_of(ModelReference("a", "1"), facts, [], [])]
    assert ("unknown people" in " ".join(said)) is not known
    assert any("do not say who is in a clip" in text for text in said) is not known
    assert any("3 people" in text for text in said) is known


def test_alias_is_set_moved_and_removed(root, traitline):
    for version in ("1", "2"):
        done = traitline("models", "alias", f"traits/{version}", "trial", "--store", root)
        assert all(name in done.stderr for name in ("traits/trial", f"traits/{version}"))
        assert ModelSerializer(root).aliases("traits")["trial"] == version
    assert "traits/1" in done.stderr  # what it stood for before
    removed = traitline("models", "alias", "traits", "trial", "--remove", "--store", root)
    assert removed.returncode == 0
    assert "traits/trial" in removed.stderr
    assert "trial" not in ModelSerializer(root).aliases("traits")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "other"), ("model other", "traits/1")),
        (("show", "traits/9"), ("model traits/9", "traits/2")),
        (("show", "../traits"), ("'../traits'", "NAME/VERSION")),
        (("alias", "traits/1", "v2"), ("v2", "version")),
        (("alias", "traits/1", "nothing", "--remove"), ("alias traits/nothing",)),
        (("export", "traits/1", "--out", "."), ("--out",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_mistake_is_one_line(root, traitline, arguments, words):
    result = traitline("models", *arguments, "--store", root)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("traitline: ")
    assert all(word in line for word in words), line


def test_a_mistyped_model_is_reported_before_features_are_missed(root):
    with pytest.raises(UserError, match=r"model trait/1 .*traits/1"):
        prepare(load_config(flags={"store.path": root, "model": "trait/1"}))


def test_a_model_folder_from_elsewhere_that_says_too_little_is_refused_by_name(tmp_path):
    save_version(tmp_path / "models" / "foreign" / "1", static_key="s", weights="random")
    config = load_config(flags={"store.path": tmp_path, "model": "foreign"})
    with pytest.raises(UserError, match=r"foreign/1 .*dynamic_key, settings"):
        chosen_model(config)


def test_exported_onnx_with_its_card_is_all_that_another_program_needs(root, tmp_path, traitline, clips):
    out = tmp_path / "for others"
    result = traitline("models", "export", "traits/1", "--format", "onnx", "--out", out, "--store", root)
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if "traits/1 is in" not in line] == []
    assert {path.name for path in out.iterdir()} == {"model.onnx", "README.md"}
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    model, facts = ModelSerializer(root).load("traits", "1")
    np.testing.assert_allclose(session.run(None, pad_batch(clips))[0], predict(model, clips), rtol=0, atol=1e-5)
    card = (out / "README.md").read_text(encoding="utf-8")
    for value in session.get_inputs():
        assert f"| `{value.name}` |" in card
    order = [card.index(f"{number}. {trait}") for number, trait in enumerate(TRAITS, start=1)]
    assert order == sorted(order)
    for words in (facts["files"]["model.keras"], "5" * 16, "d" * 16, "employment", "RANDOM", "apparent", "1" * 64):
        assert words in card
    assert card.startswith("# traits/1")


def test_savedmodel_is_exported_whole_or_not_at_all(root, tmp_path, traitline):
    out = tmp_path / "saved"
    result = traitline("models", "export", "traits", "--out", out, "--store", root)
    assert result.returncode == 0, result.stderr
    assert {"saved_model.pb", "variables", "README.md"} <= {path.name for path in out.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert traitline("models", "export", "traits", "--out", out, "--store", root).returncode == 1


def test_help_of_every_command_shows_an_example(traitline):
    for command in ("list", "show", "alias", "export"):
        assert "Example" in traitline("models", command, "--help").stdout

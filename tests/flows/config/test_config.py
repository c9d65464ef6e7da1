from __future__ import annotations

import re

import pytest
from drawn_networks import patch_network

from flows.archive.families import families_of
from flows.config.load import dump_config, load_config
from flows.config.settings import RunConfig
from flows.session.errors import UserError

# Settings of which a change must not throw away cached features.
CHANGES_NO_FEATURE = {
    "extract.shard_size": 3,
    "extract.retry_failed": True,
    "static.batch_size": 1,
    "static.frozen_layers": 0,
    "dynamic.batch_size": 1,
    "optical_flow.threads": 1,
    "train.epochs": 3,
    "labels": "labels.csv",
    "store.path": "elsewhere",
    "store.format": "hdf5",
}
# Setting -> families that it changes.
CHANGES_FEATURES = {
    "video.fps": {"faces", "static", "dynamic"},
    "faces.min_score": {"faces", "static", "dynamic"},
    "crops.margin": {"static", "dynamic"},
    "optical_flow.preset": {"dynamic"},
    "optical_flow.bound_px": {"dynamic"},
    "seed": {"static", "dynamic"},
    "store.dtype": {"static", "dynamic"},
    "weights": {"static", "dynamic"},
    "static.precision": {"static"},
    "dynamic.precision": {"dynamic"},
}
VALUES = {
    "store.dtype": "float16",
    "video.fps": 12.5,
    "faces.min_score": 0.61,
    "crops.margin": 1.7,
    "optical_flow.preset": "fast",
    "optical_flow.bound_px": 10,
    "seed": 1,
    "weights": "pretrained",
    "static.precision": "bfloat16",
    "dynamic.precision": "bfloat16",
}


def keys(**flags: object) -> dict[str, str]:
    families = families_of(load_config(flags={"weights": "random", **flags}))
    return {family.name: family.key for family in (families.faces, families.static, families.dynamic)}


def test_the_file_printed_by_config_show_reads_back_as_the_same_settings(tmp_path):
    config = load_config(assignments=["video.fps=12.5", "labels='a: b.csv'", "train.loss=mae", "out=null"])
    (tmp_path / "run.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "run.yaml") == config


def test_every_setting_has_a_default_and_a_sentence_of_help():
    def fields(model):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from fields(field.annotation)
            else:
                yield name, field

    for name, field in fields(RunConfig):
        assert not field.is_required(), name
        assert field.description, name
        assert field.description.endswith("."), name


def test_assignments_go_over_flags_and_flags_over_the_file(tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 1\nvideo:\n  fps: 10\nstore:\n  path: a\n")
    config = load_config(
        tmp_path / "run.yaml", flags={"store.path": "b", "seed": 2, "out": None}, assignments=["seed=3"]
    )
    assert (config.seed, config.video.fps, str(config.store.path), config.out) == (3, 10.0, "b", None)


@pytest.mark.parametrize(("name", "value"), CHANGES_NO_FEATURE.items())
def test_settings_that_change_no_number_change_no_key(name, value):
    assert keys(**{name: value}) == keys()


@pytest.mark.parametrize(("name", "changed"), CHANGES_FEATURES.items())
def test_settings_that_change_numbers_change_just_the_keys_of_what_is_made_from_them(name, changed):
    default, other = keys(), keys(**{name: VALUES[name]})
    assert {family for family in default if default[family] != other[family]} == changed


@pytest.mark.parametrize(
    ("name", "value", "changed"),
    [
        ("optical_flow.engine", "opencv", "dynamic"),
        ("optical_flow.engine", "gpu", "dynamic"),
        ("static.precision", "tf32", "static"),
        ("dynamic.precision", "tf32", "dynamic"),
    ],
)
def test_every_engine_and_precision_has_keys_of_its_own_on_any_machine(name, value, changed):
    before = [keys(), keys(**{name: {"gpu": "opencv", "tf32": "bfloat16"}.get(value, "cpu")})]
    after = keys(**{name: value})
    for other in before:
        assert {family for family in after if after[family] != other[family]} == {changed}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("video.fps", ["video.fps", "NAME=VALUE"]),
        ("video=3", ["video", "3"]),
        ("video.fps=fast", ["video.fps", "'fast'"]),
        ("nothing=1", ["nothing"]),
        ("seed.more=1", ["seed"]),
        ("seed=[", ["--set seed", "'['"]),
    ],
)
def test_a_wrong_assignment_is_said_in_one_line(assignment, words):
    with pytest.raises(UserError) as caught:
        load_config(flags={"seed": 1}, assignments=[assignment])
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def message_of(path=None, **layers) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, **layers)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_wrong_setting_is_named_with_what_gave_it_and_the_nearest_name(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("# settings\nseed: 1\nvideo:\n  fsp: 25\nstore:\n  path: s\n  format: parqet\n")
    said = message_of(path, assignments=["video.fbs=25"], flags={"weights": "Pretraned"})
    assert re.search(rf"video\.fsp \({path}, line 4\)[^;]*video\.fps", said)
    assert re.search(r"video\.fbs \(--set\)[^;]*video\.fps", said)
    assert re.search(rf"store\.format \({path}, line 7\)[^;]*'parquet' or 'hdf5'; got 'parqet'", said)
    assert re.search(r"weights \(--weights\).*'Pretraned'.*pretrained", said)


def test_a_dotted_name_in_a_settings_file_is_told_where_to_stand(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\ntrain.epochs: 3\n")
    said = message_of(path)
    assert f"train.epochs ({path}, line 2)" in said
    assert "section train" in said
    path.write_text("seed: 1\ntrain.epoch: 3\n")
    said = message_of(path)
    assert f"train.epoch ({path}, line 2)" in said
    assert "train.epochs" in said


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"assignments": ["extract.runner=dask"]}, ["extract.runner (--set), did you mean runner?"]),
        ({"assignments": ["extract.workers=2"]}, ["extract.workers (--set), did you mean dask.workers?"]),
        ({"assignments": ["extract.tls_cert=a.pem"]}, ["did you mean dask.tls_cert?"]),
        ({"assignments": ["runner=processes"]}, ["setting runner (--set)", "'local' or 'dask'; got 'processes'"]),
        (
            {"assignments": ["dask={address: 'a:1', cluster: b}"]},
            ["setting dask", "exclude each other"],
        ),
        ({"overrides": {"extract.shard_sise": 32}}, ["extract.shard_sise (parameter overrides)", "extract.shard_size"]),
        (
            {"overrides": {"extract": {"shard_sise": 3}}},
            ["extract.shard_sise (parameter overrides)", "extract.shard_size"],
        ),
        ({"overrides": {"shard_size": 32}}, ["shard_size (parameter overrides)", "extract.shard_size"]),
        ({"parameters": {"weights": "best"}}, ["weights (parameter weights)", "'best'"]),
        ({"assignments": ["vidoes=clips"]}, ["vidoes (--set)", "videos"]),
        ({"assignments": ["vidio.fps=3"]}, ["vidio (--set)", "video"]),
        ({"assignments": ["train.loss=MSE"]}, ["train.loss (--set)", "'MSE'", "mse"]),
        ({"assignments": ["optical_flow.tvl1=1"]}, ["optical_flow.tvl1 (--set)", "engine"]),
        ({"flags": {"export.since": "2026-02-01T00:00Z", "export.until": "2026-01-01T00:00Z"}}, ["(--since; --until)"]),
        ({"flags": {"store.path": 3}}, ["store.path (--store)"]),
        ({"assignments": ["video=3", "video.fps=3"]}, ["video", "3 (--set)", "video.fps"]),
    ],
)
def test_the_settings_file_is_not_blamed_for_what_stands_elsewhere(tmp_path, layers, words):
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\n")
    said = message_of(path, **layers)
    assert all(word in said for word in words), said
    assert str(path) not in said


def test_a_setting_that_was_laid_over_the_files_is_not_looked_for_there(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("weights: best\n")
    assert load_config(path, flags={"weights": "random"}).weights == "random"
    assert f"({path}, line 1)" in message_of(path)
    assert "(--weights)" in message_of(path, flags={"weights": "better"})


def test_a_section_on_the_command_line_leaves_the_files_other_settings_of_it_alone(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("dask:\n  address: tls://a:1\n  resources: {GPU: 1, old: 1}\n")
    config = load_config(path, assignments=["dask={workers: 2, resources: {GPU: 2}}"])
    assert (config.dask.address, config.dask.workers, config.dask.resources) == ("tls://a:1", 2, {"GPU": 2.0})


def test_a_settings_file_that_stands_for_billions_of_words_is_named_at_once(tmp_path):
    path = tmp_path / "run.yaml"
    rows = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else ['x'] * 9)}]" for n in range(12)]
    path.write_text("\n".join(rows) + "\n")
    assert "a0" in message_of(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train:\n  epochs: 3\nseed: 1\ntrain:\n  loss: mae\n", r"\btrain\b.* 1 .*\b4\b"),
        ("train:\n  epochs: 3\n  loss: mae\n  'epochs': 4\n", r"\bepochs\b.* 2 .*\b4\b"),
        ("train: {epochs: 3, epochs: 4}\n", r"\bepochs\b.*\b1\b"),
    ],
)
def test_a_section_or_a_setting_that_stands_twice_is_named_with_both_lines(tmp_path, text, words):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    said = message_of(path)
    assert said.startswith(f"{path}: ")
    assert re.search(words, said.removeprefix(f"{path}: "))


def test_a_setting_that_stands_twice_on_the_command_line_is_named():
    said = message_of(assignments=["train={epochs: 3, epochs: 4}"])
    assert said.startswith("--set train: ")
    assert "epochs" in said


def test_one_section_may_take_another_ones_settings_and_change_them(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("train: &a\n  <<: {seed: 5, epochs: 1}\n  epochs: 3\ndask:\n  resources: {GPU: 1}\n")
    config = load_config(path)
    assert (config.train.seed, config.train.epochs) == (5, 3)


@pytest.mark.parametrize("name", ["train.epochs", "train.learning_rate", "dask.workers", "dask.resources.GPU"])
def test_yes_and_no_are_no_numbers(tmp_path, name):
    path = tmp_path / "run.yaml"
    *sections, last = name.split(".")
    path.write_text("".join(f"{'  ' * depth}{part}:\n" for depth, part in enumerate(sections)) + f"    {last}: yes\n")
    for said, place in (
        (message_of(path), f"{path}, line {len(sections) + 1}"),
        (message_of(assignments=[f"{name}=true"]), "--set"),
    ):
        assert f"{name} ({place})" in said
        assert "number" in said
        assert said.endswith("got True")


def test_yes_and_no_stay_what_they_are_where_they_are_asked_for():
    config = load_config(assignments=["extract.retry_failed=yes", "invert_neuroticism=no"])
    assert (config.extract.retry_failed, config.invert_neuroticism) == (True, False)


def test_workers_get_absolute_paths_and_features_keep_their_keys(tmp_path, monkeypatch):
    """Dask's workers have other current folders than the command."""
    monkeypatch.chdir(tmp_path)
    patch_network(tmp_path / "faces.onnx")
    flags = {"store.path": "store", "videos": "clips", "labels": "labels.csv", "weights": "random"}
    networks = ["static.base_model=faces.onnx", "static.preprocessing=0-1"]
    here = load_config(flags=flags, assignments=networks)
    there = load_config(flags=flags, assignments=[*networks, "runner=dask"])
    assert (str(here.store.path), here.static.base_model) == ("store", "faces.onnx")
    assert (there.store.path, there.videos) == (tmp_path / "store", tmp_path / "clips")
    assert (there.labels, there.static.base_model) == (tmp_path / "labels.csv", str(tmp_path / "faces.onnx"))
    assert [family.key for family in (families_of(here).static, families_of(here).dynamic)] == [
        family.key for family in (families_of(there).static, families_of(there).dynamic)
    ]
    remote = load_config(flags={"store.path": "s3://bucket/store"}, assignments=["runner=dask"])
    assert str(remote.store.path) == "s3://bucket/store"

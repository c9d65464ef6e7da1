from __future__ import annotations

import pytest

from flows.config import RunConfig, dump_config, load_config
from flows.errors import UserError
from flows.families import families_of

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
    ("assignment", "words"),
    [
        ("video.fps", "NAME=VALUE"),
        ("video=3", "video"),
        ("video.fps=fast", "video.fps"),
        ("nothing=1", "unknown setting nothing"),
        ("seed.more=1", "seed"),
        ("seed=[", "not a value"),
    ],
)
def test_a_wrong_assignment_is_said_in_one_line(assignment, words):
    with pytest.raises(UserError, match=words) as caught:
        load_config(flags={"seed": 1}, assignments=[assignment])
    assert "\n" not in str(caught.value)

"""A user's mistake is one clear line that names the cure, and a non-zero exit."""

from __future__ import annotations

import pytest

from fusion.traits import TRAITS


def run_with(short_clips, tmp_path, **changes: object) -> list[object]:
    options = {"videos": short_clips.videos, "labels": short_clips.labels}
    options |= {"store": tmp_path / "store", "weights": "random", **changes}
    return ["run", *(part for name, value in options.items() if value for part in (f"--{name}", value))]


def check_one_line(result, *words: str) -> None:
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert result.returncode == 1
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("traitline: ")
    for word in words:
        assert word in lines[0]


def test_a_videos_folder_that_is_not_there(short_clips, tmp_path, traitline):
    result = traitline(*run_with(short_clips, tmp_path, videos=tmp_path / "nowhere"))
    check_one_line(result, "nowhere", "--videos")
    assert not (tmp_path / "store").exists()


def test_a_folder_without_videos(short_clips, tmp_path, traitline):
    (tmp_path / "empty").mkdir()
    check_one_line(traitline(*run_with(short_clips, tmp_path, videos=tmp_path / "empty")), "empty", ".mp4")


def test_no_videos_named(short_clips, tmp_path, traitline):
    check_one_line(traitline(*run_with(short_clips, tmp_path, videos=None)), "--videos DIR")


def test_an_unknown_setting_in_the_file(short_clips, tmp_path, traitline):
    settings = tmp_path / "run.yaml"
    settings.write_text("video:\n  fsp: 25\n")
    check_one_line(traitline(*run_with(short_clips, tmp_path, config=settings)), "video.fsp", "fps", "run.yaml")


def test_a_value_out_of_its_range(short_clips, tmp_path, traitline):
    check_one_line(traitline(*run_with(short_clips, tmp_path, set="video.fps=-1")), "video.fps", "greater than 0", "-1")


def test_a_settings_file_that_is_no_yaml(short_clips, tmp_path, traitline):
    settings = tmp_path / "run.yaml"
    settings.write_text("video: [25\n")
    check_one_line(traitline(*run_with(short_clips, tmp_path, config=settings)), "run.yaml", "YAML")


def test_a_settings_file_that_is_not_there(short_clips, tmp_path, traitline):
    check_one_line(traitline(*run_with(short_clips, tmp_path, config=tmp_path / "no.yaml")), "no.yaml")


def test_labels_that_are_not_there(short_clips, tmp_path, traitline):
    check_one_line(traitline(*run_with(short_clips, tmp_path, labels=tmp_path / "no.csv")), "no.csv")


def test_labels_of_other_videos_are_refused_before_anything_is_extracted(short_clips, tmp_path, traitline):
    labels = tmp_path / "labels.csv"
    labels.write_text(",".join(("video_id", *TRAITS)) + "\nelsewhere.mp4,.5,.5,.5,.5,.5\n")
    check_one_line(
        traitline(*run_with(short_clips, tmp_path, labels=labels)),
        "8 videos",
        "1 label",
        "elsewhere.mp4",
    )
    assert not (tmp_path / "store" / "features").exists()


def test_labels_without_the_traits_name_what_is_missing(short_clips, tmp_path, traitline):
    labels = tmp_path / "labels.csv"
    labels.write_text("video_id,openness\na.mp4,.5\n")
    check_one_line(traitline(*run_with(short_clips, tmp_path, labels=labels)), ", ".join(TRAITS[1:]))


def test_a_label_path_without_an_ending_that_is_not_there(tmp_path, traitline):
    check_one_line(traitline("evaluate", "--labels-only", "--labels", tmp_path / "no"), str(tmp_path / "no"))


@pytest.mark.parametrize("command", ["train", "score", "export", "report"])
def test_what_uses_cached_features_asks_for_no_networks_weights(command, short_clips, tmp_path, traitline, face_model):
    labels = ["--labels", short_clips.labels] if command == "train" else []
    (tmp_path / "store").mkdir()
    result = traitline(
        *(command, *labels, "--store", tmp_path / "store"),
        TRAITLINE_ASSETS=str(face_model.parents[1]),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    check_one_line(result, "features", "`traitline extract`")


def test_what_uses_cached_features_makes_no_store(tmp_path, traitline):
    check_one_line(traitline("score", "--store", tmp_path / "none"), f"store {tmp_path / 'none'}", "--store")
    assert not (tmp_path / "none").exists()


def test_labels_that_cannot_be_read(short_clips, tmp_path, traitline):
    labels = tmp_path / "labels.csv"
    labels.write_bytes(b"video_id,openness\n\xff\xfe\n")
    check_one_line(traitline(*run_with(short_clips, tmp_path, labels=labels)), "labels.csv")


def test_pretrained_weights_that_cannot_be_had(short_clips, tmp_path, traitline, face_model):
    result = traitline(
        *run_with(short_clips, tmp_path, weights="pretrained"),
        TRAITLINE_ASSETS=str(face_model.parents[1]),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    words = (
        "traitline assets unpack",
        str(face_model.parents[1]),
        "--weights random",
        "weights=auto",
    )
    check_one_line(result, *words)


def test_an_output_that_is_a_folder(short_clips, tmp_path, traitline):
    check_one_line(traitline(*run_with(short_clips, tmp_path, out=tmp_path)), str(tmp_path), "folder")


def test_neither_labels_nor_a_model(short_clips, tmp_path, traitline):
    check_one_line(traitline(*run_with(short_clips, tmp_path, labels=None)), "--labels")


def test_a_model_that_is_not_there(short_clips, tmp_path, traitline):
    check_one_line(traitline(*run_with(short_clips, tmp_path, model="better/7")), "better/7")


def test_a_store_that_is_another_folder(short_clips, tmp_path, traitline):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").touch()
    check_one_line(traitline(*run_with(short_clips, tmp_path, store=tmp_path / "holiday")), "holiday", "store")


@pytest.mark.parametrize("command", ["train", "score", "export", "report"])
def test_commands_on_an_empty_store_say_what_to_do_first(command, short_clips, tmp_path, traitline):
    labels = ["--labels", short_clips.labels] if command == "train" else []
    result = traitline(command, *labels, "--store", tmp_path / "store", "--weights", "random")
    check_one_line(result, "traitline extract")


def test_help_names_every_command_and_shows_an_example(traitline):
    result = traitline("--help")
    assert result.returncode == 0
    for command in ("run", "extract", "train", "score", "export", "report", "demo", "config", "store", "failures"):
        assert f"│ {command} " in result.stdout
    assert "Example" in traitline("run", "--help").stdout

"""Where a command has nothing to work on, it names the true cause: refused videos with their reasons come first."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flows.archive.families import families_of
from flows.archive.labels import check_labels_meet, report_unmatched
from flows.archive.outcomes import model_for
from flows.archive.videos import Archive, VideoFile
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.session.errors import UserError
from fusion.labels.matching import match_labels
from fusion.labels.read import read_labels
from fusion.traits import TRAITS
from storage import Failure, FailureLog

REASONS = ("no_face", "no_face", "truncated")


def label(folder: Path, *names: str) -> Path:
    rows = [",".join(("video_id", *TRAITS)), *(f"{name},.1,.2,.3,.4,.5" for name in names)]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


@pytest.fixture
def config(tmp_path) -> RunConfig:
    """Settings for a store in which all of three videos are refused; their labels are there."""
    labels = label(tmp_path, *(f"{number}.mp4" for number in range(3)))
    config = load_config(flags={"store.path": tmp_path / "store", "weights": "random", "labels": labels})
    key = families_of(config).features
    rows = [Failure(f"{n}.mp4", digest(n), key, "faces", reason, "so", 1) for n, reason in enumerate(REASONS)]
    FailureLog(config.store.path).add(rows)
    return config


def digest(number: int) -> str:
    return hashlib.sha256(bytes([number])).hexdigest()


def archive(count: int = 3) -> Archive:
    return Archive(VideoFile(f"{number}.mp4", Path(f"{number}.mp4"), digest(number)) for number in range(count))


def message_of(work) -> str:
    with pytest.raises(UserError) as caught:
        work()
    return str(caught.value)


def says_all_refused(said: str, config: RunConfig) -> bool:
    """Whether it gives the number of refused videos, the reasons of all, and the command that lists them."""
    words = ("all 3 videos", "(2 no_face, 1 truncated)", f"`traitline failures list --store {config.store.path}`")
    return all(word in said for word in words)


def test_training_on_videos_that_were_all_refused_names_the_reasons_and_not_the_labels(config):
    from flows.pipeline.train import train

    assert says_all_refused(said := message_of(lambda: train.fn(config, archive())), config)
    assert "label" not in said
    # nor are labels of other clips to blame, where no video can be used
    other = config.model_copy(update={"labels": label(config.labels.parent, "other.mp4")})
    assert says_all_refused(said := message_of(lambda: train.fn(other, archive())), config)
    assert "label" not in said


def test_evaluation_and_scoring_say_the_same(config, capsys):
    from flows.archive.models import ModelReference
    from flows.evaluation.evaluate import evaluate_clips
    from flows.evaluation.features import evaluate_families
    from flows.pipeline.score import _score

    assert says_all_refused(message_of(lambda: evaluate_clips(config, None, labels_only=False)), config)
    assert says_all_refused(message_of(lambda: evaluate_families(config)), config)
    assert _score(config, families_of(config), "random", archive(), ModelReference("traits", "1")) == 0
    assert says_all_refused(" ".join(capsys.readouterr().err.split()), config)
    # Where there never was a video to train a model on, that there is no model is not the cause.
    said = message_of(lambda: model_for(config, archive()))
    assert says_all_refused(said, config)
    assert said.index("no_face") < said.index("model traits")
    said = message_of(lambda: model_for(config, archive(4)))
    assert "model traits" in said
    assert "no_face" not in said


def test_labelled_videos_without_features_are_counted_by_cause(config):
    from flows.pipeline.train import train

    said = message_of(lambda: train.fn(config, archive(5)))
    assert "all 3 videos" in said
    assert "(2 no_face, 1 truncated)" in said
    more = config.model_copy(update={"labels": label(config.labels.parent, *(f"{n}.mp4" for n in range(5)))})
    said = message_of(lambda: train.fn(more, archive(5)))
    for words in ("5 videos", "3 rejected (2 no_face, 1 truncated)", "2 not extracted"):
        assert words in said


def test_labels_of_other_clips_are_shown_beside_the_videos(config):
    other = config.model_copy(update={"labels": label(config.labels.parent, "other.mp4")})
    new = Archive(VideoFile(f"{number}.mp4", Path(f"{number}.mp4"), "0" * 64) for number in range(2))
    said = message_of(lambda: check_labels_meet(other, new))
    for words in ("2 videos", "0.mp4", "1 label", "other.mp4"):
        assert words in said


def test_labels_of_a_whole_data_set_beside_a_few_of_its_clips_are_no_cause_for_alarm(tmp_path, capsys):
    labels = read_labels(label(tmp_path, *(f"{number:04d}.mp4" for number in range(6000))))
    report_unmatched("Train", match_labels(labels, [f"{number:04d}.mp4" for number in range(10)]))
    assert capsys.readouterr().err == ""
    report_unmatched("Train", match_labels(labels, [*(f"{number:04d}.mp4" for number in range(9)), "new.mp4"]))
    (said,) = capsys.readouterr().err.splitlines()
    for words in ("Train: 1 of 10 videos", "new.mp4", "0009.mp4, 0010.mp4 and 5989 more"):
        assert words in said
    report_unmatched("Train", match_labels(labels, [f"{number:04d}.mp4" for number in range(5999)]))
    (said,) = capsys.readouterr().err.splitlines()
    for words in ("Train: 1 label", "5999.mp4"):
        assert words in said


@pytest.mark.slow
def test_a_run_and_its_repetition_name_the_refused_videos_first(tmp_path, traitline):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(2):
        (videos / f"{number}.mp4").write_text("no video")
    words = ["--videos", videos, "--labels", label(tmp_path, "0.mp4", "1.mp4"), "--store", tmp_path / "s"]
    first, second = (traitline("run", *words, "--weights", "random") for _ in range(2))
    lists = f"`traitline failures list --store {tmp_path / 's'}`"
    assert first.returncode == second.returncode == 1
    for said, start in (
        (first.stderr.splitlines()[-1], "traitline: "),
        *zip(second.stderr.splitlines(), ("Extract: ", "traitline: "), strict=True),
    ):
        assert start in said  # behind the time where there is no terminal
        assert all(words in said for words in ("2 videos", "(2 not_a_video)", lists))

"""Where a command has nothing to work on, it names the true cause: refused videos with their reasons come first."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flows.archive.families import families_of
from flows.archive.labels import check_labels_meet, say_unmatched
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


ALL_REFUSED = "all 3 videos were refused (2 no_face, 1 truncated); `traitline failures list --store {store}` says why"


def test_training_on_videos_that_were_all_refused_names_the_reasons_and_not_the_labels(config):
    from flows.pipeline.train import train

    assert message_of(lambda: train.fn(config, archive())) == ALL_REFUSED.format(store=config.store.path)
    # nor are labels of other clips to blame, where no video can be used
    other = config.model_copy(update={"labels": label(config.labels.parent, "other.mp4")})
    assert message_of(lambda: train.fn(other, archive())) == ALL_REFUSED.format(store=config.store.path)


def test_evaluation_and_scoring_say_the_same(config, capsys):
    from flows.archive.models import ModelReference
    from flows.evaluation.evaluate import evaluate_clips
    from flows.evaluation.features import evaluate_families
    from flows.pipeline.score import _score

    wanted = ALL_REFUSED.format(store=config.store.path)
    assert message_of(lambda: evaluate_clips(config, None, labels_only=False)).startswith(wanted)
    assert message_of(lambda: evaluate_families(config)) == wanted
    assert _score(config, families_of(config), "random", archive(), ModelReference("traits", "1")) == 0
    assert f"Score: nothing to score: {wanted}" in capsys.readouterr().err
    # Where there never was a video to train a model on, that there is no model is not the cause.
    assert message_of(lambda: model_for(config, archive())).startswith(f"{wanted}; and there is no model traits")
    assert message_of(lambda: model_for(config, archive(4))).startswith("there is no model traits")


def test_labelled_videos_without_features_are_counted_by_cause(config):
    from flows.pipeline.train import train

    said = message_of(lambda: train.fn(config, archive(5)))
    assert said.startswith("no labelled video has features: all 3 videos were refused (2 no_face, 1 truncated)")
    more = config.model_copy(update={"labels": label(config.labels.parent, *(f"{n}.mp4" for n in range(5)))})
    said = message_of(lambda: train.fn(more, archive(5)))
    assert "none of 5 videos has features: 3 refused (2 no_face, 1 truncated), 2 not extracted yet" in said


def test_labels_of_other_clips_are_shown_beside_the_videos(config):
    other = config.model_copy(update={"labels": label(config.labels.parent, "other.mp4")})
    new = Archive(VideoFile(f"{number}.mp4", Path(f"{number}.mp4"), "0" * 64) for number in range(2))
    said = message_of(lambda: check_labels_meet(other, new))
    assert "none of 2 videos, such as 0.mp4, has a label" in said
    assert "(1 label, such as other.mp4)" in said


def test_labels_of_a_whole_data_set_beside_a_few_of_its_clips_are_no_cause_for_alarm(tmp_path, capsys):
    labels = read_labels(label(tmp_path, *(f"{number:04d}.mp4" for number in range(6000))))
    say_unmatched("Train", match_labels(labels, [f"{number:04d}.mp4" for number in range(10)]))
    assert capsys.readouterr().err == ""
    say_unmatched("Train", match_labels(labels, [*(f"{number:04d}.mp4" for number in range(9)), "new.mp4"]))
    said = capsys.readouterr().err
    assert (
        said
        == "Train: 1 of 10 videos has no label: new.mp4 (labels without a video: 0009.mp4, 0010.mp4 and 5989 more)\n"
    )
    say_unmatched("Train", match_labels(labels, [f"{number:04d}.mp4" for number in range(5999)]))
    assert capsys.readouterr().err == "Train: 1 label without a video: 5999.mp4\n"


@pytest.mark.slow
def test_a_run_and_its_repetition_name_the_refused_videos_first(tmp_path, traitline):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(2):
        (videos / f"{number}.mp4").write_text("no video")
    words = ["--videos", videos, "--labels", label(tmp_path, "0.mp4", "1.mp4"), "--store", tmp_path / "s"]
    first, second = (traitline("run", *words, "--weights", "random") for _ in range(2))
    lists = f"`traitline failures list --store {tmp_path / 's'}` says why"
    assert first.returncode == second.returncode == 1
    assert first.stderr.splitlines()[-1] == (f"traitline: 2 of 2 videos refused (2 not_a_video); {lists}")
    known, refusal = second.stderr.splitlines()
    assert known.endswith(f"Extract: nothing to decode: 2 videos refused before (2 not_a_video); {lists}")
    assert refusal == f"traitline: all 2 videos were refused (2 not_a_video); {lists}"

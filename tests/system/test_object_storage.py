"""Commands on a store that lies on object storage, as a person runs them."""

from __future__ import annotations

import csv
import io
import shutil

import numpy as np
import pytest

from flows.archive.families import families_of
from flows.config.load import load_config
from flows.session.log import local_log
from storage import Failure, FailureLog, Family, FeatureStore, ModelSerializer, VideoFeatures
from storage.files.paths import store_path


def one_line(result, *words: str) -> None:
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert line.startswith("traitline: ")
    for word in words:
        assert word in line


def test_address_passes_through_the_settings_as_it_is():
    config = load_config(flags={"store.path": "gs://bucket/a/b"}, assignments=["out=s3://bucket/traits.csv"])
    assert str(config.store.path) == "gs://bucket/a/b"
    assert str(config.out) == "s3://bucket/traits.csv"
    assert str(config.store.path / "runs") == "gs://bucket/a/b/runs"


def test_store_commands_see_what_is_there(s3_server, s3_folder, traitline):
    family, times = Family("static", 4, {}), np.zeros(2)
    features = VideoFeatures("a.mp4", "0" * 64, np.ones((2, 4), np.float32), times, times, {})
    FeatureStore(s3_folder).write(family, [features])
    FailureLog(s3_folder).add([Failure("b.mp4", "0" * 64, "static:k", "faces", "no_face", "no face at all", 1)])
    assert family.key in traitline("store", "ls", "--store", s3_folder, **s3_server).stdout
    assert "5 parts read, 0 damaged" in traitline("store", "verify", "--store", s3_folder, **s3_server).stderr
    assert "no face at all" in traitline("failures", "list", "--store", s3_folder, **s3_server).stdout


def test_log_is_put_when_the_command_ends_however_it_ends(s3_folder):
    log = store_path(s3_folder) / "runs" / "a.log"

    def fail(file) -> None:
        file.write_text("words")
        assert not log.exists()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), local_log(log) as file:
        fail(file)
    assert log.read_text() == "words"
    assert not file.parent.exists()


@pytest.mark.slow
def test_refused_video_is_logged_and_listed_and_its_store_verified(tmp_path, s3_server, s3_folder, traitline):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "text.mp4").write_text("no video at all")
    videos = ("--videos", tmp_path / "clips", "--weights", "random")
    result = traitline("extract", *videos, "--store", s3_folder, **s3_server)
    one_line_of = [line for line in result.stderr.splitlines() if line.startswith("traitline: ")]
    assert "1 of 1 video refused" in one_line_of[0], result.stderr
    (failure,) = FailureLog(s3_folder).current()
    assert (failure.video_id, failure.reason) == ("text.mp4", "not_a_video")
    runs = store_path(s3_folder) / "runs"
    (log,) = runs.glob("*-extract.log")
    assert "flow 'extract'" in log.read_text()
    (settings,) = runs.glob("*-extract.yaml")
    assert s3_folder in settings.read_text()
    listed = traitline("failures", "list", "--store", s3_folder, **s3_server)
    assert "text.mp4" in listed.stdout
    verified = traitline("store", "verify", "--store", s3_folder, **s3_server)
    assert "1 file read, 0 damaged" in verified.stderr


def test_mistakes_are_one_line(s3_server, s3_folder, traitline):
    one_line(traitline("store", "ls", "--store", s3_folder, **s3_server), s3_folder)
    one_line(traitline("store", "ls", "--store", "s3://nobody/store", **s3_server), "s3://nobody", "NoSuchBucket")
    nowhere = {**s3_server, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    one_line(traitline("store", "verify", "--store", s3_folder, **nowhere), "127.0.0.1:9", "AWS_ENDPOINT_URL")


@pytest.mark.slow
def test_a_run_on_object_storage_ends_in_the_same_csv_and_goes_on_from_there(
    tmp_path, rendered, s3_server, s3_folder, traitline
):
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("nod.mp4", "still.mp4", "tilt.mp4"):
        shutil.copy(rendered.videos / name, clips)
    common = ("run", "--videos", clips, "--labels", rendered.labels, "--weights", "random", "--set", "train.epochs=2")
    first = traitline(*common, "--store", s3_folder, "--out", f"{s3_folder}-traits.csv", **s3_server)
    assert first.returncode == 0, first.stderr
    rows = list(csv.DictReader(io.StringIO(store_path(f"{s3_folder}-traits.csv").read_text())))
    assert [(row["video_id"], row["status"]) for row in rows] == [
        (path.name, "scored") for path in sorted(clips.iterdir())
    ]
    second = traitline(*common, "--store", s3_folder, **s3_server)
    for words in ("nothing to decode", "nothing to train", "nothing to score"):
        assert words in second.stderr
    assert len(list((store_path(s3_folder) / "exports").iterdir())) == 2  # and its description
    assert len(list((store_path(s3_folder) / "reports").iterdir())) == 2
    assert ModelSerializer(s3_folder).versions("traits") == ["1"]
    local = traitline(*common, "--store", tmp_path / "store", **s3_server)
    assert local.returncode == 0, local.stderr
    families = families_of(load_config(flags={"weights": "random"}))
    for family in (families.faces, families.static, families.dynamic):
        remote, here = (
            {video.video_id: video.checksum() for video in FeatureStore(root).read(family)}
            for root in (s3_folder, tmp_path / "store")
        )
        assert remote == here
        assert len(here) == 3
    assert traitline("store", "verify", "--store", s3_folder, **s3_server).returncode == 0

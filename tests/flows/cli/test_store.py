"""The commands that keep a store in order, as a person runs them."""

from __future__ import annotations

import hashlib
import os
import time

import numpy as np
import pytest

from flows.archive.families import families_of
from flows.archive.videos import videos_of
from flows.cli.commands.failures import refused_files
from flows.config.load import load_config
from storage import Failure, FailureLog, Family, FeatureStore, VideoFeatures
from storage.leases.leases import at_work

FAMILY = Family("static", 4, {"fps": 25})


def features(name: str, family: Family = FAMILY) -> VideoFeatures:
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    quality = {column: np.ones(2, np.float32) for column in family.quality}
    return VideoFeatures(name, sha256, np.ones((2, family.dim), np.float32), np.zeros(2), np.ones(2), quality)


@pytest.fixture
def store(tmp_path):
    store = FeatureStore(tmp_path / "store")
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        store.write(FAMILY, [features(name)])
    return store


def test_ls_shows_what_there_is(tmp_path, store, traitline):
    result = traitline("store", "ls", "--store", tmp_path / "store")
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if FAMILY.key in line)
    assert line.split("│")[1:7] == [
        f" {word:{width}} " if left else f" {word:>{width}} "
        for word, width, left in (
            ("static", 6, True),
            (FAMILY.key, 16, True),
            ("parquet", 7, True),
            ("3", 6, False),
            ("0", 7, False),
            ("3", 6, False),
        )
    ]


def test_damage_is_found_moved_aside_and_then_gone(tmp_path, store, traitline):
    root = tmp_path / "store"
    assert traitline("store", "verify", "--store", root).returncode == 0
    damaged = store.shards(FAMILY)[1]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    found = traitline("store", "verify", "--store", root)
    assert found.returncode == 1
    assert damaged.name in found.stderr
    assert "7 parts read, 1 damaged" in found.stderr
    assert "traitline store repair" in found.stderr
    one_line = traitline("store", "compact", "--store", root)
    assert one_line.returncode == 1
    assert "Traceback" not in one_line.stderr
    repaired = traitline("store", "repair", "--store", root)
    assert repaired.returncode == 0
    assert "quarantine" in repaired.stderr
    assert traitline("store", "verify", "--store", root).returncode == 0
    assert set(FeatureStore(root).done(FAMILY)) == {"a.mp4", "c.mp4"}


def test_compact_and_convert_keep_all_videos(tmp_path, store, traitline):
    root = tmp_path / "store"
    compacted = traitline("store", "compact", "--store", root)
    assert "3 shards merged into 1" in compacted.stderr, compacted.stderr
    converted = traitline("store", "convert", "--store", root, "--to", "hdf5")
    assert "1 shard converted to hdf5" in converted.stderr
    assert [path.suffix for path in store.shards(FAMILY)] == [".h5"]
    assert set(FeatureStore(root).done(FAMILY)) == {"a.mp4", "b.mp4", "c.mp4"}


def test_gc_removes_nothing_without_yes(tmp_path, store, traitline):
    root = tmp_path / "store"
    assert "nothing to remove" in traitline("store", "gc", "--store", root, "--yes").stderr  # written to today
    dry = traitline("store", "gc", "--store", root, "--days", 0)
    assert f"unused: static {FAMILY.key}, 3 videos" in dry.stderr
    assert len(store.shards(FAMILY)) == 3
    assert "run nothing else on the store" in dry.stderr
    traitline("store", "gc", "--store", root, "--days", 0, "--yes")
    assert FeatureStore(root).families() == []


def test_gc_without_days_spares_what_is_about_to_be_committed(tmp_path, store, traitline):
    root = tmp_path / "store"
    young, old = (store.new_shard(FAMILY, 9, ".parquet") for _ in range(2))
    for path in (young, old):
        path.write_bytes(b"not committed yet")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    with at_work(root, "train"):
        cleaned = traitline("store", "gc", "--store", root, "--days", 0, "--yes")
    assert "removing: 1 file of killed processes" in cleaned.stderr, cleaned.stderr
    assert young.exists()
    assert not old.exists()
    assert set(store.done(FAMILY)) == {"a.mp4", "b.mp4", "c.mp4"}  # which the command at work may read


def test_erase_shows_first_and_then_erases_a_person_of_a_table(tmp_path, store, traitline):
    root, people = tmp_path / "store", tmp_path / "people.csv"
    people.write_text("clip,subject,gender\na,anna,f\nb,bob,m\nc,anna,f\nd,anna,f\n")
    erase = ("store", "erase", "--store", root)
    dry = traitline(*erase, "--subject", "anna", "--labels", people)
    assert dry.returncode == 0, dry.stderr
    assert "found: 2 videos: a.mp4, c.mp4" in dry.stderr
    assert "found: 2 rows of manifest" in dry.stderr
    assert "several videos of that file name: d" in dry.stderr
    assert "--yes erases it" in dry.stderr
    assert len(FeatureStore(root).done(FAMILY)) == 3
    assert traitline(*erase, "--subject", "anna", "--labels", people, "--yes").returncode == 0
    assert set(FeatureStore(root).done(FAMILY)) == {"b.mp4"}
    listed = tmp_path / "list.txt"
    listed.write_text("b.mp4\n")
    assert traitline(*erase, "--file", listed, "--yes").returncode == 0
    assert FeatureStore(root).done(FAMILY) == {}


def test_erase_fails_for_an_unknown_name_beside_known_ones_but_erases_those(tmp_path, store, traitline):
    root, listed = tmp_path / "store", tmp_path / "list.txt"
    listed.write_text("a.mp4\nb.mpg\n")
    for yes, left in (((), {"a.mp4", "b.mp4", "c.mp4"}), (("--yes",), {"b.mp4", "c.mp4"})):
        result = traitline("store", "erase", "--store", root, "--file", listed, *yes)
        assert result.returncode == 1
        assert "1 video: a.mp4" in result.stderr
        assert "holds nothing of b.mpg, did you mean b.mp4?" in result.stderr.splitlines()[-1]
        assert set(FeatureStore(root).done(FAMILY)) == left


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--video ID, --subject NAME with --labels FILE, or --file LIST"),
        (("--subject", "anna"), "go together"),
        (("--video", "z"), "holds nothing of z; a video is named by its video_id"),
        (("--video", "aa.mp4"), "holds nothing of aa.mp4, did you mean a.mp4?"),
        (("--video", ""), "a video_id is empty"),
        (("--file", "empty.csv"), "names no videos"),
        (("--file", "utf16.csv"), "holds nothing of an"),
        (("--subject", "ana", "--labels", "people.csv"), "did you mean anna?"),
        (("--subject", "anna", "--labels", "clips.csv"), "needs the columns video_id and subject"),
    ],
)
def test_erase_needs_to_know_whom(tmp_path, store, traitline, options, words):
    (tmp_path / "people.csv").write_text("clip,subject\na,anna\n")
    (tmp_path / "clips.csv").write_text("clip,gender\na,f\n")
    (tmp_path / "empty.csv").write_text("video_id\n")
    (tmp_path / "utf16.csv").write_text("video_id\nan\n", encoding="utf-16")
    options = [tmp_path / word if word.endswith(".csv") else word for word in options]
    result = traitline("store", "erase", "--store", tmp_path / "store", *options, "--yes")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert words in line
    assert len(FeatureStore(tmp_path / "store").done(FAMILY)) == 3


@pytest.mark.parametrize(
    "command", [("store", "ls"), ("store", "verify"), ("store", "gc"), ("failures", "list")], ids=" ".join
)
def test_store_that_is_not_there_is_one_line(tmp_path, traitline, command):
    result = traitline(*command, "--store", tmp_path / "nowhere")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("traitline: ")
    assert "nowhere" in line


@pytest.fixture
def refused(tmp_path, small_networks):
    """Three refused videos, of which one has been extracted since."""
    flags = {"store.path": tmp_path / "store", "weights": "random", "videos": tmp_path / "clips"}
    config = load_config(flags=flags, assignments=small_networks)
    families = families_of(config)
    config.videos.mkdir()
    for name, reason in (("a.mp4", "no_face"), ("b.mp4", "truncated"), ("c.mp4", "no_face")):
        (config.videos / name).write_text(name)
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        failure = Failure(name, sha256, families.features, "faces", reason, f"about {name}", 2)
        FailureLog(config.store.path).add([failure])
    for family in (families.static, families.dynamic):
        FeatureStore(config.store.path).write(family, [features("c.mp4", family)])
    return config


def test_list_shows_videos_that_still_lack_features(tmp_path, refused, traitline):
    result = traitline("failures", "list", "--store", refused.store.path)
    assert "about a.mp4" in result.stdout
    assert "about b.mp4" in result.stdout
    assert "c.mp4" not in result.stdout
    assert "2 failures: 1 no_face, 1 truncated" in result.stderr
    one = traitline("failures", "list", "--store", refused.store.path, "--reason", "truncated")
    assert "a.mp4" not in one.stdout
    assert "no failures" in traitline("failures", "list", "--store", refused.store.path, "--reason", "x").stderr


def test_retry_takes_just_the_refused_videos_of_that_reason_whose_bytes_are_the_same(refused):
    assert [file.video_id for file in refused_files(refused, videos_of(refused), None)] == ["a.mp4", "b.mp4"]
    assert [file.video_id for file in refused_files(refused, videos_of(refused), "no_face")] == ["a.mp4"]
    (refused.videos / "a.mp4").write_text("mended")
    assert not refused_files(refused, videos_of(refused), "no_face")


def test_retry_tries_again_and_counts_the_attempt(refused, small_networks, traitline):
    result = traitline(
        *("failures", "retry", "--videos", refused.videos, "--store", refused.store.path),
        *("--weights", "random", "--reason", "truncated"),
        *(part for setting in ("extract.max_failed_fraction=1", *small_networks) for part in ("--set", setting)),
    )
    assert result.returncode == 0, result.stderr
    attempts = {row.video_id: (row.reason, row.attempts) for row in FailureLog(refused.store.path).current()}
    assert attempts["b.mp4"] == ("not_a_video", 3)
    assert attempts["a.mp4"] == ("no_face", 2)

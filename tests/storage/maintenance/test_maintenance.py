"""Keeping a store in order: nothing is lost, nothing is shown twice, whatever happens meanwhile."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from model_version import save_version

from storage import Failure, FailureLog, Family, FeatureStore, ModelSerializer, Score, ScoreStore, StoreError
from storage.files.commit import move_file
from storage.maintenance.compaction import merge_shards, plan_merges
from storage.maintenance.conversion import convert_shard, shards_to_convert
from storage.maintenance.garbage import leftovers, remove_family, remove_leftover, unused_families
from storage.maintenance.survey import survey
from storage.maintenance.verification import find_damage, is_model, quarantine, store_files, what_is_lost
from storage.shards.header import read_header

on_this_machine = pytest.mark.parametrize("root", ["local"], indirect=True)


@pytest.fixture
def filled(open_store, root, draw, static):
    """Ten shards of two videos; a.mp4 is in the first and, made from other bytes, in the seventh."""
    store = open_store(root)
    for number in range(10):
        name, content = ("a.mp4", "new") if number == 6 else (f"{number}.mp4", "")
        first = draw("a.mp4", content="old") if number == 0 else draw(f"{number} too.mp4")
        store.write(static, [first, draw(name, content=content)])
    return store


def content_of(store, family) -> dict[str, tuple]:
    videos = list(store.read(family))
    found = {video.video_id: (video.video_sha256, video.checksum()) for video in videos}
    assert len(found) == len(videos)
    return found


def compact(store, family, **options) -> None:
    shard_of = store.shard_of(family)
    for merge in plan_merges(store, family, settled_s=0, **options):
        merge_shards(merge, shard_of)


def test_survey_counts_what_readers_get(filled, static):
    found = survey(filled, static)
    assert (found.shards, found.unreadable, found.videos, found.rows) == (10, 0, 19, 19 * 3)
    assert found.bytes == sum(path.stat().st_size for path in filled.shards(static))
    assert len(found.kinds) == 1


def test_verify_names_just_the_damaged_files_and_repair_leaves_the_rest(root, filled, draw, static):
    before = content_of(filled, static)
    assert [find_damage(path) for path in store_files(root)] == [None] * 11
    damaged = filled.shards(static)[3]
    data = bytearray(damaged.read_bytes())
    data[data.index(draw("3.mp4").vectors.tobytes())] ^= 1
    damaged.write_bytes(data)
    found = {path: find_damage(path) for path in store_files(root)}
    assert [path for path, problem in found.items() if problem] == [damaged]
    assert damaged.name in found[damaged]
    aside = quarantine(root, damaged)
    assert str(aside).startswith(f"{root}/quarantine/")
    assert not damaged.exists()
    lost = {"3.mp4", "3 too.mp4"}
    assert content_of(FeatureStore(root), static) == {name: before[name] for name in before if name not in lost}
    filled.write(static, [draw("3.mp4"), draw("3 too.mp4")])
    assert content_of(FeatureStore(root), static) == before


def save_model(root) -> ModelSerializer:
    """A model as far as its files go."""
    save_version(root / "models" / "traits" / "1")
    return ModelSerializer(root)


def test_damaged_failures_scores_and_models_are_named_and_what_can_be_made_anew_is_moved_aside(root):
    log, scores = FailureLog(root), ScoreStore(root)
    for number in range(3):
        log.add([Failure(f"{number}.mp4", "0" * 64, "k", "faces", "no_face", "", 1)])
        score = Score(f"{number}.mp4", "0" * 64, (0.5,) * 5, 1.0, 1, 1, "s", "d", "random")
        scores.write("traits", "1", [score])
    save_model(root)
    files = store_files(root)
    assert len(files) == 7
    assert [find_damage(path) for path in files] == [None] * 7
    damaged = [files[1], files[4]]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])
    (root / "models" / "traits" / "1" / "model.keras").write_bytes(b"layer?")
    found = {path: problem for path in files if (problem := find_damage(path))}
    assert list(found) == [*damaged, files[6]]
    assert "traits/1/model.keras" in found[files[6]]
    assert is_model(files[6])
    for path, words in zip(damaged, ("tries its videos again", "scores its videos again"), strict=True):
        assert path.name in found[path]
        assert words in what_is_lost(path)
        quarantine(root, path)
    assert [row.video_id for row in FailureLog(root).current()] == ["0.mp4", "2.mp4"]
    assert [row.video_id for row in ScoreStore(root).read("traits", "1")] == ["0.mp4", "2.mp4"]
    (root / "models" / "traits" / "1" / "model.keras").unlink()
    assert "cannot read" in find_damage(files[6])


@on_this_machine
def test_damaged_description_is_written_anew_from_the_shards(tmp_path, filled, static):
    path = filled.folder(static) / "family.json"
    whole = path.read_text()
    path.write_text(whole.replace("25", "24"))
    assert [path for path in store_files(tmp_path) if find_damage(path)] == [path]
    quarantine(tmp_path, path)
    assert path.read_text() == whole
    path.write_text("{}")
    assert quarantine(tmp_path, path).name == "family.json.2"


def test_merging_keeps_every_video_and_the_newest_rows_of_each(filled, static):
    before = content_of(filled, static)
    compact(filled, static)
    assert len(filled.shards(static)) == 1
    assert content_of(filled, static) == before
    header = read_header(filled.shards(static)[0], filled._format)
    assert len(header.videos) == 19  # what nobody is shown is gone


def test_merged_shards_stay_within_the_target(filled, static):
    before = content_of(filled, static)
    compact(filled, static, target_bytes=4 * 6 * 8 * 4)  # four shards of six rows of eight numbers of four bytes
    assert len(filled.shards(static)) == 3
    assert content_of(filled, static) == before
    compact(filled, static, target_bytes=4 * 6 * 8 * 4)
    assert content_of(filled, static) == before


def test_merged_shard_hides_nothing_that_is_written_later_even_by_a_slow_clock(open_store, root, draw, static):
    store = open_store(root)
    for name in ("a.mp4", "b.mp4"):
        store.write(static, [draw(name, content="old")])
    newest = store.shards(static)[-1]
    move_file(newest, newest.with_name(f"shard-29991231T235959999999-0123456789ab{newest.suffix}"))
    merges, shard_of = plan_merges(store, static, settled_s=0), store.shard_of(static)
    open_store(root).write(static, [draw("a.mp4", content="new")])  # while merging is about to begin
    for merge in merges:
        merge_shards(merge, shard_of)
    assert store.done(static)["a.mp4"] == draw("a.mp4", content="new").video_sha256


def test_merging_some_shards_does_not_bring_back_what_another_hides(open_store, root, draw, static):
    store = open_store(root)
    store.write(static, [draw("a.mp4", content="old"), draw("b.mp4")])
    store.write(static, [draw("a.mp4", tokens=100, content="new")])  # too large to be merged
    store.write(static, [draw("c.mp4")])
    before = content_of(store, static)
    compact(store, static, target_bytes=5000)
    assert len(store.shards(static)) == 2
    assert content_of(store, static) == before


@on_this_machine
def test_shards_that_have_just_been_committed_are_left_alone(filled, static):
    assert plan_merges(filled, static, settled_s=60) == []
    for shard in filled.shards(static)[:4]:
        os.utime(shard, (time.time() - 61,) * 2)
    (merge,) = plan_merges(filled, static, settled_s=60)
    assert list(merge.sources) == filled.shards(static)[:4]


@on_this_machine
@pytest.mark.parametrize(
    ("name", "fail_at"),
    # The first file to be unlinked is the temporary one, which has its final name by then.
    [("replace", 1), ("fsync", 1), ("fsync", 2), ("fsync", 3), ("unlink", 2), ("unlink", 3)],
)
def test_merge_that_fails_at_any_step_loses_nothing(filled, static, monkeypatch, name, fail_at):
    before = content_of(filled, static)
    (merge,), shard_of = plan_merges(filled, static, settled_s=0), filled.shard_of(static)
    original, calls = getattr(os, name), []

    def refuse(*arguments, **options):
        calls.append(arguments)
        if len(calls) == fail_at:
            raise OSError(28, "No space left on device", str(arguments[0]))
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        with pytest.raises(StoreError, match="No space left on device"):
            merge_shards(merge, shard_of)
    assert content_of(FeatureStore(filled.folder(static).parents[2]), static) == before
    compact(filled, static)
    assert content_of(filled, static) == before
    assert [path.name for path in filled.folder(static).iterdir() if path.name.startswith(".")] == []


def test_damaged_source_is_named_and_everything_stays(filled, static):
    merges, shard_of = plan_merges(filled, static, settled_s=0), filled.shard_of(static)
    shard = filled.shards(static)[2]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match=shard.name):
        merge_shards(merges[0], shard_of)
    shard.unlink()
    with pytest.raises(StoreError, match=shard.name):
        merge_shards(merges[0], shard_of)
    assert len(filled.shards(static)) == 9


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_converting_there_and_back_loses_nothing(open_store, root, draw, static, dtype):
    store = open_store(root, dtype=dtype)
    for name in ("a.mp4", "b.mp4"):
        store.write(static, [draw(name), draw(f"more {name}", tokens=9)])
    before, names = content_of(store, static), {path.name for path in store.shards(static)}
    for format in ("hdf5", "parquet", "hdf5", "parquet"):
        for shard in shards_to_convert(store, static, format):
            convert_shard(shard, format)
        assert shards_to_convert(store, static, format) == []
        assert content_of(store, static) == before
        assert read_header(store.shards(static)[0], FeatureStore(root, format)._format).dtype == dtype
    assert {path.stem for path in store.shards(static)} == {name.partition(".")[0] for name in names}


def test_shard_that_is_there_in_both_formats_is_shown_once(filled, static):
    before = content_of(filled, static)
    shard = filled.shards(static)[4]
    data = shard.read_bytes()
    convert_shard(shard, "parquet" if shard.suffix == ".h5" else "hdf5")
    shard.write_bytes(data)  # as though the process had been killed before it removed the source
    assert content_of(filled, static) == before
    assert survey(filled, static).videos == 19


@on_this_machine
def test_readers_find_every_video_once_while_shards_are_merged_and_converted(open_store, root, draw, static):
    store = open_store(root)
    names = {f"{number}.mp4" for number in range(24)}
    for name in sorted(names):
        store.write(static, [draw(name)])
    stop, faults = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            found = [video.video_id for video in FeatureStore(root).read(static)]
            if sorted(found) != sorted(names):
                faults.append(found)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for step in range(2, 17):
            compact(store, static, target_bytes=3 * 8 * 4 * step)
            for shard in store.shards(static)[: step % 3]:
                convert_shard(shard, "hdf5" if shard.suffix == ".parquet" else "parquet")
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert faults == []
    assert len(store.shards(static)) < 10


@pytest.fixture
def families() -> dict[str, Family]:
    faces, other_faces = {"fps": 25}, {"fps": 24}
    return {
        "faces": Family("faces", 5, faces),
        "old faces": Family("faces", 5, other_faces),
        "trained on": Family("static", 4, {"faces": faces, "weights": "a"}),
        "scored": Family("dynamic", 4, {"crops": {"faces": faces}, "weights": "b"}),
        "unused": Family("static", 4, {"faces": other_faces, "weights": "c"}),
    }


@pytest.fixture
def referred_to(root, draw, families, monkeypatch):
    for family in families.values():
        FeatureStore(root).write(family, [draw("a.mp4", family)])
    keys = {"static_key": families["trained on"].key, "dynamic_key": "0" * 16}
    monkeypatch.setattr(ModelSerializer, "names", lambda _: ["traits"])
    monkeypatch.setattr(ModelSerializer, "versions", lambda *_: ["1"])
    monkeypatch.setattr(ModelSerializer, "metadata", lambda *_: keys)
    score = Score("a.mp4", "0" * 64, (0.5,) * 5, 1.0, 1, 1, "0" * 16, families["scored"].key, "random")
    ScoreStore(root).write("traits", "1", [score])
    return families


def test_only_what_nothing_refers_to_is_garbage(root, referred_to):
    unused = unused_families(root, idle_s=0)
    assert set(unused) == {referred_to["old faces"], referred_to["unused"]}
    assert unused_families(root, idle_s=60) == []
    for family in unused:
        remove_family(root, family)
    left = FeatureStore(root).families()
    assert {family.key for family in left} == {referred_to[name].key for name in ("faces", "trained on", "scored")}
    assert all(set(FeatureStore(root).done(family)) == {"a.mp4"} for family in left)
    assert leftovers(root, idle_s=0) == []


def test_nothing_is_garbage_while_a_score_cannot_be_read(root, referred_to):
    (part,) = (root / "scores").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(StoreError, match=part.name):
        unused_families(root, idle_s=0)


@on_this_machine
def test_what_killed_writers_left_goes_when_it_is_old(tmp_path, filled, static):
    before = content_of(filled, static)
    file = filled.folder(static) / f".tmp-0123456789ab-{filled.shards(static)[0].name}"
    file.write_bytes(b"half")
    folder = tmp_path / "models" / "traits" / ".tmp-0123456789ab-1"
    (folder / "deeper").mkdir(parents=True)
    assert leftovers(tmp_path) == []
    assert set(leftovers(tmp_path, idle_s=0)) == {file, folder}
    for path in leftovers(tmp_path, idle_s=0):
        remove_leftover(path)
    assert leftovers(tmp_path, idle_s=0) == []
    assert content_of(filled, static) == before


def test_names_of_models_are_those_with_a_version(tmp_path):
    for folder in ("traits/1", "traits/2", "other/1", ".hidden/1", "notes/draft"):
        (tmp_path / "models" / folder).mkdir(parents=True)
        (tmp_path / "models" / folder / "metadata.json").touch()
    (tmp_path / "models" / "empty" / "1").mkdir(parents=True)
    assert ModelSerializer(tmp_path).names() == ["other", "traits"]


def test_random_videos_survive_any_order_of_writing_merging_and_converting(open_store, tmp_path, draw, static):
    store, rng, truth = open_store(tmp_path), np.random.default_rng(0), {}
    for step in range(30):
        name = f"{rng.integers(12)}.mp4"
        video = draw(name, content=str(step), tokens=int(rng.integers(1, 6)))
        store.write(static, [video])
        truth[name] = (video.video_sha256, video.checksum())
        if rng.random() < 0.3:
            compact(store, static, target_bytes=int(rng.integers(100, 3000)))
        if rng.random() < 0.3:
            shard = store.shards(static)[0]
            convert_shard(shard, "hdf5" if shard.suffix == ".parquet" else "parquet")
        assert content_of(store, static) == truth

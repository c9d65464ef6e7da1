"""Keeping a store in order: nothing is lost, nothing is shown twice, whatever happens meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from model_version import save_version

from storage import Failure, FailureLog, Family, FeatureStore, ModelSerializer, Score, ScoreStore, StoreError
from storage.files.paths import matching
from storage.leases.leases import Leases, at_work
from storage.maintenance.erasing import erase, find_traces
from storage.maintenance.garbage import DAY_S, clean_tables, leftovers, remove_family, remove_leftover, unused_families
from storage.maintenance.rewriting import plan_merges, rewrite, shards_to_convert
from storage.maintenance.survey import survey
from storage.maintenance.verification import Problem, find_problem, parts, repair
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
    for sources in plan_merges(store, family, **options):
        rewrite(store, family, sources)


def problems(root) -> dict[str, Problem]:
    """What verify finds, by the name of the file or folder."""
    found = [find_problem(part) for part in parts(root)]
    return {problem.part.path.name: problem for problem in found if problem is not None}


def test_survey_counts_what_readers_get(filled, static):
    found = survey(filled, static)
    assert (found.shards, found.missing, found.videos, found.rows) == (10, 0, 19, 19 * 3)
    assert found.bytes == sum(path.stat().st_size for path in filled.shards(static))
    assert len(found.formats) == 1
    filled.shards(static)[3].unlink()
    assert survey(filled, static).missing == 1


def test_verify_names_just_the_damaged_files_and_repair_leaves_the_rest(root, filled, draw, static):
    before = content_of(filled, static)
    assert len(parts(root)) == 14  # three tables, the description, ten shards
    assert problems(root) == {}
    damaged = filled.shards(static)[3]
    data = bytearray(damaged.read_bytes())
    data[data.index(draw("3.mp4").vectors.tobytes())] ^= 1
    damaged.write_bytes(data)
    found = problems(root)
    assert list(found) == [damaged.name]
    assert found[damaged.name].trouble == "damaged"
    assert damaged.name in found[damaged.name].message
    said = repair(found[damaged.name])
    assert f"{root}/quarantine/" in said
    assert "2 videos" in said
    assert not damaged.exists()
    lost = {"3.mp4", "3 too.mp4"}
    assert content_of(FeatureStore(root), static) == {name: before[name] for name in before if name not in lost}
    filled.write(static, [draw("3.mp4"), draw("3 too.mp4")])
    assert content_of(FeatureStore(root), static) == before
    assert problems(root) == {}


def test_vanished_shard_is_reported_and_repair_has_its_videos_extracted_again(root, filled, static):
    lost = filled.shards(static)[2]
    lost.unlink()
    found = problems(root)
    assert [problem.trouble for problem in found.values()] == ["gone"]
    assert f"{lost.name} is gone" in found[lost.name].message
    assert "2 videos" in repair(found[lost.name])
    assert problems(root) == {}
    assert set(filled.done(static)) >= {"1.mp4", "3.mp4"}
    assert not {"2.mp4", "2 too.mp4"} & set(filled.done(static))


@on_this_machine
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOENT])
def test_what_the_system_does_not_let_us_read_stays_where_it_is(tmp_path, filled, static, monkeypatch, number):
    before = content_of(filled, static)
    names = {path.name for path in filled.shards(static)}
    real = Path.open

    def refuse(path, *arguments, **options):
        if path.name in names:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        found = problems(tmp_path)
    assert set(found) == names
    gone = number in (errno.ESTALE, errno.ENOENT)
    assert {problem.trouble for problem in found.values()} == {"gone" if gone else "unreachable"}
    if not gone:
        for problem in found.values():
            assert "left in place" in repair(problem)
        assert content_of(filled, static) == before
    assert {path.name for path in matching(filled.folder(static), "shard-*")} == names
    assert not (tmp_path / "quarantine").exists()


def test_shard_of_a_newer_version_stays_where_it_is(tmp_path, draw, static):
    store = FeatureStore(tmp_path, "hdf5")
    store.write(static, [draw("a.mp4")])
    (path,) = store.shards(static)
    data = path.read_bytes()
    line = data.split(b"\n")[1]
    newer = line.replace(b'"shard_version":4', b'"shard_version":5')
    digests = [hashlib.sha256(text).hexdigest().encode() for text in (line, newer)]
    path.write_bytes(data.replace(line, newer).replace(*digests))
    found = problems(tmp_path)
    assert [problem.trouble for problem in found.values()] == ["newer"]
    assert "left in place" in repair(found[path.name])
    assert path.exists()


@on_this_machine
@pytest.mark.parametrize("file", ["_delta_log/00000000000000000003.json", "family=*/*.parquet"])
def test_damaged_manifest_is_written_again_from_the_shards(tmp_path, filled, static, file):
    before = content_of(filled, static)
    for path in (tmp_path / "manifest").glob(file):
        path.write_bytes(path.read_bytes()[:-20])
    found = problems(tmp_path)
    assert found["manifest"].trouble == "damaged"
    assert "20 videos were listed again" in repair(found["manifest"])
    assert content_of(FeatureStore(tmp_path), static) == before
    assert problems(tmp_path) == {}


def test_manifest_that_is_gone_is_reported_and_written_again_and_its_shards_are_no_garbage(root, filled, static):
    before = content_of(filled, static)
    for path in list((filled.root / "manifest").rglob("*")):
        if path.is_file():
            path.unlink()
    assert leftovers(root, idle_s=0) == []
    found = problems(root)
    assert found["manifest"].trouble == "gone"
    assert "20 videos were listed again" in repair(found["manifest"])
    assert content_of(FeatureStore(root), static) == before
    assert problems(root) == {}


def save_model(root) -> ModelSerializer:
    """A model as far as its files go."""
    save_version(root / "models" / "traits" / "1")
    return ModelSerializer(root)


def test_damaged_tables_and_models_are_named_and_what_can_be_made_again_is_moved_aside(tmp_path):
    log, scores = FailureLog(tmp_path), ScoreStore(tmp_path)
    log.add([Failure("a.mp4", "0" * 64, "k", "faces", "no_face", "", 1)])
    scores.write("traits", "1", [Score("a.mp4", "0" * 64, (0.5,) * 5, 1.0, 1, 1, "s", "d", "random")])
    save_model(tmp_path)
    assert len(parts(tmp_path)) == 5
    assert problems(tmp_path) == {}
    for folder in ("failures", "scores/traits/1"):
        (path,) = (tmp_path / folder).glob("*.parquet")
        path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "models/traits/1/model.keras").write_bytes(b"layer?")
    found = problems(tmp_path)
    assert set(found) == {"failures", "1", "metadata.json"}
    assert "traits/1/model.keras" in found["metadata.json"].message
    assert "left in place" in repair(found["metadata.json"])
    assert "tries its videos again" in repair(found["failures"])
    assert "scores its videos again" in repair(found["1"])
    assert FailureLog(tmp_path).current() == []
    assert list(ScoreStore(tmp_path).read("traits", "1")) == []
    assert set(problems(tmp_path)) == {"metadata.json"}


@on_this_machine
def test_damaged_description_is_written_again_from_the_shards(tmp_path, filled, static):
    path = filled.folder(static) / "_family.json"
    whole = path.read_text()
    for number, text in enumerate((whole.replace("25", "24"), "{}")):
        path.write_text(text)
        found = problems(tmp_path)
        assert set(found) == {"_family.json"}
        assert ("_family.json.2" in repair(found["_family.json"])) == (number == 1)
        assert path.read_text() == whole


def test_merging_keeps_every_video_and_the_newest_rows_of_each(filled, static):
    before = content_of(filled, static)
    compact(filled, static)
    (shard,) = matching(filled.folder(static), "shard-*")
    assert content_of(filled, static) == before
    header = read_header(shard, filled._format)
    assert len(header.videos) == 19  # what nobody is shown is gone
    assert filled.manifest.table.check() == 19


def test_merged_shards_stay_within_the_target(filled, static):
    before = content_of(filled, static)
    for _ in range(2):
        compact(filled, static, target_bytes=4 * 6 * 8 * 4)  # four shards of six rows of eight numbers of four bytes
        assert len(filled.shards(static)) == 3
        assert content_of(filled, static) == before


def test_merged_shard_hides_nothing_that_is_written_meanwhile(open_store, root, draw, static):
    store = open_store(root)
    for name in ("a.mp4", "b.mp4"):
        store.write(static, [draw(name, content="old")])
    (sources,) = plan_merges(store, static)
    for moment in ("version", "move"):  # before the sources are read, and before the manifest names the new shard
        target = store.manifest.table if moment == "version" else store.manifest
        real = getattr(target, moment)

        def first_another_writes(*values, real=real, moment=moment):
            open_store(root).write(static, [draw("a.mp4", content=moment)])
            return real(*values)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(target, moment, first_another_writes)
            rewrite(store, static, sources)
        assert store.done(static)["a.mp4"] == draw("a.mp4", content=moment).video_sha256
        sources = [path.name for path in store.shards(static)]
    assert set(content_of(store, static)) == {"a.mp4", "b.mp4"}


def test_superseded_rows_of_large_shards_are_reclaimed(open_store, root, draw, static):
    store = open_store(root)
    store.write(static, [draw(f"{number}.mp4", tokens=30) for number in range(4)])
    store.write(static, [draw(f"{number}.mp4", tokens=30, content="new") for number in range(3)])
    before = content_of(store, static)
    compact(store, static, target_bytes=1000)
    sizes = [len(read_header(path, store._format).videos) for path in matching(store.folder(static), "shard-*")]
    assert sorted(sizes) == [1, 3]
    assert content_of(store, static) == before
    assert plan_merges(store, static, target_bytes=1000) == []


def test_of_two_that_merge_the_same_shards_one_does_and_nothing_is_doubled(open_store, root, filled, static):
    before = content_of(filled, static)
    (sources,) = plan_merges(filled, static)
    other = open_store(root)
    real = filled.manifest.move

    def when_the_other_is_done(*values):
        assert len(rewrite(other, static, sources)) == 1
        return real(*values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filled.manifest, "move", when_the_other_is_done)
        assert rewrite(filled, static, sources) == []
    assert content_of(filled, static) == before
    assert filled.manifest.table.check() == 19
    assert len(matching(filled.folder(static), "shard-*")) == 1
    assert rewrite(filled, static, sources) == []


def test_damaged_source_is_named_and_everything_stays(filled, static):
    (sources,) = plan_merges(filled, static)
    shard = filled.shards(static)[2]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match=shard.name):
        rewrite(filled, static, sources)
    assert len(filled.shards(static)) == 10


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_converting_there_and_back_loses_nothing(open_store, root, draw, static, dtype):
    store = open_store(root, dtype=dtype)
    for name in ("a.mp4", "b.mp4"):
        store.write(static, [draw(name), draw(f"more {name}", tokens=9)])
    before = content_of(store, static)
    for format in ("hdf5", "parquet", "hdf5", "parquet"):
        for shard in shards_to_convert(store, static, format):
            rewrite(store, static, [shard], format)
        assert shards_to_convert(store, static, format) == []
        assert content_of(store, static) == before
        assert len(matching(store.folder(static), "shard-*")) == 2
        assert read_header(store.shards(static)[0], FeatureStore(root, format)._format).dtype == dtype


@on_this_machine
def test_readers_find_every_video_once_while_shards_are_merged_and_converted(open_store, root, draw, static):
    store = open_store(root)
    names = {f"{number}.mp4" for number in range(12)}
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
        for step in range(2, 9):
            compact(store, static, target_bytes=3 * 8 * 4 * step)
            for shard in store.shards(static)[: step % 3]:
                rewrite(store, static, [shard.name], "hdf5" if shard.suffix == ".parquet" else "parquet")
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


@on_this_machine
def test_nothing_is_garbage_while_a_score_cannot_be_read(root, referred_to):
    (part,) = (root / "scores").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"scores/traits/1/part-.* is damaged"):
        unused_families(root, idle_s=0)


def test_what_a_running_extraction_fills_is_no_garbage(root, families, draw):
    """Its first shard may take longer than gc waits, and it claims the faces for all that it makes from them."""
    for name in ("old faces", "unused"):
        FeatureStore(root).write(families[name], [draw("a.mp4", families[name])])
    with Leases(root, families["old faces"].key, beat_s=0.05) as leases:
        leases.claim(lambda claimed: dict.fromkeys("ab"))
        assert unused_families(root, idle_s=0) == []
        leases.release()
        assert set(unused_families(root, idle_s=0)) == {families["old faces"], families["unused"]}
    with Leases(root, "0" * 16, beat_s=0.05) as leases:  # of a family that has no shard yet
        leases.claim(lambda claimed: dict.fromkeys("ab"))
        assert unused_families(root, idle_s=0) == []


def test_nothing_is_removed_from_under_a_command_that_reads(root, families, draw):
    FeatureStore(root).write(families["unused"], [draw("a.mp4", families["unused"])])
    with at_work(root, "train"), at_work(root, "train"):
        assert unused_families(root, idle_s=0) == []
        with pytest.raises(StoreError, match="a run works on"):
            erase(root, find_traces(root, ["a.mp4"]))
    assert unused_families(root, idle_s=0) == [families["unused"]]
    erase(root, find_traces(root, ["a.mp4"]))
    assert FeatureStore(root).done(families["unused"]) == {}


@on_this_machine
@pytest.mark.parametrize("days", [-2, 2])
def test_a_wrong_clock_makes_no_garbage(tmp_path, referred_to, monkeypatch, days):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + days * 86_400)
    orphan = FeatureStore(tmp_path).folder(referred_to["faces"]) / "shard-000000000009-0123456789ab.parquet"
    orphan.write_bytes(b"not committed yet")
    assert unused_families(tmp_path) == []
    assert leftovers(tmp_path) == []


@on_this_machine
def test_what_killed_writers_left_goes_when_it_is_old_and_no_claim_is_older(tmp_path, filled, draw, static):
    before = content_of(filled, static)
    file = filled.folder(static) / f".tmp-0123456789ab-{filled.shards(static)[0].name}"
    file.write_bytes(b"half")
    folder = tmp_path / "models" / "traits" / ".tmp-0123456789ab-1"
    (folder / "deeper").mkdir(parents=True)
    orphan = filled.folder(static) / f"shard-000000000099-0123456789ab{filled.shards(static)[0].suffix}"
    orphan.write_bytes(filled.shards(static)[0].read_bytes())  # whose writer was killed before its commit
    assert leftovers(tmp_path) == []
    with Leases(tmp_path, static.key, beat_s=0.05) as leases:
        leases.claim(lambda claimed: dict.fromkeys("ab"))
        os.utime(folder, (time.time() - 60,) * 2)
        assert set(leftovers(tmp_path, idle_s=0)) >= {file, folder}
        younger = tmp_path / "features" / ".tmp-younger"
        younger.write_bytes(b"of the claim's holder")
        assert younger not in leftovers(tmp_path, idle_s=0)
        younger.unlink()
    assert set(leftovers(tmp_path, idle_s=0)) == {file, folder, orphan}
    for path in leftovers(tmp_path, idle_s=0):
        remove_leftover(path)
    assert leftovers(tmp_path, idle_s=0) == []
    clean_tables(tmp_path, idle_s=0)
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
            rewrite(store, static, [shard.name], "hdf5" if shard.suffix == ".parquet" else "parquet")
        assert content_of(store, static) == truth


def test_features_that_a_starting_run_counts_on_are_not_unused(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4")])
    for path in store.folder(static).iterdir():
        os.utime(path, (time.time() - 3 * DAY_S,) * 2)
    assert unused_families(tmp_path) == [static]
    store.touch(static)
    assert unused_families(tmp_path) == []
    FeatureStore(tmp_path / "empty").touch(static)
    assert FeatureStore(tmp_path / "empty").families() == []

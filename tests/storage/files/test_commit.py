"""Whole or not at all, whatever happens to the writer."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from storage import FeatureStore, StoreError
from storage.files.commit import commit_file, commit_folder, create_file


def visible(folder) -> set[str]:
    return {path.name for path in folder.rglob("*") if not path.name.startswith(".")}


class Refusing:
    """Counts the calls of a function of the system, and lets the n-th fail as a full disk would."""

    def __init__(self, function, fail_at: int | None = None) -> None:
        self._function = function
        self._fail_at = fail_at
        self.calls = 0

    def __call__(self, *arguments, **options):
        self.calls += 1
        if self.calls == self._fail_at:
            raise OSError(28, "No space left on device")
        return self._function(*arguments, **options)


@pytest.mark.parametrize("name", ["open", "fsync", "replace", "mkdir"])
def test_refused_call_leaves_each_file_absent_or_whole_and_the_next_try_succeeds(
    tmp_path, monkeypatch, draw, static, name
):
    original = getattr(os, name)
    undisturbed = Refusing(original)
    monkeypatch.setattr(os, name, undisturbed)
    FeatureStore(tmp_path / "undisturbed").write(static, [draw("a.mp4")])
    assert undisturbed.calls > 0
    for call in range(1, undisturbed.calls + 1):
        root = tmp_path / f"{name}-{call}"
        monkeypatch.setattr(os, name, Refusing(original, fail_at=call))
        try:
            FeatureStore(root).write(static, [draw("a.mp4")])
            committed = True
        except StoreError as error:
            assert "No space left on device" in str(error)  # noqa: PT017 - or it was a call that can do without
            assert "\n" not in str(error)  # noqa: PT017
            committed = False
        monkeypatch.setattr(os, name, original)
        left = {path.name for path in root.rglob("*") if path.is_file()}
        shards = {file for file in left if file.startswith("shard-")}
        if not shards:  # or else all was committed, and then syncing the log failed
            assert not committed
            others = {file for file in left if not file.startswith("part-")}  # data that no commit names
            assert others <= {"_family.json", f"{0:020d}.json"}  # that there is a table; no temporary file stays
        assert set(FeatureStore(root).done(static)) == ({"a.mp4"} if shards else set())
        FeatureStore(root).write(static, [draw("a.mp4")])
        assert [video.video_id for video in FeatureStore(root).read(static)] == ["a.mp4"]


@pytest.mark.parametrize("size", [0, 4, 100, 1500])
def test_write_that_runs_out_of_room_leaves_no_shard(tmp_path, draw, static, size):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4")])
    before = visible(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(StoreError, match=str(tmp_path)):
            store.write(static, [draw("b.mp4")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert visible(tmp_path) == before
    assert set(store.done(static)) == {"a.mp4"}


def test_bug_in_the_middle_of_a_write_leaves_no_shard_and_stays_what_it_is(tmp_path, monkeypatch, draw, static):
    def fail(*_arguments, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr(pq.ParquetWriter, "add_key_value_metadata", fail)
    with pytest.raises(ZeroDivisionError):
        FeatureStore(tmp_path).write(static, [draw("a.mp4")])
    assert not any("shard-" in path.name for path in tmp_path.rglob("*"))


WRITER = """
import hashlib, sys
import numpy as np
from storage import Family, FeatureStore, VideoFeatures
family, store = Family("static", 2048, {}), FeatureStore(sys.argv[1])
times = np.arange(64.0)
for number in range(100_000):
    name = f"{sys.argv[2]}-{number}.mp4"
    vectors = np.full((64, 2048), number, np.float32) + np.random.default_rng(0).random((64, 2048), np.float32)
    store.write(family, [VideoFeatures(name, hashlib.sha256(name.encode()).hexdigest(), vectors, times, times, {})])
    print(name, flush=True)
"""


def test_kill_in_mid_write_loses_nothing_that_was_committed_and_shows_nothing_torn(tmp_path):
    from storage import Family

    family = Family("static", 2048, {})
    committed = []
    for attempt, delay_s in enumerate((0.0, 0.013, 0.029, 0.051)):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            committed.append(writer.stdout.readline().strip())
            time.sleep(delay_s)
            writer.send_signal(signal.SIGKILL)
            committed += writer.stdout.read().split()
        store = FeatureStore(tmp_path)
        read = [video.video_id for video in store.read(family)]  # every checksum is right
        assert len(set(read)) == len(read)
        assert set(store.done(family)) == set(read)
        assert set(committed) <= set(read)
        # The one shard that may have been committed without its having been said so, for each kill.
        assert len(read) <= len(committed) + attempt + 1


def test_readers_pass_over_what_a_killed_writer_left(tmp_path, draw, static):
    store = FeatureStore(tmp_path)
    store.write(static, [draw("a.mp4")])
    (shard,) = (tmp_path / "features/static" / static.key).glob("shard-*")
    shard.with_name(f".tmp-0123456789ab-{shard.name}").write_bytes(b"PAR1 half a sh")
    (shard.parent / "notes.txt").touch()
    assert set(FeatureStore(tmp_path).done(static)) == {"a.mp4"}
    assert len(list(FeatureStore(tmp_path).read(static))) == 1


def test_file_is_replaced_only_when_the_block_ends_well(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with commit_file(target) as temporary:
        temporary.write_text("old")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), commit_file(target) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert target.read_text() == "old"
    with commit_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_folder_appears_whole_and_never_replaces_another(tmp_path):
    target = tmp_path / "new" / "1"
    with commit_folder(target, mark="a.txt") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a.txt").write_text("first")
        assert not target.exists()
    with pytest.raises(FileExistsError), commit_folder(target, mark="a.txt") as temporary:
        (temporary / "b.txt").write_text("second")
    with pytest.raises(ZeroDivisionError), commit_folder(tmp_path / "new" / "2", mark="b.txt") as temporary:
        (temporary / "b.txt").write_text(f"half {1 / 0}")
    assert visible(tmp_path) == {"new", "1", "inner", "a.txt"}
    assert list(target.parent.iterdir()) == [target]


def test_one_of_many_creates_a_file_and_nobody_sees_it_half_written(tmp_path):
    target = tmp_path / "new" / "a.txt"
    texts = [str(number).encode() * 100_000 for number in range(8)]
    with ThreadPoolExecutor(len(texts)) as pool:
        created = list(pool.map(lambda text: (create_file(target, text), target.read_bytes()), texts))
    (winner,) = (number for number, (done, _) in enumerate(created) if done)
    assert {seen for _, seen in created} == {texts[winner]}
    assert not create_file(target, b"later")
    assert target.read_bytes() == texts[winner]
    assert list(target.parent.iterdir()) == [target]


def test_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match=str(tmp_path / "file")),
        commit_file(tmp_path / "file/deeper/a.txt"),
    ):
        pass

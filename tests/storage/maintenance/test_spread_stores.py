"""Stores spread over several disks by links: everything works as in one folder, and no link leads to harm."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import FeatureStore, StoreError
from storage.errors import UnreachableError
from storage.files.commit import commit_file, move, remove_files
from storage.files.paths import everything_below, listing
from storage.maintenance.erasing import erase, find_traces
from storage.maintenance.garbage import leftovers, remove_family, remove_leftover, unused_families
from storage.maintenance.survey import survey
from storage.maintenance.verification import find_problem, parts, repair

DISKS = (Path("/dev/shm"), Path("/var/tmp"))
LINKED = ("manifest", "features", "features/static", "family", "shards")


@pytest.fixture
def other_disk(tmp_path) -> Iterator[Path]:
    """A folder on another file system."""
    others = [disk for disk in DISKS if disk.is_dir() and disk.stat().st_dev != tmp_path.stat().st_dev]
    if not others:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir=others[0]) as folder:
        yield Path(folder)


def put(path: Path, disk: Path) -> Path:
    """Move a file or folder to another disk, and leave a link in its place."""
    target = disk / path.name
    shutil.move(path, target)
    path.symlink_to(target)
    return target


@pytest.fixture(params=LINKED)
def spread(request, open_store, tmp_path, other_disk, draw, static) -> FeatureStore:
    """A store with two shards, of which some part lies on another disk."""
    store = open_store(tmp_path / "store")
    store.write(static, [draw("a.mp4"), draw("b.mp4")])
    store.write(static, [draw("c.mp4")])
    if request.param == "shards":
        for shard in store.shards(static):
            put(shard, other_disk)
    else:
        put(store.folder(static) if request.param == "family" else store.root / request.param, other_disk)
    return open_store(store.root)


def names(store: FeatureStore, static) -> list[str]:
    return sorted(video.video_id for video in store.read(static))


def problems(store: FeatureStore) -> list[tuple[str, str]]:
    found = [find_problem(part) for part in parts(store.root)]
    return [(problem.part.path.name, problem.trouble) for problem in found if problem is not None]


def mend(store: FeatureStore) -> None:
    for problem in filter(None, map(find_problem, parts(store.root))):
        repair(problem)


def everything(folder: Path) -> list[Path]:
    return sorted(path for path in everything_below(folder) if path.is_file() and not path.name.startswith(".tmp-"))


def test_a_spread_store_reads_writes_and_counts_like_any(spread, static, draw):
    assert names(spread, static) == ["a.mp4", "b.mp4", "c.mp4"]
    spread.write(static, [draw("d.mp4")])
    assert len(names(spread, static)) == 4
    found = survey(spread, static)
    assert (found.shards, found.missing) == (3, 0)
    assert found.bytes == sum(path.stat().st_size for path in spread.shards(static))
    assert problems(spread) == []


def test_a_damaged_shard_goes_to_the_quarantine_across_disks(spread, static, other_disk):
    shard = spread.shards(static)[0]
    bytes_of_shard = bytearray(shard.read_bytes())
    bytes_of_shard[len(bytes_of_shard) // 2] ^= 1
    shard.write_bytes(bytes_of_shard)
    assert [name for name, _ in problems(spread)] == [shard.name]
    mend(spread)
    aside = spread.root / "quarantine" / shard.relative_to(spread.root)
    assert aside.read_bytes() == bytes_of_shard
    assert not aside.is_symlink()
    assert not os.path.lexists(shard)
    assert [path.name for path in everything(other_disk)].count(shard.name) == 0
    assert names(spread, static) == ["c.mp4"]
    assert problems(spread) == []


def test_a_damaged_manifest_is_rewritten_where_it_was(spread, static, draw):
    log = next((spread.root / "manifest" / "_delta_log").glob("*.json"))
    log.write_text("{")
    was_link = (spread.root / "manifest").is_symlink()
    store = FeatureStore(spread.root)
    assert ("manifest", "damaged") in problems(store)
    mend(store)
    assert (store.root / "quarantine" / "manifest" / "_delta_log" / log.name).read_text() == "{"
    assert (store.root / "manifest").is_symlink() == was_link
    store = FeatureStore(store.root)
    assert names(store, static) == ["a.mp4", "b.mp4", "c.mp4"]
    store.write(static, [draw("d.mp4")])
    assert len(names(store, static)) == 4


def test_gc_removes_a_family_and_its_bytes_wherever_they_are(spread, static, other_disk):
    (other_disk / "my.txt").write_text("not of the store")
    assert unused_families(spread.root, idle_s=-10) == [static]
    remove_family(spread.root, static)
    assert FeatureStore(spread.root).families() == []
    kept = {path.name for folder in (spread.root / "features", other_disk) for path in everything(folder)}
    assert not any(name.startswith(("shard-", "_family")) for name in kept)
    assert (other_disk / "my.txt").read_text() == "not of the store"
    assert unused_families(spread.root, idle_s=-10) == []


def test_gc_finds_what_killed_writers_left_behind_links(spread, static):
    orphan = spread.folder(static) / "shard-000000000009-aaaaaaaaaaaa.parquet"
    temporary = spread.folder(static) / ".tmp-0123-shard-x.parquet"
    for path in (orphan, temporary):
        path.write_bytes(b"part")
        os.utime(path, (time.time() - 9e5,) * 2)
    assert leftovers(spread.root) == sorted([orphan, temporary])
    for path in leftovers(spread.root):
        remove_leftover(path)
    assert leftovers(spread.root) == []
    assert names(spread, static) == ["a.mp4", "b.mp4", "c.mp4"]


def test_an_erased_video_is_on_no_disk(spread, static, other_disk):
    erase(spread.root, find_traces(spread.root, ["a.mp4"]))
    assert names(FeatureStore(spread.root), static) == ["b.mp4", "c.mp4"]
    for path in {*everything(spread.root), *everything(other_disk)}:
        assert b"a.mp4" not in path.read_bytes(), path


def test_a_disk_that_is_not_there_costs_nothing(spread, static, other_disk, tmp_path):
    """Nothing counts as gone while a link leads nowhere; afterwards, all is as before."""
    (link,) = [path for path in everything_below(spread.root) if path.is_symlink()][:1]
    target = link.readlink()
    away = target.rename(other_disk / "away")
    if link.parent == spread.folder(static):  # the other shard is there
        assert (link.name, "unreachable") in problems(spread)
        mend(spread)
    else:
        for use in (lambda: FeatureStore(spread.root), lambda: parts(spread.root), lambda: leftovers(spread.root)):
            with pytest.raises(UnreachableError, match=r"is a link to .*, which is not there: mount its disk"):
                use()
    away.rename(target)
    assert names(FeatureStore(spread.root), static) == ["a.mp4", "b.mp4", "c.mp4"]


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to a folder"])
@pytest.mark.parametrize("full", [False, True])
def test_a_move_between_disks_is_whole_or_can_be_repeated(tmp_path, other_disk, monkeypatch, kind, full):
    source = other_disk / "source"
    if "file" in kind:
        source.write_text("content")
    else:
        (source / "below").mkdir(parents=True)
        (source / "below" / "file").write_text("content")
    path = source
    if "link" in kind:
        path = tmp_path / "source"
        path.symlink_to(source)
    target = tmp_path / "quarantine" / "source"
    if full:
        with monkeypatch.context() as patch:

            def refuse(*_: object, **__: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(shutil, "copyfile", refuse)
            patch.setattr(shutil, "copytree", refuse)
            with pytest.raises(StoreError, match="the disk is full"):
                move(path, target)
        assert not target.exists()
        assert [path.name for path in everything(other_disk)] == ["source" if "file" in kind else "file"]
    move(path, target)
    assert (target if "file" in kind else target / "below" / "file").read_text() == "content"
    assert everything(other_disk) == []
    assert path.exists() == (kind == "link to a folder")  # which is empty now
    assert [found for found in tmp_path.rglob(".tmp-*")] == []


def test_removing_a_link_spares_files_of_other_names(tmp_path, other_disk):
    (other_disk / "thesis.pdf").write_text("years of work")
    shard = tmp_path / "shard-1.parquet"
    shard.symlink_to(other_disk / "thesis.pdf")
    remove_files([shard])
    assert not os.path.lexists(shard)
    assert (other_disk / "thesis.pdf").read_text() == "years of work"
    (tmp_path / ".tmp-abc").symlink_to(other_disk)
    remove_leftover(tmp_path / ".tmp-abc")
    assert (other_disk / "thesis.pdf").exists()


def test_links_in_circles_are_walked_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "back").symlink_to(tmp_path)
    with commit_file(tmp_path / "a" / "file") as temporary:
        temporary.write_text("x")
    assert sorted(path.name for path in everything_below(tmp_path)) == ["a", "b", "back", "file"]
    assert set(listing(tmp_path / "a")) == {"file"}

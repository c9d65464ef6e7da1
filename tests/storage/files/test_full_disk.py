"""A disk that is really full, at every size: one line that says so, nothing half done, and the next run completes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from trait_csv import read_trait_csv, write_trait_csv

from storage import Failure, FailureLog, Family, FeatureStore, Score, ScoreStore, StoreError
from storage.files.commit import commit_file, commit_folder

TRAITS = ("o", "c", "e", "a", "n")
PAGE = os.sysconf("SC_PAGESIZE")
LOG = {f"{0:020d}.json"}  # that there is a table, without any rows
WIDE = Family("static", 512, {"weights": "random"}, ("face_coverage",))
SCORES = [
    Score(f"{number:04d}.mp4", "0" * 64, tuple(np.random.default_rng(number).random(5)), 1, 16, 6, "s", "d", "random")
    for number in range(200)
]
FAILURES = [Failure(f"{number}.mp4", "0" * 64, "k", "faces", "no_face", f"{number} faces", 1) for number in range(300)]


def save_model(root: Path) -> None:
    target = root / "models" / "main" / "1"
    if not target.exists():
        with commit_folder(target, mark="history.json") as temporary:
            for name in ("model.keras", "history.json"):
                (temporary / name).write_bytes(name.encode() * 1000)


def write_page(root: Path) -> None:
    with commit_file(root / "reports" / "page.html") as temporary:
        temporary.write_text("<html>" * 2000, encoding="utf-8")


def writers(format: str, videos) -> dict[str, Callable[[Path], object]]:
    """What a run writes, in its order; each leaves alone what is there."""

    def shard(root: Path) -> None:
        store = FeatureStore(root, format)
        left = [video for video in videos if store.done(WIDE).get(video.video_id) != video.video_sha256]
        if left:
            store.write(WIDE, left)

    def failures(root: Path) -> None:
        if FailureLog(root).current() != sorted(FAILURES, key=lambda row: row.video_id):
            FailureLog(root).add(FAILURES)

    def scores(root: Path) -> None:
        if list(ScoreStore(root).read("main", "1")) != SCORES:
            ScoreStore(root).write("main", "1", SCORES)

    def trait_csv(root: Path) -> None:
        rows = SCORES
        write_trait_csv(root / "exports" / "traits.csv", rows, trait_names=TRAITS, model="main/1")

    return {
        "shard": shard,
        "failures": failures,
        "model": save_model,
        "scores": scores,
        "trait CSV": trait_csv,
        "report": write_page,
    }


def check_all(root: Path, videos, assert_same) -> None:
    found = {video.video_id: video for video in FeatureStore(root).read(WIDE)}
    assert set(found) == {video.video_id for video in videos}
    for video in videos:
        assert_same(found[video.video_id], video)
    assert len(FailureLog(root).current()) == len(FAILURES)
    assert list(ScoreStore(root).read("main", "1")) == SCORES
    rows = read_trait_csv(root / "exports" / "traits.csv", trait_names=TRAITS)
    assert [row.video_id for row in rows] == [score.video_id for score in SCORES]
    assert {path.name for path in (root / "models/main/1").iterdir()} == {"model.keras", "history.json"}
    assert (root / "reports" / "page.html").read_text() == "<html>" * 2000


def files_of(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


def work(root: Path, steps: dict[str, Callable[[Path], object]]) -> str:
    """Work like a run until the disk is full; returns at which step that was, or an empty text."""
    for name, step in steps.items():
        before = files_of(root)
        try:
            step(root)
        except StoreError as error:
            message = str(error)
            assert "No space left on device" in message, message
            assert str(root) in message
            assert "\n" not in message
            assert {path.name for path in files_of(root) - before} <= {"_family.json", *LOG}
            assert before <= files_of(root)
            return name
    return ""


@pytest.mark.parametrize("format", ["parquet", "hdf5"])
@pytest.mark.parametrize("limit", ["bytes", "files"])
def test_disk_of_every_size_is_said_to_be_full_and_a_larger_one_is_gone_on_with(
    small_disk, draw, assert_same, format, limit
):
    videos = [draw(f"{number}.mp4", WIDE, tokens=16) for number in range(4)]
    steps = writers(format, videos)
    disk = small_disk(PAGE)
    root = disk.folder / "store"
    full_at: dict[str, int] = dict.fromkeys(steps, 0)
    for step in range(1, 10_000):
        disk.resize(*((step * PAGE,) if limit == "bytes" else (2**24, step)))
        name = work(root, steps)
        if not name:
            break
        full_at[name] += 1
    check_all(root, videos, assert_same)
    where = ", ".join(f"{name} {count}" for name, count in full_at.items())
    what = f"{disk.used / 1e3:.0f} kB" if limit == "bytes" else f"{step} files and folders"
    print(f"{format}: a disk full at each of {step - 1} sizes in {limit} up to {what} ({where}); all whole at the end")
    assert full_at["shard"] > 0
    assert sum(count > 0 for count in full_at.values()) >= 4


@pytest.mark.parametrize("format", ["parquet", "hdf5"])
def test_run_goes_on_where_the_disk_was_full_once_there_is_room(small_disk, draw, assert_same, format):
    family = Family("static", 2048, {"weights": "random"}, ("face_coverage", "face_score"))
    videos = {f"{number}.mp4": draw(f"{number}.mp4", family, tokens=16) for number in range(96)}
    disk = small_disk(8_000_000)
    other = disk.folder / "somebody else's"
    other.write_bytes(bytes(2_000_000))
    root = disk.folder / "store"

    def extract() -> int:
        store, shards = FeatureStore(root, format), 0
        left = [video for name, video in videos.items() if store.done(family).get(name) != video.video_sha256]
        for first in range(0, len(left), 8):
            store.write(family, left[first : first + 8])
            shards += 1
        return shards

    with pytest.raises(StoreError, match=r"store/.*No space left on device"):
        extract()
    kept = FeatureStore(root).done(family)
    assert 0 < len(kept) < len(videos)
    assert [path for path in root.rglob(".tmp-*")] == []
    for video in FeatureStore(root).read(family):
        assert_same(video, videos[video.video_id])
    other.unlink()
    with pytest.raises(StoreError, match="No space left on device"):
        extract()
    more = FeatureStore(root).done(family)
    assert len(more) > len(kept)
    disk.resize(2**26)
    extract()
    found = {video.video_id: video for video in FeatureStore(root).read(family)}
    assert set(found) == set(videos)
    for name, video in videos.items():
        assert_same(found[name], video)
    assert len(FeatureStore(root).shards(family)) == len(videos) // 8
    print(f"{format}: full after {len(kept)} videos, after {len(more)} with 2 MB freed, all {len(found)} with room")


def test_csv_that_does_not_fit_leaves_the_older_one(small_disk):
    disk = small_disk(4 * PAGE)
    path = disk.folder / "traits.csv"
    write_trait_csv(path, [SCORES[0]], trait_names=TRAITS, model="main/1")
    older = path.read_bytes()
    rows = [dataclasses.replace(score, weights="w" * 100) for score in SCORES]
    with pytest.raises(StoreError, match=r"traits\.csv.*No space left on device"):
        write_trait_csv(path, rows, trait_names=TRAITS, model="main/1")
    assert path.read_bytes() == older
    assert list(disk.folder.iterdir()) == [path]

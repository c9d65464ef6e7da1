from __future__ import annotations

import hashlib
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from prefect import Flow

from flows.archive.videos import Archive, VideoFile, digests, scan_videos
from flows.archive.videos import archive as archive_module
from flows.archive.videos import folder as folder_module
from flows.session.errors import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "videos"
    for name in ("b.MP4", "-a.mp4", "more/b.MP4", "more/deep/c.mov", "notes.txt", ".hidden.mp4", ".trash/d.mp4"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def ids(videos) -> list[str]:
    return [video.video_id for video in videos]


def test_videos_are_found_in_all_subfolders_and_sorted_by_id(folder, tmp_path):
    videos = scan_videos(folder, tmp_path / "digests.parquet")
    assert ids(videos) == ["-a.mp4", "b.MP4", "more/b.MP4", "more/deep/c.mov"]
    assert ids(videos) == sorted(ids(videos))


def test_digest_is_the_sha256_of_the_bytes(folder, tmp_path):
    for video in scan_videos(folder, tmp_path / "digests.parquet"):
        assert video.sha256 == hashlib.sha256(video.path.read_bytes()).hexdigest()


def test_changed_bytes_change_the_digest_at_the_next_scan(folder, tmp_path):
    before = scan_videos(folder, tmp_path / "digests.parquet")
    (folder / "b.MP4").write_bytes(b"other")
    after = scan_videos(folder, tmp_path / "digests.parquet")
    assert [a.video_id for a, b in zip(before, after, strict=True) if a.sha256 != b.sha256] == ["b.MP4"]
    assert after[1].sha256 == hashlib.sha256(b"other").hexdigest()


def test_unchanged_files_are_not_read_again(folder, tmp_path, monkeypatch):
    before = scan_videos(folder, tmp_path / "digests.parquet")
    monkeypatch.delattr(digests, "sha256_of")
    assert list(scan_videos(folder, tmp_path / "digests.parquet")) == list(before)


def test_bytes_that_change_behind_the_time_of_modification_have_a_new_digest(folder, tmp_path):
    scan_videos(folder, tmp_path / "digests.parquet")
    path, status = folder / "b.MP4", (folder / "b.MP4").stat()
    while path.stat().st_ctime_ns == status.st_ctime_ns:  # the system's clock has ticks
        path.write_bytes(b"X" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = scan_videos(folder, tmp_path / "digests.parquet")
    assert after[1].sha256 == hashlib.sha256(b"X" * status.st_size).hexdigest()


@pytest.mark.parametrize("time_s", [10**10, 2**63 / 10**9, -1, -(2**40)], ids=["2286", "2262", "1969", "before Christ"])
def test_a_file_of_any_time_has_a_digest_that_is_kept(folder, tmp_path, monkeypatch, time_s):
    os.utime(folder / "b.MP4", (time_s, time_s))
    before = scan_videos(folder, tmp_path / "digests.parquet")
    assert before[1].sha256 == hashlib.sha256((folder / "b.MP4").read_bytes()).hexdigest()
    monkeypatch.delattr(digests, "sha256_of")
    assert list(scan_videos(folder, tmp_path / "digests.parquet")) == list(before)


AWKWARD = [
    "a",
    "a/b",
    "a-b",
    "a b",
    "A",
    "é",
    "e\u0301",
    "\U0001f600",
    "line\nbreak",
    "-rf",
    "a\\b",
    os.fsdecode(b"caf\xe9"),
]


@pytest.mark.parametrize("seed", range(3))
def test_after_any_edits_ids_and_digests_are_those_of_the_files(tmp_path, monkeypatch, seed):
    """Two folders take turns on one cache, which is sometimes damaged; a few videos at a time are in memory."""
    monkeypatch.setattr(folder_module, "VIDEOS_AT_A_TIME", 3)
    rng = random.Random(seed)
    cache, folders = tmp_path / "digests.parquet", [tmp_path / "one", tmp_path / "two é"]
    for place in folders:
        place.mkdir()
    for turn in range(30):
        place = rng.choice(folders)
        for name in rng.sample(AWKWARD, 4):
            path = place / f"{name}.mp4"
            if rng.random() < 0.3:
                path.unlink(missing_ok=True)
            elif rng.random() < 0.2 and path.exists():
                path.touch()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(f"{rng.randrange(3)}", "ascii"))
        if turn % 5 == 4 and cache.exists():
            data = bytearray(cache.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            cache.write_bytes(data[: rng.choice([len(data), len(data) // 2, 0])])
        files = [path for path in place.rglob("*.mp4") if path.is_file()]
        truth = {
            os.fsencode(path.relative_to(place)).decode("utf-8", "backslashreplace"): (
                path,
                hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in files
        }
        if truth:
            found = scan_videos(place, cache)
            assert [(video.video_id, (video.path, video.sha256)) for video in found] == sorted(truth.items())


def test_progress_counts_every_file(folder, tmp_path):
    seen = []
    scan_videos(folder, tmp_path / "digests.parquet", lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.touch()])
def test_no_folder_or_one_without_videos_is_a_users_mistake(tmp_path, make):
    make(tmp_path / "videos")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "videos"))):
        scan_videos(tmp_path / "videos", tmp_path / "digests.parquet")


def test_a_name_that_is_no_utf8_becomes_an_id_that_a_csv_can_hold(tmp_path):
    (tmp_path / "videos").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "videos") + b"/caf\xe9.mp4")).touch()
    assert ids(scan_videos(tmp_path / "videos", tmp_path / "digests.parquet")) == ["caf\\xe9.mp4"]


def test_prefect_keeps_no_list_of_the_videos():
    """It refuses a flow whose parameters take more than 512 KiB, and an archive of 10,000 clips would."""
    archive = Archive(VideoFile(f"{number:08d}.mp4", Path("videos"), "0" * 64) for number in range(10_000))
    assert Flow(lambda videos: None, name="any").serialize_parameters({"videos": archive}) == {"videos": "<Archive>"}
    assert (len(archive), archive[-1].video_id) == (10_000, "00009999.mp4")


def test_an_archive_gives_its_videos_back(monkeypatch):
    monkeypatch.setattr(archive_module, "VIDEOS_AT_A_TIME", 3)
    folder = Path("/archive/first interviews")
    videos = [
        VideoFile(f"person/{number:02d}.mp4", folder / f"person/{number:02d}.mp4", f"{number:064x}")
        for number in range(10)
    ]
    elsewhere = Path(os.fsdecode(b"/archive/first interviews/caf\xe9.mp4"))
    videos[4:6] = [VideoFile("person/04.mp4", Path("04.mp4"), ""), VideoFile("person/05\\xe9.mp4", elsewhere, "0" * 64)]
    archive = Archive(iter(videos))
    assert (len(archive), list(archive), archive[-1], archive[2:8]) == (10, videos, videos[-1], videos[2:8])
    assert [archive[row] for row in range(10)] == videos
    for rows in ([], [8], [7, 0, 9, 3, 0, 2, 8, 5]):
        assert archive.ids(np.array(rows, int)) == [videos[row].video_id for row in rows]
    assert list(Archive(VideoFile(f"{n}.mp4", Path(f"{n}.mp4"), "") for n in range(3)))[2].path == Path("2.mp4")
    assert list(Archive(())) == []

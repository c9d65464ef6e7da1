"""Lists of videos: they stand for the same videos, with the same ids, as the folder."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.archive.videos import listed as listed_module
from flows.archive.videos import scan_videos, videos_of
from flows.archive.videos.listed import Listed, videos_of_list
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.session.errors import UserError

NFC, NFD = (unicodedata.normalize(form, "Zoë.mp4") for form in ("NFC", "NFD"))
NAMES = (
    "-rf.mp4",
    "a b.mp4",
    "sub/clip.mp4",
    "sub/#1.mp4",
    " odd.mp4",
    "a,b;c.mp4",
    "=1+1.mp4",
    "back\\slash.mp4",
    NFD,
)


@pytest.fixture
def clips(tmp_path) -> Path:
    folder = tmp_path / "clips"
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    with open(os.fsencode(folder) + b"/caf\xe9.mp4", "wb") as file:
        file.write(b"latin")
    return folder


def settings_of(videos: Path, tmp_path: Path, **more: Path) -> RunConfig:
    return load_config(flags={"videos": videos, "store.path": tmp_path / "store", "weights": "random", **more})


def ids_of(listed: Listed) -> list[str]:
    return [video_id for part in listed.videos for video_id in part.to_pylist()]


def write_text(path: Path, names: list[str]) -> None:
    path.write_bytes(b"".join(os.fsencode(name) + b"\n" for name in names))


def write_csv(path: Path, names: list[str], *, column: str = "video_id", delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([["openness", column], *(["0.5", name] for name in names)])


def write_parquet(path: Path, names: list[str]) -> None:
    pq.write_table(pa.table({"n": range(len(names)), "Path": names}), path)


WRITERS = {
    "list.txt": write_text,
    "list.csv": write_csv,
    "semicolons.csv": lambda path, names: write_csv(path, names, delimiter=";", column="File"),
    "list.TSV": lambda path, names: write_csv(path, names, delimiter="\t", column="video"),
    "list.parquet": write_parquet,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_list_of_all_videos_gives_what_the_folder_gives(clips, tmp_path, kind):
    folder = scan_videos(clips, tmp_path / "digests.parquet")
    WRITERS[kind](clips / kind, [video.video_id for video in folder])
    assert list(videos_of(settings_of(clips / kind, tmp_path))) == list(folder)


def test_a_list_elsewhere_takes_paths_relative_to_the_root_that_is_given(clips, tmp_path):
    folder = scan_videos(clips, tmp_path / "digests.parquet")
    lists = tmp_path / "lists"
    lists.mkdir()
    write_text(lists / "train.txt", ["sub/clip.mp4", "./a b.mp4", "sub/../-rf.mp4", "sub//#1.mp4"])
    archive = videos_of(settings_of(lists / "train.txt", tmp_path, videos_root=clips))
    wanted = {"sub/clip.mp4", "a b.mp4", "-rf.mp4", "sub/#1.mp4"}
    assert list(archive) == [video for video in folder if video.video_id in wanted]


def test_absolute_paths_have_the_ids_of_the_folder_by_whatever_name_it_goes(clips, tmp_path):
    (tmp_path / "link").symlink_to(clips)
    write_text(tmp_path / "list.txt", [f"{clips}/sub/clip.mp4", f"{tmp_path}/link/-rf.mp4"])
    for root in (clips, tmp_path / "link"):
        assert ids_of(videos_of_list(tmp_path / "list.txt", root)) == ["-rf.mp4", "sub/clip.mp4"]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("sub\\clip.mp4", "sub/clip.mp4"),
        ("back\\slash.mp4", "back\\slash.mp4"),
        (".\\sub\\clip.mp4", "sub/clip.mp4"),
        (NFC, NFD),
        (NFD, NFD),
        ("  a b.mp4 ", "a b.mp4"),
        (" odd.mp4", " odd.mp4"),
        ("'-rf.mp4", "-rf.mp4"),
        ("'=1+1.mp4", "=1+1.mp4"),
        ("caf\\xe9.mp4", "caf\\xe9.mp4"),
        (os.fsdecode(b"caf\xe9.mp4"), "caf\\xe9.mp4"),
    ],
)
def test_a_path_is_found_however_the_list_spells_it(clips, written, found):
    write_text(clips / "list.txt", [written])
    listed = videos_of_list(clips / "list.txt", clips)
    assert ids_of(listed) == [found]
    assert (clips / listed.spelled.get(found, found)).is_file()


def test_names_that_differ_by_case_or_by_the_form_of_a_letter_alone_are_different_videos(tmp_path):
    alike = sorted(["clip.mp4", "CLIP.MP4", "Clip.mp4", NFC, NFD])
    for name in alike:
        (tmp_path / name).touch()
    if len(os.listdir(tmp_path)) < len(alike):
        pytest.skip("this file system does not tell these names apart")
    write_text(tmp_path / "list.txt", [*alike, "cLIP.mp4"])
    listed = videos_of_list(tmp_path / "list.txt", tmp_path)
    assert ids_of(listed) == sorted([*alike, "cLIP.mp4"])
    assert listed.missing == {"cLIP.mp4": "line 6"}


def test_names_of_many_folders_are_found_though_few_folders_are_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(listed_module, "_MOST_NAMES", 3)
    monkeypatch.setattr(listed_module, "_MOST_FOLDERS", 2)
    names = [f"{folder}/{name}" for name in (NFC, "clip.mp4") for folder in "abcde"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / unicodedata.normalize("NFD", name)).touch()
    write_text(tmp_path / "list.txt", names)
    listed = videos_of_list(tmp_path / "list.txt", tmp_path)
    assert ids_of(listed) == sorted(unicodedata.normalize("NFD", name) for name in names)
    assert not listed.missing


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf-rf.mp4\r\nsub/clip.mp4\r\n",
        "-rf.mp4\r\nsub/clip.mp4".encode("utf-16"),
        b"\n\n-rf.mp4\n  \nsub/clip.mp4\n\n",
    ],
)
def test_marks_line_ends_and_blank_lines_of_other_systems_are_no_part_of_names(clips, data):
    (clips / "list.txt").write_bytes(data)
    assert ids_of(videos_of_list(clips / "list.txt", clips)) == ["-rf.mp4", "sub/clip.mp4"]


def test_missing_videos_are_rows_and_repeated_ones_are_taken_once_and_both_are_said(clips, tmp_path, capsys):
    write_text(clips / "list.txt", ["gone.mp4", "-rf.mp4", "sub\\gone.mp4", "-rf.mp4", "nowhere/x.mp4"])
    archive = videos_of(settings_of(clips / "list.txt", tmp_path))
    ids = [(video.video_id, bool(video.sha256)) for video in archive]
    assert ids == [("-rf.mp4", True), ("gone.mp4", False), ("nowhere/x.mp4", False), ("sub/gone.mp4", False)]
    said = " ".join(capsys.readouterr().err.split())
    for words in ("1 video ", "-rf.mp4 (lines 2, 4)", "3 videos ", "gone.mp4 (line 1), sub/gone.mp4 (line 3)"):
        assert words in said


def test_all_that_cannot_be_used_is_named_at_once_with_its_line(clips, tmp_path):
    os.mkfifo(clips / "pipe.mp4")
    rows = ["-rf.mp4", "/etc/passwd", "../x.mp4", "sub", "", "C:\\clips\\x.mp4", "pipe.mp4", "."]
    write_csv(clips / "list.csv", rows)
    with pytest.raises(UserError) as error:
        videos_of_list(clips / "list.csv", clips)
    for words in (
        "line 3: '/etc/passwd' ",
        "line 4: '../x.mp4' ",
        "line 5: 'sub' ",
        "line 6: ",
        "line 7: 'C:\\\\clips\\\\x.mp4' ",
        "line 8: 'pipe.mp4' ",
        "line 9: '.' ",
        "--videos-root DIR",
    ):
        assert words in str(error.value)
    write_text(clips / "long.txt", ["-rf.mp4"] + ["../x.mp4"] * 1000)
    with pytest.raises(UserError, match="990 more"):
        videos_of_list(clips / "long.txt", clips)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.txt", b"", "empty"),
        ("blank.txt", b"\r\n \n", "empty"),
        ("empty.csv", b"", "empty"),
        ("head.csv", b"video_id\n", "empty"),
        ("other.csv", b"a,b\n1,2\n", "column.*video_id"),
        ("quote.csv", b'video_id\n"open\n', "cannot read"),
        ("bad.parquet", b"PAR1 not", "cannot read"),
        ("wrong.txt", b"x.mp4\ny.mp4\n", "--videos-root DIR"),
    ],
)
def test_a_list_that_is_none_is_a_users_mistake(clips, name, data, words):
    (clips / name).write_bytes(data)
    with pytest.raises(UserError, match=words) as error:
        videos_of_list(clips / name, clips)
    assert name in str(error.value)


def test_a_parquet_list_with_other_columns_or_nulls_is_a_users_mistake(clips):
    pq.write_table(pa.table({"x": ["a.mp4"]}), clips / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet.*column.*video_id"):
        videos_of_list(clips / "x.parquet", clips)
    pq.write_table(pa.table({"path": ["-rf.mp4", None]}), clips / "null.parquet")
    with pytest.raises(UserError, match="row 2: "):
        videos_of_list(clips / "null.parquet", clips)


@pytest.mark.parametrize("name", ["clip.mp4", "list.json", "list"])
def test_a_file_that_is_no_list_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"x.mp4")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / name))):
        videos_of(settings_of(tmp_path / name, tmp_path))


def test_a_root_beside_a_folder_is_refused(clips, tmp_path):
    with pytest.raises(UserError, match="videos_root"):
        videos_of(settings_of(clips, tmp_path, videos_root=tmp_path))


def test_a_list_of_label_rows_is_a_list_of_videos(clips, tmp_path):
    """People have train.csv with the labels in it."""
    write_csv(tmp_path / "train.csv", ["-rf.mp4"], column="name")
    assert ids_of(videos_of_list(tmp_path / "train.csv", clips)) == ["-rf.mp4"]

"""What is found below a videos folder: every video, and a word on whatever is not taken."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from extractors.video.decoding import FORMATS, opened
from flows.archive.videos import videos_of
from flows.archive.videos.folder import OTHER_ENDINGS, VIDEO_ENDINGS, Found, find_videos
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.session.errors import UserError

NOBODY = 65534


def settings_of(tmp_path: Path, videos: Path | str = "videos") -> RunConfig:
    return load_config(flags={"videos": tmp_path / videos, "store.path": tmp_path / "store", "weights": "random"})


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def files_of(folder: Path, found: Found) -> dict[str, Path]:
    """The videos that were found, by id."""
    names = [name for part in found.videos.ascending()[0] for name in part.to_pylist()]
    return {name: folder / found.videos.spelled.get(name, name) for name in names}


def draw(path: Path, format: str, codec: str, *, size: tuple[int, int] = (320, 240), fps: int = 25) -> None:
    """Ten frames of a bar that moves."""
    width, height = size
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv422p" if codec == "mpeg2video" and format == "mxf" else "yuv420p"
        if codec == "dvvideo":
            stream.pix_fmt = "yuv420p"
        for number in range(10):
            picture = np.zeros((height, width, 3), np.uint8)
            picture[:, 4 * number : 4 * number + 40] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


KINDS = [
    (".mxf", "mxf", "mpeg2video"),
    (".vob", "vob", "mpeg2video"),
    (".MOD", "vob", "mpeg2video"),
    (".mpg", "mpeg", "mpeg1video"),
    (".m2v", "mpeg2video", "mpeg2video"),
    (".asf", "asf", "mpeg4"),
    (".3g2", "3g2", "mpeg4"),
    (".F4V", "f4v", "h264"),
    (".qt", "mov", "mpeg4"),
    (".divx", "avi", "mpeg4"),
    (".ogm", "ogg", "libvpx"),
    (".wtv", "wtv", "mpeg2video"),
    (".rm", "rm", "rv20"),
    (".mk3d", "matroska", "mpeg4"),
    (".flv", "flv", "flv1"),
    (".m2ts", "mpegts", "mpeg2video"),
    (".ivf", "ivf", "libvpx"),
    (".nut", "nut", "mpeg4"),
    (".y4m", "yuv4mpegpipe", "wrapped_avframe"),
    (".dv", "dv", "dvvideo"),
]


@pytest.mark.parametrize(("ending", "format", "codec"), KINDS, ids=lambda value: value)
def test_a_file_of_each_format_is_found_and_opens_by_its_ending_and_without_one(tmp_path, ending, format, codec):
    size = (720, 576) if format in ("dv", "mxf") else (352, 288)
    folder = tmp_path / "videos"
    folder.mkdir()
    try:
        draw(folder / f"a{ending}", format, codec, size=size)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write it: {error}")
    (folder / "b").write_bytes((folder / f"a{ending}").read_bytes())
    found = files_of(folder, find_videos(folder))
    assert sorted(path.name for path in found.values()) == ([f"a{ending}", "b"] if signed(ending) else [f"a{ending}"])
    for path in found.values():
        with opened(path) as (_, stream):
            assert stream.height == size[1]


def signed(ending: str) -> bool:
    """Pictures of DV follow each other without anything that would tell them from other files."""
    return ending != ".dv"


def test_every_ending_that_ffmpeg_gives_to_a_format_that_is_opened_is_known():
    named = set()
    for name in FORMATS.split(","):
        named |= {f".{ending}" for ending in av.format.ContainerFormat(name, "r").extensions}
    assert named - VIDEO_ENDINGS - OTHER_ENDINGS <= {".dif", ".ism", ".ogg"}  # told by their content
    assert not VIDEO_ENDINGS & OTHER_ENDINGS


def test_what_is_passed_over_is_counted_by_ending(tmp_path, capsys):
    folder = fill(
        tmp_path / "videos",
        *("a.mp4", "a.jpg", "b.JPG", "c.jpg", "x.txt", "README", "odd.xyz", "sound.m4a", ".hidden.mp4", ".trash/b.mp4"),
        *("half.mp4.part", "lost+found/x"),
    )
    os.mkfifo(folder / "pipe.mp4")
    archive = videos_of(settings_of(tmp_path))
    assert [video.video_id for video in archive] == ["a.mp4"]
    wanted = {".jpg": 3, "hidden": 3, ".txt": 1, ".xyz": 1, ".m4a": 1, ".part": 1, "without an ending": 1, "special": 1}
    assert archive.passed_over == wanted
    assert "Passed over: 3 .jpg, 3 hidden, 1 .m4a" in capsys.readouterr().err
    archive.check_whole()


def test_sound_and_pictures_in_a_videos_container_are_not_taken_for_videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "picture").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (folder / "sound").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    (folder / "ogg.ogg").write_bytes(b"OggS" + bytes(24) + b"\x01vorbis" + bytes(400))
    (folder / "film").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    assert list(files_of(folder, find_videos(folder))) == ["film"]


def test_linked_folders_are_read_once_and_by_their_own_name_if_they_are_in_the_archive(tmp_path):
    folder = fill(tmp_path / "videos", "2026/a.mp4", "b.mp4")
    fill(tmp_path / "disk", "x.mp4", "part/y.mp4")
    (folder / "a-part").symlink_to(tmp_path / "disk" / "part")  # sorts before the folder that holds it
    (folder / "disk").symlink_to(tmp_path / "disk")
    (folder / "latest").symlink_to("2026")
    found = find_videos(folder)
    files = files_of(folder, found)
    assert list(files) == ["2026/a.mp4", "b.mp4", "disk/part/y.mp4", "disk/x.mp4"]
    assert sorted(found.linked_twice) == ["a-part", "latest"]
    assert files["disk/x.mp4"].read_bytes() == b"x.mp4"


def test_links_that_lead_back_end_and_are_named(tmp_path):
    folder = fill(tmp_path / "videos", "a/x.mp4", "b/y.mp4")
    fill(tmp_path, "outside/z.mp4", "beside.mp4")
    (folder / "self").symlink_to(".")
    (folder / "up").symlink_to(tmp_path)
    (folder / "root").symlink_to("/")
    (folder / "a" / "to-b").symlink_to("../b")
    (folder / "b" / "to-a").symlink_to("../a")
    (folder / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(folder)
    (tmp_path / "outside" / "round").symlink_to("round")
    found = find_videos(folder)
    assert list(files_of(folder, found)) == ["a/x.mp4", "b/y.mp4", "out/z.mp4"]
    assert sorted(found.linked_twice) == ["a/to-b", "b/to-a", "out/back", "root", "self", "up"]
    assert list(found.unread) == ["out/round"]


def test_a_link_that_leads_nowhere_is_a_row_or_named_as_a_folder_that_may_be_missing(tmp_path):
    folder = fill(tmp_path / "videos", "a.mp4")
    for name in ("gone.mp4", "train", "notes.txt"):
        (folder / name).symlink_to(tmp_path / "not mounted" / name)
    archive = videos_of(settings_of(tmp_path))
    assert [(video.video_id, bool(video.sha256)) for video in archive] == [("a.mp4", True), ("gone.mp4", False)]
    assert archive.unread == {"train": "a broken link"}
    with pytest.raises(UserError, match="train"):
        archive.check_whole()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can get to, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def as_nobody(place: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a folder as somebody who has no more rights than permissions say; for root they do not count."""
    drop = ""
    if os.geteuid() == 0:
        for path in (place, *place.rglob("*")):
            os.lchown(path, NOBODY, NOBODY)
        # Packages may lie in folders of root's: they are imported before the rights are given up.
        drop = "import os, av, pyarrow.dataset, flows.archive.videos\n"
        drop += f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    command = [sys.executable, "-c", drop + code]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)


# A folder that cannot be read, between two runs that can read it.
THREE_RUNS = """
import os
from pathlib import Path
from flows.config.load import load_config
from flows.session.errors import UserError
from flows.archive.videos import videos_of
config = load_config(flags={"videos": Path("videos"), "store.path": Path("store"), "weights": "random"})
for mode in (0o755, 0, 0o755):
    os.chmod("videos/b", mode)
    archive = videos_of(config)
    print(*([video.video_id for video in archive if bool(video.sha256) is whole] for whole in (True, False)))
    try:
        archive.check_whole()
    except UserError as error:
        print(error)
for name in "a/a.mp4", "ab/e.mp4", "c/c.mp4":
    os.remove(f"videos/{name}")
os.chmod("videos/b", 0)
try:
    videos_of(load_config(flags={"videos": Path("videos"), "store.path": Path("other"), "weights": "random"}))
except UserError as error:
    print(error)
os.chmod("videos/b", 0o755)
"""


def test_a_folder_that_cannot_be_read_is_named_and_its_videos_of_before_stay_rows(place):
    fill(place / "videos", "a/a.mp4", "b/b.mp4", "b/deep/d.mp4", "c/c.mp4", "ab/e.mp4")
    done = as_nobody(place, THREE_RUNS)
    assert done.returncode == 0, done.stderr
    before, without, reason, after, nothing = done.stdout.splitlines()
    assert before == after == "['a/a.mp4', 'ab/e.mp4', 'b/b.mp4', 'b/deep/d.mp4', 'c/c.mp4'] []"
    assert without == "['a/a.mp4', 'ab/e.mp4', 'c/c.mp4'] ['b/b.mp4', 'b/deep/d.mp4']"
    assert "could not be read completely: b (Permission denied)" in reason
    assert "); cannot read b (Permission denied)" in nothing


@pytest.mark.parametrize("number", ["EIO", "ESTALE", "ENOENT"])
def test_a_folder_that_fails_while_it_is_listed_is_named_and_what_came_before_is_kept(tmp_path, monkeypatch, number):
    """No disk that breaks is to be had; the listing breaks as the system call would."""
    folder = fill(tmp_path / "videos", "a.mp4", "b/x.mp4", "b/y.mp4")
    real = os.scandir
    code = getattr(errno, number)

    class Breaks:
        def __init__(self, path):
            self._entries = real(path)

        def __enter__(self):
            return self

        def __exit__(self, *reason):
            self._entries.close()

        def __iter__(self):
            yield next(self._entries)
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "scandir", lambda path: Breaks(path) if str(path).endswith("b") else real(path))
    found = find_videos(folder)
    assert found.unread == {"b": os.strerror(code)}
    assert len(files_of(folder, found)) == 2


@pytest.mark.parametrize(("name", "depth", "unread"), [("d", 1500, {}), ("long" * 50, 25, {"File name too long"})])
def test_a_deep_tree_is_walked_and_what_no_path_can_reach_is_named(tmp_path, name, depth, unread):
    """More folders below each other than Python calls functions, and a path of more than 4,096 bytes."""
    (tmp_path / "videos").mkdir()
    here = os.open(tmp_path / "videos", os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if level in (10, 1400):
            os.close(os.open("deep.mp4", os.O_CREAT, dir_fd=here))
    os.close(here)
    found = find_videos(tmp_path / "videos")
    assert len(files_of(tmp_path, found)) == 1 + (depth > 1400)
    assert set(found.unread.values()) == set(unread)
    subprocess.run(["rm", "-rf", tmp_path / "videos"], check=True)


def test_many_names_that_programs_stumble_over_come_through_a_linked_folder(tmp_path):
    fill(tmp_path / "disk", "-rf.mp4", "line\nbreak.mp4", "é.mp4", "e\u0301.mp4")
    with open(os.fsencode(tmp_path / "disk") + b"/caf\xe9.mp4", "wb"):
        pass
    folder = fill(tmp_path / "videos", "a.mp4")
    (folder / "new\nline").symlink_to(tmp_path / "disk")
    assert list(files_of(folder, find_videos(folder))) == sorted(
        [
            "a.mp4",
            *(f"new\nline/{name}" for name in ("-rf.mp4", "line\nbreak.mp4", "é.mp4", "e\u0301.mp4", "caf\\xe9.mp4")),
        ]
    )

"""Commands on a disk that is full: one line that says so and where, a non-zero exit, and the same command goes on."""

from __future__ import annotations

import shutil

import pytest
from model_version import save_version

from flows.archive.families import families_of
from flows.config.load import load_config
from storage import FeatureStore, Score, ScoreStore


def check_full(result, *places: str) -> None:
    """One line beside the bars, whether or not the run's log could be kept."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("traitline: ")]
    assert "No space left on device" in line
    for place in places:
        assert place in line


@pytest.mark.parametrize(
    ("size", "files", "refused"),
    [(0, 100, "-extract.yaml"), (2**20, 3, "-extract.yaml"), (2**20, 4, "-extract.log"), (2**20, 5, "digests.parquet")],
    ids=["no byte left", "no file left", "no file for the log", "log but no more"],
)
def test_extract_on_a_disk_that_is_full_from_the_start(small_disk, short_clips, traitline, size, files, refused):
    disk = small_disk(size, files - 1)
    if not size:
        (disk.folder / "somebody else's").write_bytes(bytes(4096))
    arguments = ("--videos", short_clips.videos, "--store", disk.folder / "store", "--weights", "random")
    result = traitline("extract", *arguments)
    check_full(result, refused)
    assert len(result.stderr.splitlines()) == 1
    assert list(disk.folder.rglob(".tmp-*")) == []


def test_store_commands_write_nothing_and_so_work_on_a_full_disk(small_disk, traitline):
    disk = small_disk(0)
    (disk.folder / "store" / "features").mkdir(parents=True)
    (disk.folder / "filler").write_bytes(bytes(4096))
    for command in (("store", "ls"), ("store", "verify"), ("failures", "list")):
        assert traitline(*command, "--store", disk.folder / "store").returncode == 0


@pytest.mark.slow
def test_export_onto_a_full_disk(small_disk, tmp_path, traitline):
    root = tmp_path / "store"
    families = families_of(load_config(flags={"store.path": root, "weights": "random"}))
    keys = (families.static.key, families.dynamic.key)
    score = Score("a.mp4", "0" * 64, (0.5,) * 5, 1.0, 1, 1, *keys, "random")
    ScoreStore(root).write("traits", "1", [score])
    origin = {"static_key": keys[0], "dynamic_key": keys[1], "weights": "random", "settings": {}}
    save_version(root / "models" / "traits" / "1", **origin)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    disk = small_disk(0)
    (disk.folder / "filler").write_bytes(bytes(4096))
    out = disk.folder / "traits.csv"
    command = ("export", "--store", root, "--videos", tmp_path / "clips", "--out", out, "--weights", "random")
    check_full(traitline(*command), str(out))
    assert not out.exists()
    assert not list(disk.folder.glob("*.json"))
    disk.resize(2**18)
    assert traitline(*command).returncode == 0
    assert "a.mp4" in out.read_text()


@pytest.mark.slow
def test_extract_on_a_disk_that_fills_up_goes_on_once_there_is_room(small_disk, tmp_path, rendered, traitline):
    clips = tmp_path / "clips"
    clips.mkdir()
    for clip in sorted(rendered.videos.iterdir())[:2]:
        shutil.copy(clip, clips)
    disk = small_disk(60_000)  # the settings and some of the log, but not the features
    root = disk.folder / "store"
    command = ("extract", "--videos", clips, "--store", root, "--weights", "random", "--set", "extract.shard_size=1")
    check_full(traitline(*command), str(root / "features"))
    assert list(disk.folder.rglob(".tmp-*")) == []
    disk.resize(2**24)
    result = traitline(*command)
    assert result.returncode == 0, result.stderr
    families = families_of(load_config(flags={"store.path": root, "weights": "random"}))
    for family in (families.faces, families.static, families.dynamic):
        assert len(list(FeatureStore(root).read(family))) == 2
    assert traitline("store", "verify", "--store", root).returncode == 0

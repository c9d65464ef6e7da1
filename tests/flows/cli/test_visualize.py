"""The command `traitline visualize` as a person runs it."""

from __future__ import annotations

import shutil

import pytest
from drawn_store import draw_store
from PIL import Image

SMALL = ("--weights", "random", "--set", "crops.window_fields=16", "--set", "extract.processes=1")


def test_a_picture_of_another_kind_is_refused_in_one_line(traitline, tmp_path):
    shown = traitline("visualize", "filters", "--out", tmp_path / "filters.jpg", "--store", tmp_path / "store")
    assert shown.returncode == 1
    (line,) = shown.stderr.splitlines()
    for words in ("traitline: ", "--out", ".png", ".svg", "'filters.jpg'"):
        assert words in line


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (("filters", "--layer", "conv1_con"), ["resnet50", "'conv1_con'", "conv1_conv"]),
        (("volume", "nowhere.mp4"), ["nowhere.mp4"]),
        (("volume", "text.mp4"), ["text.mp4 (11 bytes)"]),
        (("attention", "clip.mp4", "--store", "nowhere"), ["store nowhere", "--store"]),
        (("attention", "clip.mp4"), ["model traits"]),
        (("filters", "--out", "text.mp4/a.png"), ["text.mp4 ", "folder"]),
    ],
)
def test_a_mistake_is_one_line_that_leaves_nothing(traitline, tmp_path, asked, answered):
    (tmp_path / "text.mp4").write_text("no pictures")
    (tmp_path / "store").mkdir()
    options = {"--weights": "random", "--out": "picture.png", "--store": "store"}
    given = [part for name, value in options.items() if name not in asked for part in (name, value)]
    shown = traitline("visualize", *asked, *given, folder=tmp_path)
    assert shown.returncode == 1
    assert all(words in shown.stderr for words in answered), shown.stderr
    assert shown.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "text.mp4"]


def test_only_the_weights_that_a_picture_needs_are_asked_for(traitline, tmp_path):
    draw_store(tmp_path, people=1, clips_each=1)
    given = ("--out", tmp_path / "a.png", "--store", tmp_path / "store", "--set", f"assets={tmp_path / 'assets'}")
    shown = traitline("visualize", "filters", *given)
    assert str(tmp_path / "assets" / "resnet50_imagenet") in shown.stderr
    shown = traitline("visualize", "heads", "clip.mp4", *given)  # reads what the networks have made
    assert "model traits" in shown.stderr


@pytest.mark.slow
def test_a_real_clip_is_drawn_by_each_kind_of_tool(traitline, corpus, tmp_path):
    videos, store = tmp_path / "videos", ("--store", tmp_path / "store")
    videos.mkdir()
    clip = videos / "clip.mpg"
    shutil.copyfile(corpus / "plain" / "grid_bbaf2n.mpg", clip)
    for tool, out in (
        ("layers", "layers.png"),
        ("cam", "cam.svg"),
        ("motion-layers", "motion.png"),
        ("compare-features", "compare.gif"),
        ("volume", "volume.png"),
    ):
        shown = traitline("visualize", tool, clip, "--out", tmp_path / out, *store, *SMALL)
        assert shown.returncode == 0, shown.stderr
        assert shown.stderr.count("\n") <= 2
    for name in ("layers.png", "motion.png", "volume.png"):
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("L").getcolors(256)) > 20  # something is drawn
    with Image.open(tmp_path / "compare.gif") as moving:
        assert moving.n_frames > 2
    assert "<svg" in (tmp_path / "cam.svg").read_text()[:1000]
    shown = traitline("visualize", "volume", clip, "--layer", "none", "--out", tmp_path / "v.png", *store, *SMALL)
    assert shown.returncode == 1
    assert "'none'" in shown.stderr
    assert "Mixed_5c" in shown.stderr

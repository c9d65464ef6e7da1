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
    assert shown.stderr == "traitline: --out must end in .png or .svg; got 'filters.jpg'\n"


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (
            ("filters", "--layer", "conv1_con"),
            "resnet50 has no layer 'conv1_con' with feature maps; did you mean ",
        ),
        (("volume", "nowhere.mp4"), "there is no file nowhere.mp4"),
        (("volume", "text.mp4"), "text.mp4 cannot be used: text.mp4 (11 bytes) cannot be read as a video"),
        (
            ("attention", "clip.mp4", "--store", "nowhere"),
            "there is no store nowhere; give its folder with",
        ),
        (("attention", "clip.mp4"), "there is no model traits in store"),
        (("filters", "--out", "text.mp4/a.png"), "text.mp4 is not a writable folder"),
    ],
)
def test_a_mistake_is_one_line_that_leaves_nothing(traitline, tmp_path, asked, answered):
    (tmp_path / "text.mp4").write_text("no pictures")
    (tmp_path / "store").mkdir()
    options = {"--weights": "random", "--out": "picture.png", "--store": "store"}
    given = [part for name, value in options.items() if name not in asked for part in (name, value)]
    shown = traitline("visualize", *asked, *given, folder=tmp_path)
    assert shown.returncode == 1
    assert answered in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "text.mp4"]


def test_only_the_weights_that_a_picture_needs_are_asked_for(traitline, tmp_path):
    draw_store(tmp_path, people=1, clips_each=1)
    given = ("--out", tmp_path / "a.png", "--store", tmp_path / "store", "--set", f"assets={tmp_path / 'assets'}")
    shown = traitline("visualize", "filters", *given)
    assert f"{tmp_path / 'assets' / 'resnet50_imagenet'} does not hold" in shown.stderr
    shown = traitline("visualize", "heads", "clip.mp4", *given)  # reads what the networks have made
    assert "there is no model traits" in shown.stderr


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
    assert "no layer 'none'" in shown.stderr
    assert "Mixed_5c" in shown.stderr

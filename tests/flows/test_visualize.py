"""The command `traitline visualize` as a person runs it."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

SMALL = ("--weights", "random", "--set", "crops.window_fields=16", "--set", "extract.processes=1")


def test_a_picture_of_another_kind_is_refused_in_one_line(traitline, tmp_path):
    shown = traitline("visualize", "filters", "--out", tmp_path / "filters.jpg", "--store", tmp_path / "store")
    assert shown.returncode == 1
    assert shown.stderr == "traitline: --out must end in .png or .svg; got 'filters.jpg'\n"


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

"""What headings of pictures say: whether attention has an effect, and names in any letters."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from flows.archive.models import ModelReference
from flows.visualize.files import FONT_WITH_MOST, picture_style, save_picture
from flows.visualize.model import MOMENTLESS, SeenClip
from fusion.clips.tokens import ClipTokens, pad_batch
from fusion.model.bilinear import BilinearPersonalityModel


@pytest.mark.parametrize("depends", [False, True])
def test_a_picture_of_attention_says_whether_scores_depend_on_moments(depends):
    rng, model = np.random.default_rng(0), BilinearPersonalityModel(6, 4, 2, 2)
    for layer in (model.static_projection, model.dynamic_projection, model.static_scores, model.dynamic_scores):
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    if depends:
        model.product_scores.set_weights([keras.ops.ones_like(model.product_scores.kernel)])
    tokens = ClipTokens(
        "", rng.normal(size=(5, 6)).astype("f4"), np.arange(5.0), rng.normal(size=(3, 4)).astype("f4"), np.arange(3.0)
    )
    clip = SeenClip("a.mp4", ModelReference("m", "1"), model, pad_batch([tokens]), np.arange(3.0), np.arange(3.0) + 1)
    line, *others = clip.heading("random", "Attention").splitlines()
    assert line == "Attention: a.mp4, m/1 (random\N{NO-BREAK SPACE}weights)"
    assert others == ([] if depends else [f"{MOMENTLESS}."])


def save_heading(text: str, out) -> None:
    with picture_style():
        figure = Figure()
        figure.suptitle(text)
        save_picture(figure, out)


def test_letters_that_no_font_has_are_named(tmp_path, capsys):
    save_heading("a.mp4", tmp_path / "a.png")
    assert capsys.readouterr().err == ""
    save_heading("\U0010fffd.mp4", tmp_path / "b.png")  # of a plane for private use
    assert "No font of this machine has \\U0010fffd" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "b.png").is_file()


def test_letters_beyond_the_first_font_come_from_another(tmp_path, capsys, monkeypatch):
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({0x10FFFD: "square"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": FONT_WITH_MOST, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "more.ttf")
    usual = font_manager.findfont("DejaVu Sans")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])  # an installed font may have the same name
    for path in (usual, tmp_path / "more.ttf"):
        font_manager.fontManager.addfont(path)
    save_heading("\U0010fffd.mp4", tmp_path / "a.png")
    assert capsys.readouterr().err == ""

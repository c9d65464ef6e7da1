"""What the report says, beside what was drawn; how it looks and behaves is in `test_report_page`."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rendered_report import render_report
from report_store import BREAKOUT, REFUSED, SCRIPT, ReportStore

from flows.archive.models import ModelReference, without_clips
from flows.archive.videos import Archive, VideoFile
from flows.config.load import load_config
from flows.config.settings import ReportSettings
from flows.report import sections
from flows.report.charts import Scale, against, scatter, time_line
from flows.report.drawing import ticks
from flows.report.summary import MOST_VIDEOS, Refusals, summarise
from flows.session.errors import UserError
from fusion.pictures.timeline import TimeLine
from fusion.traits import TRAITS
from storage import FailureLog, ModelSerializer, ScoreStore
from storage.models.serializer import sealed
from storage.tables.failures import Failure
from storage.tables.scores import Score

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
MOST_BYTES = 3_000_000


class Tables(HTMLParser):
    """Every table's rows as text, by its id; the text of all titles; and how many elements there are of each name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.elements: Counter[str] = Counter()
        self.titles: list[str] = []
        self._table: str | None = None
        self._in_title = False
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        if tag == "title":
            self.titles.append("")
            self._in_title = True
        if tag == "table":
            self._table = dict(attrs)["id"]
            self.rows[self._table] = []
        elif tag == "tr" and self._table:
            self.rows[self._table].append([])
        elif tag in ("td", "th") and self._table:
            self.rows[self._table][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._in_cell = False
        elif tag == "title":
            self._in_title = False
        elif tag == "table":
            self._table = None

    def handle_data(self, data):
        if self._in_cell and self._table:
            self.rows[self._table][-1][-1] += data
        elif self._in_title:
            self.titles[-1] += data


@pytest.fixture(scope="module")
def store(report_store) -> ReportStore:
    return report_store


@pytest.fixture(scope="module")
def page(store) -> str:
    return render_report(store.config, store.families, store.videos, store.model, NOW)


@pytest.fixture(scope="module")
def tables(page) -> Tables:
    return Tables(page)


def with_settings(store: ReportStore, *settings: str):
    return load_config(flags={"store.path": store.config.store.path}, assignments=("weights=random", *settings))


def test_it_says_what_ran_with_which_keys_and_shouts_random_weights(store, page):
    for family in (store.families.faces, store.families.static, store.families.dynamic):
        assert family.key in page
    assert "RANDOM WEIGHTS: A TRIAL ONLY" in page
    assert re.search(r"<title>RANDOM WEIGHTS", page)
    for purpose in ("employment", "education", "justice", "health care", "apparent personality"):
        assert purpose in page


def test_statistics_are_those_of_the_scores(store, tables):
    scores = np.array([row.traits for row in ScoreStore(store.config.store.path).read("traits", "1")], np.float64)
    header, *rows = tables.rows["statistics"]
    assert [row[0] for row in rows] == list(TRAITS)
    for place, row in enumerate(rows):
        told = dict(zip(header, row, strict=True))
        own = scores[:, place]
        for heading, value in (("mean", own.mean()), ("sd", own.std()), ("min", own.min()), ("max", own.max())):
            assert float(told[heading]) == pytest.approx(value, abs=6e-4)


def test_a_refused_video_is_there_with_its_reason_stage_and_message(tables):
    (row,) = tables.rows["refusals"][1:]
    assert row[:3] == ["not_a_video", f"{REFUSED} holds no video", "1"]
    assert row[4] == "decode"
    assert row[5] == f"\N{HORIZONTAL ELLIPSIS}{REFUSED[-39:]}"


def test_videos_without_a_score_are_rejected_or_not_yet_scored_or_not_yet_extracted(store, tmp_path):
    shutil.copytree(store.config.store.path, tmp_path / "store")
    models = tmp_path / "store" / "models"
    shutil.copytree(models / "traits" / "1", models / "new" / "1")
    config = with_settings(store).model_copy(
        update={"store": store.config.store.model_copy(update={"path": tmp_path / "store"})}
    )
    videos = Archive([*store.videos, VideoFile("~new.mp4", Path("absent"), "0" * 64)])
    page = render_report(config, store.families, videos, ModelReference("new", "1"), NOW)
    for outcome, count in (("scored", 0), ("rejected", 1), ("not yet scored", 52), ("not yet extracted", 1)):
        assert f"<dt>{outcome}</dt><dd>{count}</dd>" in page
    (row,) = Tables(page).rows["refusals"][1:]
    assert row[0] == "not_a_video"


def test_names_stay_text_in_tables_svg_and_attributes(store):
    config = store.config.model_copy(update={"report": ReportSettings(clips=(SCRIPT, BREAKOUT))})
    page = render_report(config, store.families, store.videos, store.model, NOW)
    tables = Tables(page)
    assert tables.elements["script"] == 1
    assert tables.elements["img"] == 0
    assert tables.elements["svg"] == page.count("</svg>")
    assert {SCRIPT, BREAKOUT} <= {row[0] for row in tables.rows["videos"]}
    assert "{{ 7 * 7 }}" in page  # nor is it run by the template
    drawn = [title.rpartition(", ")[0] for title in tables.titles if "Attention" in title]
    assert drawn == [f"Attention over time: {name}" for name in (SCRIPT, BREAKOUT)]


def test_without_a_choice_the_highest_and_the_lowest_of_each_trait_are_drawn(store, tables):
    scores = {row.video_id: row.traits for row in ScoreStore(store.config.store.path).read("traits", "1")}
    wanted = {
        f"Attention over time: {most(scores, key=lambda name: scores[name][place])}, {trait}"
        for place, trait in enumerate(TRAITS)
        for most in (max, min)
    }
    assert {title for title in tables.titles if "Attention" in title} == wanted


def test_intervals_and_their_reliability_are_those_stored_with_the_model(store, page, tables):
    kept = ModelSerializer(store.config.store.path).metadata("traits", "1")["uncertainty"]
    for place, row in enumerate(tables.rows["widths"][1:]):
        assert float(row[1]) == pytest.approx(kept["calibration"]["half_width"][place], abs=6e-4)
    for place in range(len(TRAITS)):
        told = ", ".join(
            f"{row[place]:.0%} at {level:.0%}"
            for level, row in zip(kept["reliability"]["levels"], kept["reliability"]["covered"], strict=True)
        )
        assert f"Labels inside intervals: {told}." in page


def test_both_protocols_of_the_evaluation_stand_side_by_side_with_leakage_and_tests(tables, page):
    found = {tuple(rows[0][:2]): rows for name, rows in tables.rows.items() if name.startswith("evaluation-")}
    assert [row[0] for row in found[("protocol", "folds")][1:]] == ["official split", "unseen people"]
    predictors = found[("predictor", "kind")]
    assert {"RMSE, official split", "RMSE, unseen people"} <= set(predictors[0])
    assert {row[0] for row in predictors[1:]} == {"mean", "ridge_static", "bilinear"}
    every = found[("predictor", "measure")]
    measures = ("1-MAE", "RMSE", "R2", "Pearson", "CCC", "sd ratio")
    assert {tuple(row[:3]) for row in every[1:]} == {
        (predictor, measure, protocol)
        for predictor in ("mean", "ridge_static", "bilinear")
        for measure in measures
        for protocol in ("official split", "unseen people")
    }
    assert every[0][3:] == [*TRAITS, "mean"]
    assert found[("parts of the official split", "people in both")][1][0] == "training and validation"
    assert ("protocol", "baseline") in found
    assert ("protocol", "column") in found
    assert "Random weights: these figures do not describe" in page


def test_a_model_from_another_store_has_figures_that_are_called_those_of_its_own_clips(store, page, tmp_path):
    root = Path(shutil.copytree(store.config.store.path, tmp_path / "store"))
    model = ModelSerializer(root)
    metadata = without_clips(model.metadata(store.model.name, store.model.version))
    (root / "models" / store.model.name / store.model.version / "metadata.json").write_text(sealed(metadata))
    config = store.config.model_copy(update={"store": store.config.store.model_copy(update={"path": root})})
    imported = render_report(config, store.families, store.videos, store.model, NOW)
    told = "imported from another store"
    assert told in imported
    assert told not in page
    assert imported.count("<svg") == page.count("<svg") - len(TRAITS)


def test_no_picture_is_in_the_page_unless_asked_for(page):
    assert "data:image" not in page


def test_clips_that_are_named_are_those_that_are_drawn(store):
    named = store.videos[7].video_id
    config = with_settings(store, f"report.clips=[{named}]")
    page = render_report(config, store.families, store.videos, store.model, NOW)
    assert page.count('<title id="clip-') == 1
    assert f"Attention over time: {named}," in page


def test_a_clip_that_has_no_score_is_a_mistake_that_is_named(store):
    config = with_settings(store, "report.clips=[nobody.mp4]")
    with pytest.raises(UserError, match=r"nobody\.mp4 has no score"):
        render_report(config, store.families, store.videos, store.model, NOW)


def test_frames_without_a_folder_of_videos_are_a_mistake_that_names_the_cure(store):
    with pytest.raises(UserError, match="--videos DIR"):
        render_report(with_settings(store, "report.frames=true"), store.families, store.videos, store.model, NOW)


def test_frames_of_a_video_that_cannot_be_read_are_told_and_the_page_is_made(store, tmp_path):
    config = with_settings(store, "report.frames=true", f"report.clips=[{store.videos[7].video_id}]")
    config = config.model_copy(update={"videos": tmp_path})
    page = render_report(config, store.families, store.videos, store.model, NOW)
    assert f"No frames of {store.videos[7].video_id}" in page
    assert "data:image" not in page


def draw_archive(store: ReportStore, folder: Path, count: int) -> tuple[Archive, np.ndarray, int]:
    """Scores of `count` videos, every 50th refused instead, in a store with the same model."""
    (folder / "store").mkdir(parents=True)
    (folder / "store" / "models").symlink_to(store.config.store.path / "models")
    rng = np.random.default_rng(0)
    traits = rng.normal(0.5, 0.15, size=(count, 5)).astype(np.float32)
    coverage = rng.beta(8, 1, size=count)
    keys = (store.families.static.key, store.families.dynamic.key)
    videos = [VideoFile(f"season {row % 7}/clip {row:07d}.mp4", Path("absent"), f"{row:064x}") for row in range(count)]
    refused = set(range(0, count, 50))
    rows = (
        Score(
            *(videos[row].video_id, videos[row].sha256, tuple(traits[row].tolist()), float(coverage[row]), 16, 6),
            *(*keys, "random", "face_coverage" if coverage[row] < 0.5 else ""),
            *(tuple((traits[row] - 0.2).tolist()), tuple((traits[row] + 0.2).tolist())),
        )
        for row in range(count)
        if row not in refused
    )
    ScoreStore(folder / "store").write("traits", "1", rows)
    FailureLog(folder / "store").add(
        [
            Failure(
                *(videos[row].video_id, videos[row].sha256, store.families.features),
                *(("faces", "no_face") if row % 100 else ("decode", "truncated")),
                *("what was wrong", 1),
            )
            for row in sorted(refused)
        ]
    )
    scored = np.array([row not in refused for row in range(count)])
    return Archive(sorted(videos, key=lambda video: video.video_id)), traits[scored], len(refused)


def test_examples_of_rejected_videos_are_one_line_each_that_ends_like_the_name():
    refusals = {"no_face": Refusals(2, [f"{'folder/' * 30}clip.mp4", "short.mp4"], "faces", "no face in any frame")}
    nobody = summarise([], [])
    (row,) = sections.refusals(replace(nobody, refusals=refusals)).rows
    long, short = row[-1]
    assert (len(long), long[0], short) == (40, "\N{HORIZONTAL ELLIPSIS}", "short.mp4")
    assert long.endswith("/folder/clip.mp4")


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_large_archive_is_told_in_sums_and_a_page_of_bounded_size(store, tmp_path, count):
    videos, traits, refused = draw_archive(store, tmp_path, count)
    config = with_settings(store).model_copy(
        update={"store": store.config.store.model_copy(update={"path": tmp_path / "store"})}
    )
    page = render_report(config, store.families, videos, store.model, NOW)
    assert len(page.encode()) < MOST_BYTES
    tables = Tables(page)
    shown = len(tables.rows["videos"]) - 1
    assert 120 < shown <= MOST_VIDEOS
    assert f"The {shown} most noteworthy of {len(traits):,} scored" in page
    assert [row[:3] + row[4:5] for row in tables.rows["refusals"][1:]] == [
        ["no_face", "what was wrong", f"{refused // 2:,}", "faces"],
        ["truncated", "what was wrong", f"{refused // 2:,}", "decode"],
    ]
    assert tables.rows["videos"][0][-1] == "why listed"
    assert all(row[-1] for row in tables.rows["videos"])
    for place, row in enumerate(tables.rows["statistics"][1:]):
        assert float(row[1]) == pytest.approx(float(traits[:, place].mean()), abs=6e-4)
    assert "features are no longer in the store" in page


@pytest.mark.parametrize(
    ("loudness", "told"), [(1.0, "against openness, -0.3, was from 3.0 to 4.0 s"), (1e-9, "no moment")]
)
def test_a_time_line_says_what_spoke_or_that_nothing_did(loudness, told):
    weights, relevance = np.full((1, 1, 4), 0.25), np.array([[[0, 0.1, 0, -0.3]]])
    start = np.arange(4.0)
    line = TimeLine(weights, loudness * relevance, start, start + 1, "openness")
    drawing = time_line("clip", line, Scale.of([line]))
    assert told in drawing.description
    bars = [mark.attributes["class"] for mark in drawing.marks if mark.kind == "rect"]
    assert bars == (["fill-n", "fill-n", "fill-a", "fill-n", "fill-n", "fill-b"] if loudness == 1 else 4 * ["fill-n"])


@pytest.mark.parametrize(("strongest", "shown"), [(0.009, 0.01), (3e-5, 0.01), (0.2, 0.2)])
def test_all_time_lines_have_one_scale_on_which_the_negligible_looks_it(strongest, shown):
    start = np.arange(4.0)
    loud, quiet = (
        TimeLine(np.full((1, 1, 4), 0.25), np.array([[[0, 0, 0, effect]]]), start, start + 1, "openness")
        for effect in (strongest, strongest / 10)
    )
    scale = Scale.of([quiet, loud])
    bars = [
        float(mark.attributes["height"])
        for line in (loud, quiet)
        for mark in time_line("clip", line, scale).marks
        if mark.attributes.get("class") == "fill-a"
    ]
    half = 242 / 2 - (138 + 38) / 2  # the height of the lower panel, above its zero
    assert bars == [pytest.approx(half * effect / shown, abs=0.06) for effect in (strongest, strongest / 10)]


def test_ticks_are_round_and_inside():
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(14.5, 17.5, 3) == [15, 16, 17]
    assert ticks(-0.03, 0.031, 4) == [-0.02, 0, 0.02]
    assert ticks(0, 98_000, 3) == [0, 50_000]


def test_the_page_names_what_could_not_be_read(report_store):
    store = report_store
    page = render_report(store.config, store.families, store.videos, store.model, NOW)
    assert "could not be read" not in page
    videos = Archive(store.videos, {"b & c": "Permission denied"})
    page = render_report(store.config, store.families, videos, store.model, NOW)
    assert "<code>b &amp; c</code> (Permission denied)" in page


@pytest.mark.parametrize(
    "drawing",
    [
        scatter("Openness", [0.2, 0.6], [0.1, 0.9], (0.0, 1.0)),
        against("Openness", "", [(0.2, 0.3), (0.6, 0.5)], ("score", "label")),
    ],
)
def test_the_line_of_equality_is_at_45_degrees(drawing):
    (line,) = [mark.attributes for mark in drawing.marks if mark.attributes.get("class") == "mark"]
    x1, y1, x2, y2 = (float(line[end]) for end in ("x1", "y1", "x2", "y2"))
    assert x2 - x1 == pytest.approx(y1 - y2)

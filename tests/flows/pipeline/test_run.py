"""The whole way by the command line, on some demo clips, with real networks whose weights are random."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.archive.families import families_of
from flows.config.load import load_config
from fusion.traits import TRAITS
from storage import FeatureStore

CLIPS = ("nod.mp4", "still.mp4", "sway.mp4")
# Two windows of motion and few crops from clips of 32 frames: networks cost most of a run.
QUICK = (
    *("optical_flow.preset=fast", "crops.static_tokens=4", "crops.window_fields=20", "crops.min_fields=9"),
    *("extract.processes=1", "train.epochs=2"),
)

HEADER = [
    "video_id",
    *("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"),
    *(
        "face_coverage",
        "face_gaps",
        "longest_gap_s",
        "people",
        "others_share",
        "cuts",
        "confirmed_share",
        "decoded_share",
    ),
    "repeated_share",
    *("static_tokens", "dynamic_tokens", "status", "reason", "model", "features", "weights"),
    *("abstain", *(f"{trait}_{bound}" for trait in TRAITS for bound in ("low", "high"))),
    *("video_sha256", "scored_at"),
]


@pytest.fixture(scope="module")
def folder(short_clips, tmp_path_factory) -> Path:
    """Videos to add to and take from, their labels, a store and the CSVs of this module's runs."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "videos").mkdir()
    for name in CLIPS:
        shutil.copy(short_clips.videos / name, folder / "videos")
    header, *rows = short_clips.labels.read_text().splitlines(keepends=True)
    (folder / "labels.csv").write_text(header + "".join(row for row in rows if row.startswith(CLIPS)))
    return folder


@pytest.fixture(scope="module")
def first_run(folder, traitline):
    """The first run: everything is new."""
    return traitline(*arguments(folder, "first.csv"), "--labels", folder / "labels.csv", afresh=True)


@pytest.fixture(scope="module")
def families():
    return families_of(load_config(flags={"weights": "random"}, assignments=QUICK))


def arguments(folder: Path, out: str) -> list[str | Path]:
    places = ["--videos", folder / "videos", "--store", folder / "store", "--out", folder / out]
    return ["run", *places, "--weights", "random", *(part for setting in QUICK for part in ("--set", setting))]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shards(folder: Path) -> set[Path]:
    return set((folder / "store" / "features").rglob("shard-*"))


def results(folder: Path) -> dict[Path, int]:
    """All that runs compute and keep, with when each file was written. They rewrite descriptions, as marks for `gc`."""
    parts = ("features", "models", "scores")
    paths = [path for part in parts for path in (folder / "store" / part).rglob("*")]
    return {path: path.stat().st_mtime_ns for path in paths if path.is_file() and path.name != "_family.json"}


def test_a_first_run_scores_every_clip_and_says_where_the_results_lie(first_run, folder):
    assert first_run.returncode == 0, first_run.stderr
    rows = rows_of(folder / "first.csv")
    assert list(rows[0]) == HEADER
    assert [row["video_id"] for row in rows] == list(CLIPS)
    for row in rows:
        assert row["status"] == "scored"
        assert np.isfinite([float(row[trait]) for trait in TRAITS]).all()
        assert float(row["face_coverage"]) == float(row["decoded_share"]) == 1.0
        assert (row["face_gaps"], float(row["longest_gap_s"])) == ("0", 0.0)
        assert (row["people"], float(row["others_share"])) == ("1", 0.0)
        assert float(row["confirmed_share"]) > 0.9
        assert float(row["repeated_share"]) == 0.0
        assert (row["static_tokens"], row["dynamic_tokens"]) == ("4", "2")
        assert (row["model"], row["weights"]) == ("traits/1", "random")
    assert len({row["openness"] for row in rows}) == len(CLIPS)
    assert "first.csv" in first_run.stderr
    assert list((folder / "store" / "reports").glob("traits-1-*.html"))


def test_people_see_no_words_of_libraries(first_run):
    shown = first_run.stdout + first_run.stderr
    assert not re.search(r"prefect|tensorflow|keras|mediapipe|absl|WARNING|INFO|Traceback", shown, re.IGNORECASE)


def test_the_report_needs_nothing_from_outside_and_says_what_the_scores_are_not_for(first_run, folder):
    (path,) = (folder / "store" / "reports").glob("traits-1-*.html")
    page = path.read_text(encoding="utf-8")
    loads = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)([^"')\s>]+)""", page)
    assert loads == []
    assert "employment" in page
    assert "random weights" in page


def test_features_of_the_clip_that_stands_still_are_the_ones_of_no_motion(first_run, folder, families):
    """Two windows of the still clip say nearly the same; those of the moving clips differ from it by far more."""
    vectors = {row.video_id: row.vectors for row in FeatureStore(folder / "store").read(families.dynamic)}
    still = vectors["still.mp4"]
    within = np.linalg.norm(still[0] - still[1])
    for moving in set(CLIPS) - {"still.mp4"}:
        assert np.linalg.norm(vectors[moving][0] - still[0]) > 3 * within


def test_tokens_carry_times_within_the_clip(first_run, folder, families):
    store = FeatureStore(folder / "store")
    for row in store.read(families.dynamic):
        np.testing.assert_allclose(row.start_s, [0.0, 0.8])
        np.testing.assert_allclose(row.end_s, [0.8, 1.24])
        np.testing.assert_array_equal(row.quality["fields"], [20, 11])
    for row in store.read(families.static):
        assert (np.diff(row.start_s) > 0).all()
        assert 0 <= row.start_s[0] < row.end_s[-1] <= 1.28


def test_a_second_run_decodes_nothing_and_says_so(first_run, folder, traitline):
    before = results(folder)
    second = traitline(*arguments(folder, "second.csv"), "--labels", folder / "labels.csv")
    assert second.returncode == 0, second.stderr
    for step in ("Extract", "Train", "Score"):
        assert re.search(rf"^(\S+ )?{step}: ", second.stderr, re.MULTILINE)
    assert results(folder) == before
    assert (folder / "second.csv").read_bytes() == (folder / "first.csv").read_bytes()


def test_one_new_video_costs_one_video_and_a_bad_one_is_a_row_with_its_reason(first_run, folder, traitline):
    before = shards(folder)
    new = folder / "videos" / "more" / "=new.mp4"
    new.parent.mkdir()
    new.write_bytes((folder / "videos" / "nod.mp4").read_bytes() + b"\0")
    (folder / "videos" / "text.mp4").write_text("no video at all")
    try:
        third = traitline(*arguments(folder, "third.csv"), "--model", "traits")
    finally:
        shutil.rmtree(new.parent)
        (folder / "videos" / "text.mp4").unlink()
    assert third.returncode == 0, third.stderr
    rows = {row["video_id"]: row for row in rows_of(folder / "third.csv")}
    assert len(rows) == len(CLIPS) + 2
    assert rows["text.mp4"]["status"] == "failed"
    assert rows["text.mp4"]["reason"] == "not_a_video"
    log = max((folder / "store" / "runs").glob("*-run.log")).read_text(encoding="utf-8")
    assert re.search(
        r"^\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} INFO +flows.extraction.extractor: text.mp4 rejected: ", log, re.MULTILINE
    )
    assert re.search(r"INFO +flows.pipeline.announce: committed 1 shard: 1 video.* extracted, 1 rejected", log)
    assert re.search(r"INFO +flows: Done: .*scored 4 of 5 \(1 in this run\); rejected 1: 1 not_a_video", log)
    assert all(rows["text.mp4"][trait] == "" for trait in TRAITS)
    # One shard for each of the three families, with the new video alone in it.
    assert len(shards(folder) - before) == 3
    assert rows["more/=new.mp4"]["status"] == "scored"
    # The same pictures give the same scores, whatever was in the batch beside them.
    new_scores, old_scores = ([float(rows[name][trait]) for trait in TRAITS] for name in ("more/=new.mp4", "nod.mp4"))
    assert new_scores == pytest.approx(old_scores, abs=1e-4)

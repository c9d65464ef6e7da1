"""The small tables: failures and scores."""

from __future__ import annotations

import dataclasses
import hashlib

import duckdb
import numpy as np
import pytest

from storage import Failure, FailureLog, Family, FeatureStore, Score, ScoreStore, StoreError
from storage.files.paths import matching
from storage.maintenance.survey import still_refused

FAILURE = Failure("-a.mp4", "0" * 64, "k" * 16, "faces", "no_face", "no face in 100 frames,\nnot one", 1)
SCORE = Score("-a.mp4", "0" * 64, (0.1, 0.2, -0.3, 1e-8, 0.5), 0.9, 16, 6, "s" * 16, "d" * 16, "random")


def test_log_without_failures_is_empty(root):
    log = FailureLog(root / "new")
    log.add([])
    assert log.current() == []
    assert not (root / "new").exists()


def test_latest_failure_counts_for_each_video_content_and_key(root):
    change = dataclasses.replace
    other_key, other_bytes = change(FAILURE, key="l" * 16), change(FAILURE, video_sha256="1" * 64)
    again = change(FAILURE, stage="decode", reason="truncated", message="", attempts=2)
    log = FailureLog(root)
    log.add([FAILURE, other_key])
    log.add([other_bytes, again])
    assert FailureLog(root).current() == [again, other_key, other_bytes]
    log.add([change(again, attempts=3), change(again, attempts=4)])
    assert log.current()[0].attempts == 4


def test_every_attempt_stays_readable_for_duckdb_and_polars(tmp_path):
    log = FailureLog(tmp_path)
    log.add([FAILURE])
    log.add([dataclasses.replace(FAILURE, attempts=2)])
    rows = duckdb.sql(f"SELECT reason, attempts FROM '{tmp_path}/failures/*.parquet' ORDER BY attempts")
    assert rows.fetchall() == [("no_face", 1), ("no_face", 2)]
    polars = pytest.importorskip("polars")
    frame = polars.read_delta(str(tmp_path / "failures")).sort("attempts")
    assert frame["message"].to_list() == [FAILURE.message] * 2


def data_files(folder) -> list:
    return sorted(matching(folder, "*.parquet"))


def test_damaged_data_file_and_damaged_log_are_refused_by_name(tmp_path):
    FailureLog(tmp_path).add([FAILURE])
    (data,) = data_files(tmp_path / "failures")
    entry = tmp_path / "failures" / "_delta_log" / f"{1:020d}.json"
    for path in (data, entry):
        whole = path.read_bytes()
        for damage in (whole[:-5], b"", bytes(len(whole))):
            path.write_bytes(damage)
            with pytest.raises(StoreError, match=r"failures.* is damaged") as caught:
                FailureLog(tmp_path).table.check()
            assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    assert FailureLog(tmp_path).current() == [FAILURE]


def test_scores_come_back_sorted_each_video_once_with_the_latest_right(root):
    store = ScoreStore(root)
    assert list(store.read("main", "1")) == []
    rng = np.random.default_rng(0)
    names = [f"{number:05d}.mp4" for number in rng.permutation(5000)]
    first = [dataclasses.replace(SCORE, video_id=name, traits=tuple(rng.normal(size=5))) for name in names]
    later = [dataclasses.replace(score, traits=(1, 2, 3, 4, 5), weights="pretrained") for score in first[::7]]
    store.write("main", "1", first)
    store.write("main", "1", iter(later))
    store.write("main", "1", [])
    expected = {score.video_id: score for score in [*first, *later]}
    assert list(ScoreStore(root).read("main", "1")) == [expected[name] for name in sorted(expected)]


def test_intervals_and_reasons_to_abstain_come_back_beside_scores_without_them(tmp_path):
    bounds = {"low": (0.0, 0.1, -0.5, -0.1, 0.3), "high": (0.2, 0.3, -0.1, 0.1, 0.7)}
    judged = dataclasses.replace(SCORE, video_id="b.mp4", abstain="face_coverage", **bounds)
    ScoreStore(tmp_path).write("main", "1", [judged, SCORE])
    assert list(ScoreStore(tmp_path).read("main", "1")) == [SCORE, judged]
    with pytest.raises(ValueError, match=SCORE.video_id):
        dataclasses.replace(SCORE, low=(0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match=judged.video_id):
        dataclasses.replace(judged, high=(0, 0, 0, 0, float("inf")))


FACTS = {
    **{"face_gaps": 3, "longest_gap_s": 1.28, "people": 2, "others_share": 0.1, "cuts": 4},
    **{"confirmed_share": 0.75, "decoded_share": 0.998, "repeated_share": 0.25},
}


def test_facts_of_quality_come_back_beside_scores_without_them(tmp_path):
    told = dataclasses.replace(SCORE, video_id="b.mp4", **FACTS)
    ScoreStore(tmp_path).write("main", "1", [told, SCORE])
    assert list(ScoreStore(tmp_path).read("main", "1")) == [SCORE, told]
    assert (told.face_gaps, told.people, told.decoded_share) == (3, 2, float(np.float32(0.998)))
    with pytest.raises(ValueError, match=told.video_id):
        dataclasses.replace(told, others_share=float("nan"))


def test_scores_of_models_and_versions_are_kept_apart(root):
    store = ScoreStore(root)
    other = dataclasses.replace(SCORE, static_tokens=3)
    store.write("main", "1", [SCORE])
    store.write("main", "2", [other])
    assert list(store.read("main", "1")) == [SCORE]
    assert list(store.read("main", "2")) == [other]
    assert list(store.read("other", "1")) == []
    assert {path.name for path in (root / "scores/main").iterdir()} == {"1", "2"}


def test_scores_are_kept_as_float32_and_everything_else_as_it_is(root):
    ScoreStore(root).write("main", "1", [SCORE])
    (found,) = ScoreStore(root).read("main", "1")
    assert found == SCORE
    assert found.traits == tuple(float(np.float32(value)) for value in (0.1, 0.2, -0.3, 1e-8, 0.5))


@pytest.mark.parametrize(
    "change",
    [{"traits": (1, 2, 3, 4)}, {"traits": (1, 2, 3, 4, float("nan"))}, {"face_coverage": float("inf")}],
    ids=str,
)
def test_scores_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match=SCORE.video_id):
        dataclasses.replace(SCORE, **change)


def test_model_name_that_leads_out_of_the_store_is_refused(tmp_path):
    for model, version in (("../main", "1"), ("main", "../1"), ("", "1")):
        with pytest.raises(ValueError, match=r"'(\.\./main|\.\./1|)'"):
            ScoreStore(tmp_path).write(model, version, [SCORE])


DYNAMIC = Family("dynamic", 4, {"fps": 25})


def refused(*families: Family, content: str = "") -> Failure:
    """A refusal of what `draw("a.mp4", content=content)` would be the features of."""
    sha256 = hashlib.sha256(f"a.mp4{content}".encode()).hexdigest()
    key = " ".join(f"{family.name}:{family.key}" for family in families)
    return Failure("a.mp4", sha256, key, "faces", "no_face", content, 1)


def test_video_is_refused_until_all_features_that_the_attempt_was_for_are_there(root, draw, static):
    log, store = FailureLog(root), FeatureStore(root)
    failure = refused(static, DYNAMIC)
    log.add([failure, dataclasses.replace(failure, video_id="b.mp4")])
    store.write(static, [draw("a.mp4")])
    assert [row.video_id for row in still_refused(root)] == ["a.mp4", "b.mp4"]
    store.write(DYNAMIC, [draw("a.mp4", DYNAMIC)])
    assert [row.video_id for row in still_refused(root)] == ["b.mp4"]


def test_old_bytes_and_old_settings_are_forgotten_once_a_later_attempt_succeeded(root, draw, static):
    log, store = FailureLog(root), FeatureStore(root)
    old_settings = Family("static", 8, {"fps": 24}, static.quality)
    log.add([refused(old_settings, content="old")])
    assert [row.message for row in still_refused(root)] == ["old"]
    log.add([refused(static, content="new")])
    assert [row.message for row in still_refused(root)] == ["new"]  # once, by its last failure
    store.write(static, [draw("a.mp4", content="mended")])
    assert still_refused(root) == []
    assert len(log.attempts_in_order()) == 2


def test_video_that_was_good_and_then_replaced_by_a_bad_one_is_refused(root, draw, static):
    log, store = FailureLog(root), FeatureStore(root)
    store.write(static, [draw("a.mp4", content="good")])
    log.add([refused(static, content="bad")])
    assert [row.message for row in still_refused(root)] == ["bad"]
    log.add([refused(static, content="good")])  # whose features are there, so that this says nothing
    assert still_refused(root) == []


def test_scores_are_read_with_a_part_in_memory_at_a_time(tmp_path, monkeypatch):
    store, names = ScoreStore(tmp_path), [f"{number:06d}.mp4" for number in range(12_000)]
    for start in range(0, len(names), 1000):
        part = [dataclasses.replace(SCORE, video_id=name) for name in names[start : start + 1000]]
        store.write("main", "1", part[::-1])
    again = [dataclasses.replace(SCORE, video_id=name, static_tokens=3) for name in names[5::100]]
    store.write("main", "1", again)
    monkeypatch.setattr("storage.tables.table.ROWS_IN_MEMORY", 1024)
    sizes = [len(rows) for rows in store.table("main", "1").newest()]
    assert sum(sizes) == len(names)
    assert max(sizes) <= 2048
    seen = [(score.video_id, score.static_tokens) for score in store.read("main", "1")]
    assert seen == [(name, 3 if number % 100 == 5 else 16) for number, name in enumerate(names)]

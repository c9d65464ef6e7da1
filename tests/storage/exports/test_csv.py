"""The trait CSV, read by other programs."""

from __future__ import annotations

import csv
import dataclasses
import re
import tempfile
import tracemalloc
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.labels.read import read_labels
from storage import Score, StoreError, Unscored, read_trait_csv, write_trait_csv
from storage.exports.csv import GUARD, GUARD_REPLACEMENT

TRAITS = ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism")
QUALITY = ["face_gaps", "longest_gap_s", "people", "others_share", "cuts", "confirmed_share", "decoded_share"]
QUALITY += ["repeated_share"]
HEADER = ["video_id", *TRAITS, "face_coverage", *QUALITY, "static_tokens", "dynamic_tokens"]
HEADER += ["status", "reason", "model", "features", "weights", "abstain"]
HEADER += [f"{trait}_{bound}" for trait in TRAITS for bound in ("low", "high")]
HEADER += ["video_sha256", "scored_at"]


def scored(video_id: str, traits=(0.1, 0.25, -1.5, 1e-8, 3.0), coverage: float = 0.9) -> Score:
    return Score(video_id, "0" * 64, traits, coverage, 16, 6, "aaaa", "bbbb", "random")


def failed(video_id: str, reason: str = "no_face") -> Unscored:
    return Unscored(video_id, "0" * 64, reason, "aaaa")


def write(path: Path, rows) -> list[list[str]]:
    """Write rows; returns the cells as the csv module reads them."""
    write_trait_csv(path, rows, trait_names=TRAITS, model="main/1")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, strict=True))


def test_scored_and_failed_videos_are_rows_under_the_header(tmp_path):
    header, failure, score = write(tmp_path / "t.csv", [failed("a.mp4"), scored("b.mp4")])
    assert header == HEADER
    assert failure == ["a.mp4", *[""] * 16, "failed", "no_face", "main/1", "aaaa", *[""] * 12, "0" * 64, ""]
    numbers = ["0.1", "0.25", "-1.5", "1e-8", "3.0", "0.9", *[""] * 8, "16", "6"]
    keys = ["main/1", "static:aaaa dynamic:bbbb", "random"]
    assert score == ["b.mp4", *numbers, "scored", "", *keys, *[""] * 11, "0" * 64, ""]


def test_intervals_and_reasons_to_abstain_are_columns_and_come_back(tmp_path):
    low, high = (0.0, 0.125, -2.0, -0.5, 2.5), (0.25, 0.5, -1.0, 0.5, 3.5)
    score = Score("a.mp4", "0" * 64, (0.1, 0.25, -1.5, 1e-8, 3.0), 0.9, 16, 6, "aaaa", "bbbb", "random")
    score = dataclasses.replace(score, abstain="few_tokens wide_interval", low=low, high=high)
    rows = [score, scored("b.mp4")]
    cells = write(tmp_path / "t.csv", rows)[1]
    assert dict(zip(HEADER, cells, strict=True)) | {
        "abstain": "few_tokens wide_interval",
        "openness_low": "0.0",
        "openness_high": "0.25",
        "extraversion_low": "-2.0",
        "neuroticism_high": "3.5",
    } == dict(zip(HEADER, cells, strict=True))
    assert list(read_trait_csv(tmp_path / "t.csv", trait_names=TRAITS)) == rows


def test_facts_of_quality_are_columns_and_come_back(tmp_path):
    facts = (2, 1.5, 3, 0.25, 4, 0.875, 0.99, 0.5)
    score = dataclasses.replace(scored("a.mp4"), **dict(zip(QUALITY, facts, strict=True)))
    rows = [score, scored("b.mp4")]
    cells = dict(zip(HEADER, write(tmp_path / "t.csv", rows)[1], strict=True))
    assert [cells[name] for name in QUALITY] == ["2", "1.5", "3", "0.25", "4", "0.875", "0.99", "0.5"]
    assert list(read_trait_csv(tmp_path / "t.csv", trait_names=TRAITS)) == rows


def test_file_is_utf8_without_mark_and_every_line_ends_with_crlf(tmp_path):
    path = tmp_path / "t.csv"
    assert write_trait_csv(path, [scored("Ünï ☃.mp4")], trait_names=TRAITS, model="main/1") == 1
    data = path.read_bytes()
    assert data.startswith(b"video_id,openness,")
    assert "Ünï ☃.mp4".encode() in data
    assert data.count(b"\r\n") == data.count(b"\n") == 2
    assert data.endswith(b"\r\n")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])  # noqa: RUF001
def test_text_that_a_spreadsheet_would_run_is_made_harmless_and_comes_back(tmp_path, start):
    rows = [failed(f"{start}1+1.mp4", reason=f"{start}cmd|' /C calc'!A0")]
    cells = write(tmp_path / "t.csv", rows)[1]
    assert cells[0] == f"'{start}1+1.mp4"
    assert cells[HEADER.index("reason")] == f"'{start}cmd|' /C calc'!A0"
    assert list(read_trait_csv(tmp_path / "t.csv", trait_names=TRAITS)) == rows


def test_name_with_a_dash_and_name_with_an_apostrophe_stay_apart(tmp_path):
    rows = [scored("'-a.mp4"), scored("-a.mp4"), scored("a'-b.mp4")]
    cells = write(tmp_path / "t.csv", rows)
    assert [row[0] for row in cells[1:]] == ["''-a.mp4", "-a.mp4", "a'-b.mp4"]
    assert list(read_trait_csv(tmp_path / "t.csv", trait_names=TRAITS)) == rows


INVISIBLE = "\xa0\ufeff\u200b\x0b\x0c\x1c\x85\u2028\u2029\u202f\u3000\u2060\u200e\xad"
DANGEROUS = [
    "=cmd|' /C calc'!A0",
    "+1+1.mp4",
    "-1+cmd|' /C calc'!A0",
    "-SUM(A1)",
    "-A1:A9",
    "@SUM(A1).mp4",
    " =1",
    "\t=1",
    '"=1"',
    "'=1",
    "a;=cmd|' /C calc'!A0",
    "a;;=1",
    'a;"=1"',
    "a; =1",
    "a;'=1",
    "a,+1",
    "a\t-1",
    "a;\t=1",
    "a\n@1",
    "a\r\n=1",
    "=1;=2",
    "a|=1",
    *(f"{mark}=1" for mark in INVISIBLE),
    *(f"a;{mark}+1" for mark in INVISIBLE),
]


@pytest.mark.parametrize("name", DANGEROUS)
@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_no_program_begins_a_cell_with_a_formula_whatever_it_splits_lines_at(tmp_path, name, separator):
    write(tmp_path / "t.csv", [failed(name)])
    (_, *lines) = re.split("[\r\n]+", (tmp_path / "t.csv").read_text(encoding="utf-8"))
    # Quotes hold nothing together for a program with another separator, nor do they keep a formula from being run.
    for cell in (cell for line in lines for cell in line.split(separator)):
        assert not cell.strip(f'" {INVISIBLE}').startswith(("=", "+", "-", "@")), cell


def test_real_names_that_begin_with_a_dash_stay_exact_for_every_reader_and_a_join_loses_none(tmp_path, corpus):
    names = sorted(read_labels(corpus / "labels" / "annotation_training.pkl").names)
    assert sum(name.startswith("-") for name in names) == 62
    path = tmp_path / "t.csv"
    cells = write(path, map(scored, names))
    assert [row[0] for row in cells[1:]] == names
    labels = pd.DataFrame({"video_id": names, "label": range(len(names))})
    assert len(pd.read_csv(path).merge(labels)) == 6000
    assert pl.read_csv(path)["video_id"].to_list() == names
    found = duckdb.sql(f"SELECT video_id FROM '{path}' JOIN labels USING (video_id) ORDER BY label").fetchall()
    assert [row[0] for row in found] == names


@pytest.mark.parametrize("name", ["-a.mp4", "--b c.mp4", "-d/e_f-1.mp4", "-Zoe\u0308.mp4", "-Zo\u00eb.mp4", "-1"])
def test_a_plain_name_with_a_dash_in_front_stays_as_it_is_in_quotes(tmp_path, name):
    write(tmp_path / "t.csv", [failed(name)])
    assert f'\r\n"{name}",' in (tmp_path / "t.csv").read_bytes().decode()


def test_the_stated_pattern_gives_the_exact_text_in_pandas_polars_and_duckdb(tmp_path):
    names = sorted([*DANGEROUS, "''", "'", "it's.mp4", "-a.mp4", "a;'b.mp4"])
    path = tmp_path / "t.csv"
    write(path, map(failed, names))
    frame = pd.read_csv(path, keep_default_na=False)
    assert frame["video_id"].str.replace(GUARD, GUARD_REPLACEMENT, regex=True).tolist() == names
    column = pl.read_csv(path)["video_id"]
    assert column.str.replace_all(GUARD, "$1$2").to_list() == names
    query = "SELECT regexp_replace(video_id, ?, ?, 'g') FROM read_csv(?, all_varchar=true, quote='\"', escape='\"')"
    rows = duckdb.execute(query, [GUARD, GUARD_REPLACEMENT, str(path)]).fetchall()
    assert [row[0] for row in rows] == names
    assert list(read_trait_csv(path, trait_names=TRAITS)) == list(map(failed, names))


def test_negative_scores_stay_numbers(tmp_path):
    path = tmp_path / "t.csv"
    write(path, [scored("-a.mp4", traits=(-0.5, -1e-9, -3e30, -0.0, 0.0))])
    rows = duckdb.sql(f"SELECT typeof(openness), openness, agreeableness FROM read_csv('{path}')").fetchall()
    assert rows == [("DOUBLE", -0.5, -0.0)]


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
letters = st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("=+-@'\";,\t\r\n ")
names = st.text(letters, min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(names, st.none() | st.tuples(st.tuples(*[float32s] * 5), st.floats(0, 1, width=32)), max_size=6),
    names,
)
def test_any_rows_come_back_and_the_csv_module_sees_the_same_cells(videos, reason):
    rows = [
        failed(name, reason) if videos[name] is None else scored(name, traits=videos[name][0], coverage=videos[name][1])
        for name in sorted(videos)
    ]
    with tempfile.TemporaryDirectory() as folder:
        cells = write(Path(folder) / "t.csv", rows)
        again = list(read_trait_csv(Path(folder) / "t.csv", trait_names=TRAITS))
    assert again == rows
    for row, line in zip(rows, cells[1:], strict=True):
        assert len(line) == len(HEADER)
        if isinstance(row, Score):
            assert [np.float32(cell) for cell in line[1:6]] == [np.float32(value) for value in row.traits]


@pytest.mark.parametrize("rows", [["b", "a"], ["a", "a"]])
def test_rows_out_of_order_and_doubled_are_refused_and_the_old_file_stays(tmp_path, rows):
    path = tmp_path / "t.csv"
    write(path, [scored("old")])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="video_id"):
        write_trait_csv(path, map(scored, rows), trait_names=TRAITS, model="main/1")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_row_with_other_traits_than_the_header_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\b5\b.*\b2\b"):
        write_trait_csv(tmp_path / "t.csv", [scored("a")], trait_names=TRAITS[:2], model="main/1")
    assert not (tmp_path / "t.csv").exists()


def test_many_rows_take_no_more_memory_than_a_few(tmp_path):
    rows = (scored(f"{number:07d}.mp4") for number in range(12_000))
    tracemalloc.start()
    assert write_trait_csv(tmp_path / "t.csv", rows, trait_names=TRAITS, model="main/1") == 12_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / "t.csv").stat().st_size
    assert sum(1 for _ in read_trait_csv(tmp_path / "t.csv", trait_names=TRAITS)) == 12_000


def test_file_that_is_no_trait_csv_is_refused_by_name(tmp_path):
    path = tmp_path / "t.csv"
    write(path, [scored("a.mp4")])
    whole = path.read_text(encoding="utf-8")
    for text in (
        "",
        "a,b\r\n",
        whole.replace("3.0", "three"),
        whole.replace("scored", "done"),
        whole.replace("static:", "x:"),
        whole + "a,b\r\n",
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(StoreError, match=r"t\.csv"):
            list(read_trait_csv(path, trait_names=TRAITS))


def test_csv_that_cannot_be_written_says_so_in_one_line(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(StoreError, match=r"t\.csv") as caught:
        write_trait_csv(tmp_path / "t.csv", [scored("a")], trait_names=TRAITS, model="main/1")
    assert "\n" not in str(caught.value)

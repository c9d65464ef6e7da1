"""Exports of scores with their data packages, read by other programs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from frictionless import Package

from storage import Score, StoreError, Unscored
from storage.exports.columns import trait_columns, trait_tables
from storage.exports.package import package_path, write_export

TRAITS = ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism")
COLUMNS = trait_columns(TRAITS, "main/1")
TIME = datetime(2026, 1, 31, 23, 59, 1, tzinfo=UTC)
FACTS = {
    **{"face_gaps": 1, "longest_gap_s": 0.4, "people": 2, "others_share": 0.5, "cuts": 3},
    **{"confirmed_share": 1.0, "decoded_share": 0.9, "repeated_share": 0.25},
}
BOUNDS = {"low": (0.0, 0.1, 0.2, 0.3, 0.4), "high": (0.5, 0.6, 0.7, 0.8, 0.9)}


def drawn_rows(count: int = 40) -> list[Score | Unscored]:
    """Rows of all kinds: with and without a score, bounds and a time, with names that a spreadsheet would run."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        name = f'{"-=@a"[number % 4]}{number:03d} ü,"\n.mp4'
        if number % 5 == 4:
            rows.append(Unscored(name, "", "no_face", "static:aaaa dynamic:bbbb"))
            continue
        traits = tuple(rng.normal(0.5, 0.3, 5))
        score = Score(name, f"{number:064x}", traits, rng.random(), number, 6, "aaaa", "bbbb", "random")
        if number % 2:
            score = dataclasses.replace(score, **FACTS)
        if number % 3:
            score = dataclasses.replace(score, **BOUNDS, scored_at=TIME, abstain="few_tokens")
        rows.append(score)
    return sorted(rows, key=lambda row: row.video_id)


def export(path: Path, rows=None, columns=COLUMNS) -> dict:
    """Write an export; returns its description."""
    tables = trait_tables(drawn_rows() if rows is None else rows, columns)
    write_export(path, tables, columns, lambda: {"title": "Drawn"})
    return json.loads(package_path(path).read_text(encoding="utf-8"))


def named(*names: str) -> list:
    return [next(column for column in COLUMNS if column.name == name) for name in names]


def test_csv_and_its_data_package_pass_frictionless(tmp_path):
    export(tmp_path / "traits.csv")
    report = Package(str(tmp_path / "traits.csv.datapackage.json")).validate()
    assert report.valid, report.flatten(["title", "message"])
    assert report.stats["tasks"] == 1
    (resource,) = Package(str(tmp_path / "traits.csv.datapackage.json")).resources
    rows = resource.read_rows()
    truth = drawn_rows()
    guard = resource.to_descriptor()["formulaGuard"]
    assert "video_id" in guard["fields"]
    names = [re.sub(guard["pattern"], guard["replacement"], row["video_id"]) for row in rows]
    assert names == [row.video_id for row in truth]
    assert [row["scored_at"] for row in rows] == [row.scored_at if isinstance(row, Score) else None for row in truth]
    for row, expected in zip(rows, truth, strict=True):
        assert (
            row["openness"] is None
            if isinstance(expected, Unscored)
            else np.float32(row["openness"]) == np.float32(expected.traits[0])
        )


@pytest.mark.parametrize("change", [(b"few_tokens", b"fewXtokens"), (b"random", b"rundom"), (b"scored", b"")])
def test_frictionless_finds_a_changed_csv(tmp_path, change):
    path = tmp_path / "traits.csv"
    export(path)
    path.write_bytes(path.read_bytes().replace(*change, 1))
    assert not Package(str(package_path(path))).validate().valid


def test_description_of_parquet_is_a_valid_package_and_its_digest_is_the_file_s(tmp_path):
    path = tmp_path / "traits.parquet"
    package = export(path)
    (resource,) = package["resources"]
    assert list(Package.metadata_validate(package)) == []
    assert resource["bytes"] == path.stat().st_size
    assert resource["hash"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert resource["rows"] == 40
    assert (resource["path"], resource["format"]) == ("traits.parquet", "parquet")


def test_every_column_is_described_and_every_part_of_a_score_is_a_column(tmp_path):
    fields = export(tmp_path / "traits.csv")["resources"][0]["schema"]["fields"]
    assert [field["name"] for field in fields] == [column.name for column in COLUMNS]
    assert all(len(field["description"]) > 10 for field in fields)
    assert {field["name"]: field.get("constraints") for field in fields}["face_coverage"] == {
        "minimum": 0,
        "maximum": 1,
    }
    described = {field["name"]: field for field in fields}
    assert {name: described[name]["type"] for name in FACTS} == {
        **dict.fromkeys(FACTS, "number"),
        **{"face_gaps": "integer", "people": "integer", "cuts": "integer"},
    }
    assert described["longest_gap_s"]["unit"] == "s"
    elsewhere = {"traits", "low", "high", "static_key", "dynamic_key"}  # under the traits' names, and in `features`
    assert {field.name for field in dataclasses.fields(Score)} - elsewhere <= {field["name"] for field in fields}


def test_pandas_and_duckdb_read_the_same_from_both_formats(tmp_path):
    export(tmp_path / "t.csv")
    export(tmp_path / "t.parquet")
    truth = drawn_rows()
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert list(frame["video_id"]) == [row.video_id for row in truth]  # exact, with no apostrophe
    assert frame["openness"].dtype == np.float32
    expected = [row.traits for row in truth if isinstance(row, Score)]
    assert frame[list(TRAITS)].dropna().to_numpy().tolist() == [list(traits) for traits in expected]
    # The one thing that a CSV has to say in another way is the name.
    both = [
        duckdb.sql(
            f"SELECT openness::FLOAT, neuroticism::FLOAT, face_coverage::FLOAT, static_tokens::INT, status, "
            f"people::INT, decoded_share::FLOAT, openness_low::FLOAT, neuroticism_high::FLOAT, epoch(scored_at) "
            f"FROM {source}"
        ).fetchall()
        for source in (f"read_csv('{tmp_path}/t.csv')", f"'{tmp_path}/t.parquet'")
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 40
    assert {row[-1] for row in both[1]} == {None, TIME.timestamp()}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_only_the_named_columns_come_in_their_order(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    package = export(path, columns=named("scored_at", "neuroticism", "video_id"))
    frame = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    assert list(frame.columns) == ["scored_at", "neuroticism", "video_id"]
    assert len(frame) == 40
    assert [field["name"] for field in package["resources"][0]["schema"]["fields"]] == list(frame.columns)
    if suffix == "csv":
        assert Package(str(package_path(path))).validate().valid


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export_that_breaks_off_leaves_the_older_one_whole(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    export(path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    rows = drawn_rows()
    with pytest.raises(ValueError, match="each once"):
        export(path, [*rows, rows[-1]])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_data_that_cannot_take_their_place_have_no_description_of_others(tmp_path):
    path = tmp_path / "t.csv"
    export(path)
    path.unlink()
    path.mkdir()  # which a file cannot replace
    (path / "kept").touch()
    with pytest.raises(StoreError):
        export(path)
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]

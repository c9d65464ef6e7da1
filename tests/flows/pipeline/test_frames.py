"""The command `export --frames`: where the face is in every frame, against tracks drawn with known places."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from frictionless import Package

from extractors.faces.quality import QUALITY
from flows.archive.families import families_of
from flows.archive.videos import Archive, VideoFile
from flows.config.load import load_config
from flows.pipeline.frames import VIDEOS_AT_A_TIME, export_frames
from storage import Failure, FailureLog, FeatureStore, VideoFeatures

COLUMNS = ["video_id", "frame", "timestamp", "confidence", "success", "box_x", "box_y", "box_width", "box_height"]
COLUMNS += ["right_eye_x", "right_eye_y", "left_eye_x", "left_eye_y", "shot"]


def track(name: str, frames: int = 6) -> VideoFeatures:
    """A face that moves right by 3 px a frame; frame 2 is interpolated, frame 4 unknown and the first of shot 1."""
    rows = np.empty((frames, 10), np.float32)
    rows[:, :5] = [10, 20, 64, 80.5, 0.9]
    rows[:, 5:9] = [30, 40, 50, 41]
    rows[:, [0, 5, 7]] += 3 * np.arange(frames)[:, None]
    rows[:, 9] = np.arange(frames) >= 4
    rows[2, 4] = 0
    rows[4] = [*[np.nan] * 4, 0, *[np.nan] * 4, 1]
    start_s = np.arange(frames) / 25
    quality = {name: np.ones(frames, np.float32) for name in ("detected", *QUALITY)}
    return VideoFeatures(name, hashlib.sha256(name.encode()).hexdigest(), rows, start_s, start_s + 0.04, quality)


@pytest.fixture
def config(tmp_path):
    return load_config(flags={"store.path": tmp_path / "store"})


def fill(config, *shards: list[VideoFeatures]) -> None:
    for shard in shards:
        FeatureStore(config.store.path).write(families_of(config).faces, shard)


def as_polars(path: Path) -> pd.DataFrame:
    return pl.read_parquet(path).to_pandas()


def as_duckdb(path: Path) -> pd.DataFrame:
    return duckdb.sql(f"SELECT * FROM '{path}'").df()


@pytest.mark.parametrize("read", [pd.read_csv, pd.read_parquet, as_polars, as_duckdb])
def test_each_frame_is_a_row_with_the_numbers_of_the_track(config, tmp_path, read):
    fill(config, [track("b/2.mp4")], [track("a/1.mp4", 5)])
    out = tmp_path / f"frames.{'csv' if read is pd.read_csv else 'parquet'}"
    export_frames.fn(config, None, out)
    table = read(out)
    assert list(table.columns) == COLUMNS
    assert table["video_id"].tolist() == ["a/1.mp4"] * 5 + ["b/2.mp4"] * 6
    assert table["frame"].tolist() == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6]
    assert table["timestamp"].tolist() == [0, 0.04, 0.08, 0.12, 0.16, 0, 0.04, 0.08, 0.12, 0.16, 0.2]
    video = table[table["video_id"] == "b/2.mp4"]
    np.testing.assert_allclose(video["confidence"], [0.9, 0.9, 0, 0.9, 0, 0.9], rtol=1e-6)
    assert video["success"].tolist() == [1, 1, 1, 1, 0, 1]
    np.testing.assert_array_equal(video["box_x"], [10, 13, 16, 19, np.nan, 25])
    np.testing.assert_array_equal(video["box_height"], [80.5, 80.5, 80.5, 80.5, np.nan, 80.5])
    np.testing.assert_array_equal(video["left_eye_x"], [50, 53, 56, 59, np.nan, 65])
    assert video["shot"].tolist() == [0, 0, 0, 0, 1, 1]


def test_unknown_places_are_empty_cells_and_nulls(config, tmp_path):
    fill(config, [track("a.mp4")])
    for ending in ("csv", "parquet"):
        export_frames.fn(config, None, tmp_path / f"frames.{ending}")
    assert (tmp_path / "frames.csv").read_bytes().split(b"\r\n")[5] == b'"a.mp4",5,0.16,0.0,0,,,,,,,,,1'
    nulls = duckdb.sql(f"SELECT count(*) - count(box_x) FROM '{tmp_path / 'frames.parquet'}'").fetchall()
    assert nulls == [(1,)]


def test_table_passes_frictionless_and_says_which_faces_it_has(config, tmp_path):
    fill(config, [track("=1+1.mp4"), track("b.mp4")])
    export_frames.fn(config, None, tmp_path / "frames.csv")
    report = Package(str(tmp_path / "frames.csv.datapackage.json")).validate()
    assert report.valid, report.flatten(["title", "message"])
    package = json.loads((tmp_path / "frames.csv.datapackage.json").read_text())
    assert package["provenance"]["features"]["faces"]["key"] == families_of(config).faces.key
    assert package["resources"][0]["schema"]["primaryKey"] == ["video_id", "frame"]
    assert package["resources"][0]["rows"] == 12
    assert "'=1+1.mp4" in (tmp_path / "frames.csv").read_text()  # which a spreadsheet would run otherwise


def test_videos_are_in_order_whatever_shards_they_are_in(config, tmp_path):
    names = [f"{number:03d}.mp4" for number in range(3 * VIDEOS_AT_A_TIME + 1)]
    mixed = [names[place] for place in np.random.default_rng(0).permutation(len(names))]
    fill(config, *([track(name) for name in mixed[first::3]] for first in range(3)))
    export_frames.fn(config, None, tmp_path / "frames.parquet")
    table = pd.read_parquet(tmp_path / "frames.parquet")
    assert table["video_id"].tolist() == [name for name in names for _ in range(6)]


def test_only_named_videos_of_present_bytes_have_rows(config, tmp_path, capsys):
    tracks = [track(f"{name}.mp4") for name in "abc"]
    fill(config, tracks)
    videos = [VideoFile(one.video_id, tmp_path / one.video_id, one.video_sha256) for one in tracks[:2]]
    changed = dataclasses.replace(videos[1], sha256="0" * 64)
    export_frames.fn(config, Archive([videos[0], changed]), tmp_path / "frames.parquet")
    assert pd.read_parquet(tmp_path / "frames.parquet")["video_id"].unique().tolist() == ["a.mp4"]
    assert "6 frames of 1 video; not extracted 1" in capsys.readouterr().err


@pytest.mark.parametrize("named", [False, True])
def test_rejected_videos_are_counted_by_reason(config, tmp_path, capsys, named):
    one, features = track("a.mp4"), families_of(config).features
    fill(config, [one])
    lost = [(f"{place}.mp4", f"{place}" * 64) for place in range(3)]
    reasons = ["no_face", "no_face", "truncated"]
    FailureLog(config.store.path).add(
        [
            Failure(*which, features, "faces", reason, "what was wrong", 1)
            for which, reason in zip(lost, reasons, strict=True)
        ]
    )
    files = [VideoFile(name, tmp_path / name, digest) for name, digest in [*lost, (one.video_id, one.video_sha256)]]
    export_frames.fn(config, Archive(files) if named else None, tmp_path / "frames.parquet")
    said = " ".join(capsys.readouterr().err.split())
    assert "6 frames of 1 video; rejected 3: 2 no_face, 1 truncated; `traitline failures list" in said


def test_command_needs_no_weights_and_no_model(config, tmp_path, traitline):
    fill(config, [track("a.mp4")])
    done = traitline("export", "--store", "store", "--frames", "frames.parquet", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 frames of 1 video" in done.stderr
    assert len(pd.read_parquet(tmp_path / "frames.parquet")) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frames", "frames.txt"], ".csv or .parquet"),
        (["--frames", "frames.csv", "--model", "traits/1"], "cannot be combined with --model"),
        (["--frames", "frames.csv", "--set", "video.fps=10"], "traitline extract"),
    ],
)
def test_mistakes_are_one_line(config, tmp_path, traitline, arguments, words):
    fill(config, [track("a.mp4")])
    done = traitline("export", "--store", "store", *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("frames*"))

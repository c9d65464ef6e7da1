"""The command `export`: which videos, which columns, which times; what is beside it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from drawn_store import draw_store
from model_version import save_version

from flows.archive.families import families_of
from flows.archive.models import ModelReference
from flows.archive.videos import Archive, VideoFile
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.pipeline.export import export
from storage import Failure, FailureLog, FeatureStore, Score, ScoreStore

MODEL = ModelReference("traits", "1")
FIRST = datetime(2026, 1, 31, 23, 0, tzinfo=UTC)
WITHOUT_FEATURES = [(f"without {number}.mp4", f"{number}" * 64) for number in range(3)]  # the last was never tried
LIMIT_MB = 300  # beyond the list of videos


@pytest.fixture
def store(tmp_path) -> Path:
    """Twelve extracted videos: four scored on each of two days, one without a time, three not; two others refused."""
    draw_store(tmp_path, people=3, clips_each=4)
    root = tmp_path / "store"
    families = families_of(load_config(flags={"store.path": root, "weights": "random"}))
    done = sorted(FeatureStore(root).done(families.static).items())
    keys = (families.static.key, families.dynamic.key)
    scores = [Score(name, sha256, (0.25,) * 5, 1, 2, 3, *keys, "random") for name, sha256 in done[:9]]
    times = [FIRST] * 4 + [FIRST + timedelta(days=1)] * 4 + [None]
    ScoreStore(root).write(
        "traits", "1", [dataclasses.replace(score, scored_at=time) for score, time in zip(scores, times, strict=True)]
    )
    other = dataclasses.replace(scores[0], video_id=done[9][0], video_sha256=done[9][1], static_key="other")
    ScoreStore(root).write("traits", "1", [other])  # a score from other features is none
    refused = [done[10], *WITHOUT_FEATURES[:2]]  # the first was extracted since
    FailureLog(root).add([Failure(*video, families.features, "faces", "no_face", "no face", 1) for video in refused])
    facts = {
        "weights": "random",
        "static_key": keys[0],
        "dynamic_key": keys[1],
        "labels_sha256": "1" * 64,
        "settings": {},
    }
    save_version(root / "models" / "traits" / "1", **facts)
    return root


def test_every_video_is_a_row_and_the_package_says_where_it_came_from(store, tmp_path):
    out = tmp_path / "traits.csv"
    config = load_config(flags={"store.path": store, "weights": "random", "out": out})
    export.fn(config, archive_of(config), MODEL)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["status"], row["reason"]) for row in rows] == [
        *[("scored", "")] * 9,
        *[("failed", "not_scored")] * 3,
        *[("failed", "no_face")] * 2,
        ("failed", "not_extracted"),
    ]
    assert [row["scored_at"] for row in rows] == [
        *["2026-01-31T23:00:00Z"] * 4,
        *["2026-02-01T23:00:00Z"] * 4,
        *[""] * 7,
    ]
    package = json.loads((tmp_path / "traits.csv.datapackage.json").read_text())
    origin = package["provenance"]
    assert origin["model"] == "traits/1"
    assert origin["weights"] == "random"
    assert origin["model_metadata"]["labels_sha256"] == "1" * 64
    assert {name: family["key"] for name, family in origin["features"].items()} == {
        kind: origin["model_metadata"][f"{kind}_key"] for kind in ("static", "dynamic")
    }
    assert (origin["videos"], origin["scored"]) == (15, 9)
    assert origin["without_a_score"] == {"not_scored": 3, "no_face": 2, "not_extracted": 1}
    for words in ("employment", "RANDOM"):
        assert words in package["description"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["--since", "2026-02-01T00:00Z"], 4),
        (["--until", "2026-02-01T00:00Z"], 4),
        (["--since", "2026-02-01T00:00+01:00", "--until", "2026-02-02T00:00+01:00"], 4),  # both ends are times scored
        (["--since", "2026-01-01T00:00Z"], 8),
        (["--since", "2027-01-01T00:00Z"], 0),
    ],
)
def test_range_of_time_takes_what_was_scored_from_its_start_to_before_its_end(store, times, expected):
    pairs = dict(zip(times[::2], times[1::2], strict=True))
    flags = {"store.path": store, "weights": "random", "out": store.parent / "t.parquet"}
    config = load_config(flags=flags | {f"export.{option[2:]}": time for option, time in pairs.items()})
    report = export.fn(config, archive_of(config), MODEL)
    assert (report.scored, report.reasons) == (expected, {})
    ((count,),) = duckdb.sql(f"SELECT count(*) FROM '{store.parent}/t.parquet'").fetchall()
    assert count == expected


def archive_of(config: RunConfig) -> Archive:
    """The drawn videos."""
    done = FeatureStore(config.store.path).done(families_of(config).static)
    return Archive(VideoFile(name, Path(name), sha256) for name, sha256 in sorted([*done.items(), *WITHOUT_FEATURES]))


def test_a_model_that_has_scored_nothing_says_how_to_score(store, traitline):
    shutil.copytree(store / "models" / "traits", store / "models" / "new")
    result = traitline("export", "--store", store, "--model", "new/1", "--weights", "random")
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stderr.split())
    assert "0 videos scored; rejected 2: 2 no_face; not scored 12;" in said
    for command in (f"traitline score --store {store} --model new/1", f"traitline failures list --store {store}"):
        assert command in said


def test_scores_without_a_time_are_counted_where_a_range_leaves_them_out(store, tmp_path, traitline):
    out = tmp_path / "t.csv"
    result = traitline(
        *("export", "--store", store, "--out", out, "--weights", "random", "--since", "2026-01-01T00:00Z"),
        *("--columns", "neuroticism,video_id"),
    )
    assert result.returncode == 0, result.stderr
    assert "1 score " in result.stderr
    lines = out.read_text().splitlines()
    assert lines[0] == "neuroticism,video_id"
    assert len(lines) == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--columns", "video_id,charm"], ["'charm'", "video_id, openness"]),
        (["--columns", "video_id,video_id"], ["column", "video_id"]),
        (["--since", "2026-01-01"], ["--since", "timezone"]),
        (["--since", "2026-01-02T00:00Z", "--until", "2026-01-01T00:00Z"], ["since", "until"]),
        (["--out", "traits.xlsx"], ["traits.xlsx", ".csv", ".parquet"]),
    ],
)
def test_what_a_person_got_wrong_is_one_line(store, traitline, arguments, words):
    result = traitline("export", "--store", store, "--weights", "random", *arguments)
    assert result.returncode == 1
    assert all(word in result.stderr for word in words), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_million_scores_are_exported_in_bounded_memory(tmp_path, suffix):
    root, count = tmp_path / "store", 1_000_000
    families = families_of(load_config(flags={"store.path": root, "weights": "random"}))
    keys = (families.static.key, families.dynamic.key)
    scores = ScoreStore(root)
    for start in range(0, count, 4096):
        part = range(start, min(start + 4096, count))
        scores.write(
            "traits", "1", (Score(f"{row:07d}.mp4", "", (row / count,) * 5, 1, 16, 6, *keys, "random") for row in part)
        )
    save_version(root / "models" / "traits" / "1")
    out = tmp_path / f"traits.{suffix}"
    program = f"""
from pathlib import Path
from flows.config.load import load_config
from flows.pipeline.export import export
from flows.archive.videos import Archive, VideoFile
from flows.archive.models import ModelReference
config = load_config(flags={{"store.path": {str(root)!r}, "weights": "random", "out": {str(out)!r}}})
folder = Path("clips")
videos = Archive(VideoFile(f"{{row:07d}}.mp4", folder, "") for row in range({count}))
def memory_kb(name):  # of this process alone, unlike ru_maxrss, which begins with its parent's
    (line,) = (line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1])
before = memory_kb("VmRSS")
assert export.fn(config, videos, ModelReference("traits", "1")).scored == {count}
print(before, memory_kb("VmHWM"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    before, peak = (int(number) / 1000 for number in done.stdout.split()[-2:])
    print(f"\n{suffix}: {before:.0f} MB with the list of videos, {peak:.0f} MB at most")
    assert peak - before < LIMIT_MB
    source = f"read_csv('{out}')" if suffix == "csv" else f"'{out}'"
    (found,) = duckdb.sql(f"SELECT count(*), count(DISTINCT video_id), sum(openness) FROM {source}").fetchall()
    assert found[:2] == (count, count)
    assert found[2] == pytest.approx((count - 1) / 2, rel=1e-6)


def test_the_package_names_what_could_not_be_read(store, tmp_path):
    config = load_config(flags={"store.path": store, "weights": "random", "out": tmp_path / "traits.csv"})
    export.fn(config, Archive(archive_of(config), {"b": "Permission denied"}), MODEL)
    package = json.loads((tmp_path / "traits.csv.datapackage.json").read_text())
    assert package["provenance"]["not_read"] == {"b": "Permission denied"}

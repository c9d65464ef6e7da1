"""A store of before the manifest, drawn by the version that wrote such stores, comes over as a whole.

`data/old-store` holds: static features (Parquet) of a.mp4 from other bytes and b.mp4, then of a.mp4 again; dynamic
features (HDF5, float16) of both; two failures, one of which was tried again; scores of which one was replaced; a model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from storage import FailureLog, Family, FeatureStore, ModelSerializer, ScoreStore, StoreError
from storage.maintenance.garbage import unused_families
from storage.maintenance.upgrading import find, upgrade
from storage.maintenance.verification import find_problem, parts
from storage.shards.family import known_keys
from storage.tables.seen import SeenVideos

OLD = Path(__file__).parent.parent / "data" / "old-store"
STATIC = Family("static", 8, {"fps": 25.0, "weights": "random"}, ("face_coverage", "face_score"))
DYNAMIC = Family("dynamic", 4, {"fps": 25.0, "window": [1, 2.5]})
KEYS = f"static:{STATIC.key} dynamic:{DYNAMIC.key}"


@pytest.fixture
def old(root):
    for path in OLD.rglob("*"):
        if path.is_file():
            target = root / path.relative_to(OLD).as_posix()
            if isinstance(target, Path):
                target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return root


on_this_machine = pytest.mark.parametrize("root", ["local"], indirect=True)


def bring_over(root) -> list:
    found = find(root)
    return [] if found is None else upgrade(root, found, lambda: None)


def files(root) -> dict[str, bytes]:
    return {str(path)[len(str(root)) :]: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def contents(root) -> dict[str, object]:
    """All that readers see, and the names of the shards."""
    store = FeatureStore(root)
    return {
        "features": {
            (family.key, video.video_id): (video.video_sha256, video.checksum())
            for family in store.families()
            for video in store.read(family)
        },
        "shards": [path.name for family in store.families() for path in store.shards(family)],
        "failures": [(attempt.failure, attempt.failed_at) for attempt in FailureLog(root).attempts_in_order()],
        "scores": list(ScoreStore(root).read("apparent", "1")),
        "seen": SeenVideos(root).current(),
        "model": ModelSerializer(root).metadata("apparent", "1"),
    }


def test_everything_comes_over(old, draw, assert_same):
    assert bring_over(old) == []
    store = FeatureStore(old)
    assert store.families() == [DYNAMIC, STATIC]
    found = {video.video_id: video for video in store.read(STATIC)}
    assert_same(found.pop("a.mp4"), draw("a.mp4", STATIC))
    assert_same(found.pop("b.mp4"), draw("b.mp4", STATIC))
    assert not found
    found = {video.video_id: video for video in store.read(DYNAMIC)}
    assert_same(found.pop("a.mp4"), draw("a.mp4", DYNAMIC).rounded("float16"))
    assert_same(found.pop("b.mp4"), draw("b.mp4", DYNAMIC).rounded("float16"))
    assert not found

    scores = {score.video_id: score for score in ScoreStore(old).read("apparent", "1")}
    assert {name: score.traits[0] for name, score in scores.items()} == {"a.mp4": 0.625, "b.mp4": 0.375}
    assert {score.features for score in scores.values()} == {KEYS}
    assert (scores["a.mp4"].high, scores["a.mp4"].cuts) == ((1, 1, 1, 1, 1), 2)
    assert (scores["b.mp4"].high, scores["b.mp4"].scored_at) == (None, None)

    attempts = FailureLog(old).attempts_in_order()
    assert [(one.failure.video_id, one.failure.attempts) for one in attempts] == [
        ("a.mp4", 1),
        ("z.mp4", 1),
        ("z.mp4", 2),
    ]
    assert {failure.video_id for failure in FailureLog(old).refused(KEYS).values()} == {"a.mp4", "z.mp4"}
    # The first failures came after the first shard and before the others; the last one came after all.
    versions = {(row.shard, version) for version, row in store.manifest.rows(STATIC.key, video_id=["a.mp4"])}
    first, second = [version for _, version in sorted(versions)]
    assert first <= attempts[0].manifest_version < second <= attempts[2].manifest_version
    assert attempts[0].failed_at.year == 2026

    digest = hashlib.sha256(b"a.mp4").hexdigest()
    assert SeenVideos(old).current() == {"a.mp4": digest, "z.mp4": hashlib.sha256(b"z.mp4").hexdigest()}
    models = ModelSerializer(old)
    metadata = models.metadata("apparent", "1")
    assert metadata["static_key"] in known_keys(STATIC)
    assert metadata["dynamic_key"] in known_keys(DYNAMIC)
    models.verify("apparent", "1")

    assert [problem for part in parts(old) if (problem := find_problem(part))] == []
    left = files(old)
    old_names = [str(path.relative_to(OLD)) for path in OLD.rglob("*") if path.is_file() and "models" not in path.parts]
    assert not [name for name in old_names if f"/{name}" in left]
    old_keys = {path.name for path in (OLD / "features").glob("*/*")}
    old_names = {name for name, data in left.items() for key in old_keys if key in name or key.encode() in data}
    assert old_names == {"/models/apparent/1/metadata.json"}


def test_a_second_upgrade_does_nothing(old):
    bring_over(old)
    before = files(old)
    assert find(old) is None
    assert files(old) == before


def test_new_features_come_after_those_brought_over(old, draw, assert_same):
    bring_over(old)
    FeatureStore(old).write(STATIC, [draw("a.mp4", STATIC, content="newer")])
    (found,) = FeatureStore(old).read(STATIC, ["a.mp4"])
    assert_same(found, draw("a.mp4", STATIC, content="newer"))


@on_this_machine
def test_dry_run_changes_nothing_and_yes_upgrades(old):
    before = files(old)
    shown = CliRunner().invoke(app, ["store", "upgrade", "--store", str(old)])
    assert shown.exit_code == 0, shown.output
    assert "2 shards" in shown.output
    assert "--yes" in shown.output
    assert files(old) == before
    refused = CliRunner().invoke(app, ["store", "ls", "--store", str(old)])
    assert refused.exit_code == 1
    assert "traitline store upgrade" in " ".join(refused.output.split())
    done = CliRunner().invoke(app, ["store", "upgrade", "--store", str(old), "--yes"])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["store", "verify", "--store", str(old)]).exit_code == 0
    assert "nothing to upgrade" in CliRunner().invoke(app, ["store", "upgrade", "--store", str(old)]).output


@pytest.mark.parametrize("left", ["features", "failures", "seen", "scores"])
def test_old_store_is_refused_in_one_line(old, left):
    for path in list(old.rglob("*")):
        if path.is_file() and f"/{left}/" not in str(path)[len(str(old)) :]:
            path.unlink()
    with pytest.raises(StoreError, match="traitline store upgrade") as refusal:
        FeatureStore(old)
    assert "\n" not in str(refusal.value)
    bring_over(old)
    FeatureStore(old)


@on_this_machine
def test_live_claim_stops_it(old):
    claim = old / "leases" / next((OLD / "features" / "static").iterdir()).name / "00000001.json"
    claim.parent.mkdir(parents=True)
    claim.write_text("{}")
    with pytest.raises(StoreError, match="a run works on"):
        find(old)
    claim.with_name(f"{claim.stem}.end").write_text("{}")
    bring_over(old)
    assert not claim.parent.exists()


@on_this_machine
def test_features_of_a_model_of_before_the_manifest_are_in_use(old):
    bring_over(old)
    for path in (old / "scores").rglob("*"):
        if path.is_file():
            path.unlink()
    assert unused_families(old, idle_s=0) == []
    for path in (old / "models").rglob("*.json"):
        path.unlink()
    assert {family.key for family in unused_families(old, idle_s=0)} == {STATIC.key, DYNAMIC.key}


@on_this_machine
def test_family_without_anything_readable_is_named(old):
    folder = next(old.glob("features/dynamic/*"))
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(StoreError, match="out of the store"):
        find(old)


@on_this_machine
def test_writes_of_the_old_version_meanwhile_are_not_lost(old):
    found = find(old)
    late = old / "scores" / "apparent" / "1" / "scores-20991231T000000000000-000000000000.parquet"
    shutil.copy(next(late.parent.iterdir()), late)
    with pytest.raises(StoreError, match="older version has just written"):
        upgrade(old, found, lambda: None)
    assert late.exists()
    bring_over(old)
    assert not late.exists()


def test_damaged_files_go_to_quarantine_and_the_rest_comes_over(old, draw):
    shard = next(path for path in sorted(old.rglob("*.h5")))
    failures = min(old.glob("failures/*"), key=str)
    description = next(old.glob("features/static/*/family.json"))
    vectors = draw("a.mp4", DYNAMIC).vectors.astype(np.float16).tobytes()
    for path, place in ((shard, shard.read_bytes().index(vectors)), (failures, 40)):
        data = bytearray(path.read_bytes())
        data[place] ^= 0x10
        path.write_bytes(bytes(data))
    description.write_bytes(b"{}")
    aside = bring_over(old)
    assert sorted(path.name for path in aside) == sorted([shard.name, failures.name])
    assert all(path.exists() for path in aside)
    store = FeatureStore(old)
    assert sorted(store.done(STATIC)) == ["a.mp4", "b.mp4"]
    assert store.done(DYNAMIC) == {}
    assert [failure.attempts for failure in FailureLog(old).current()] == [2]


_KILLED = """
import os, signal, sys
from storage.maintenance.upgrading import find, upgrade
root, left = sys.argv[1], int(sys.argv[2])
def count(event, arguments):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
found = find(root)
sys.addaudithook(count)
upgrade(root, found, lambda: None)
print(-left)
"""


@on_this_machine
@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_anywhere_a_rerun_ends_in_the_same_store(old, tmp_path_factory, kills):
    def copy() -> Path:
        return Path(shutil.copytree(old, tmp_path_factory.mktemp("killed") / "store"))

    def run(store: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _KILLED, str(store), str(kill_at)]
        return subprocess.run(command, capture_output=True, text=True)

    done = copy()
    steps = int(run(done, 0).stdout)
    expected = contents(done)
    # Not at the last steps: how many there are differs by a few from run to run.
    for kill_at in np.linspace(2, 0.9 * steps, kills).astype(int):
        store = copy()
        assert run(store, kill_at).returncode == -signal.SIGKILL
        if (store / "upgrade.json").exists():
            with pytest.raises(StoreError, match="store upgrade"):
                FeatureStore(store)
        bring_over(store)
        assert contents(store) == expected
        assert not [name for name in files(store) if "family.json" in name and "_family" not in name]
        assert json.dumps(sorted(files(store))).count("shard-") == 3

"""Erasing a person: nothing of them is left in any byte of the store, and everything of the others is."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from every_byte import files_with
from model_version import save_version

from storage import Failure, FailureLog, Family, FeatureStore, ModelSerializer, Score, ScoreStore, StoreError
from storage.files.commit import commit_file, remove_folder
from storage.leases.leases import Leases
from storage.maintenance.erasing import erase, find_traces, interrupted
from storage.maintenance.garbage import leftovers, unused_families
from storage.maintenance.rewriting import plan_merges, rewrite
from storage.maintenance.verification import find_problem, parts, rebuild_manifest
from storage.models.provenance import clip_marks
from storage.tables import table
from storage.tables.in_step import VIDEOS
from storage.tables.seen import SeenVideos

on_this_machine = pytest.mark.parametrize("root", ["local"], indirect=True)

MOTION = Family("dynamic", 6, {"fps": 25.0})
ANNA = 'people/Änna "A" & co/1.mp4'
COPY = "copies/of-it.mp4"
FAMILIES = [Family("static", 8, {"fps": 25.0, "weights": "random"}, ("face_coverage", "face_score")), MOTION]
OTHERS = [f"people/b{number}.mp4" for number in range(6)]


def batch_of(digests: dict[str, str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"video_id": list(digests), "video_sha256": list(digests.values())}, VIDEOS)


def put(path, data: bytes) -> None:
    with commit_file(path) as temporary:
        temporary.write_bytes(data)


@pytest.fixture
def anna(draw):
    """All features that were ever made of Anna's videos."""
    contents = [(ANNA, "old"), (ANNA, "new")]
    own = [draw(name, family, content=content) for (name, content), family in product(contents, FAMILIES)]
    return own


@pytest.fixture(scope="session")
def past(open_store, draw, tmp_path_factory):
    """Folder of a store with a past: superseded features, merged and orphaned shards, commits and checkpoints of every
    table. Tests copy it, which on object storage takes a tenth of the requests."""
    root = tmp_path_factory.mktemp("past")
    store = open_store(root)
    digest = {name: draw(name).video_sha256 for name in OTHERS}
    digest[ANNA] = draw(ANNA, content="new").video_sha256
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "CHECKPOINT_EVERY", 5)
        for family in FAMILIES:
            old, new = (draw(ANNA, family, content=content) for content in ("old", "new"))
            store.write(family, [old, draw(OTHERS[0], family)])
            store.write(family, [draw(OTHERS[1], family)])
            store.write(family, [draw(OTHERS[2], family), new, draw(OTHERS[3], family)])
            kept = store.folder(family) / store.shards(family)[0].name
            data = kept.read_bytes()
            for sources in plan_merges(store, family, target_bytes=200):
                rewrite(store, family, sources)
            put(kept.with_name(f"shard-000000000000-abcdef012345{kept.suffix}"), data)  # left by a killed writer
            store.write(family, [draw(OTHERS[4], family)])
            store.write(family, [draw(OTHERS[5], family)])
        log, seen, scores = FailureLog(root), SeenVideos(root), ScoreStore(root)
        for name in (ANNA, *OTHERS):
            log.add([Failure(name, digest[name], "key", "decode", "no_video", f"{name} is empty", 1)])
            seen.note([batch_of({name: ""})])  # it could not be read
            seen.note([batch_of({name: digest[name]})])
            row = Score(name, digest[name], (0.5,) * 5, 1.0, 4, 4, "s", "d", "random")
            scores.write("traits", "1", [row])
        for each in (log.table, seen.table, store.manifest.table):
            each.compact()
        seen.note([batch_of({OTHERS[0]: digest[OTHERS[0]]})])
    page = f'<p>{ANNA.replace("&", "&amp;").replace(chr(34), "&#34;")}<img src="data:,anna">'
    put(root / "reports/traits-1.html", page.encode())
    put(root / "reports/other.html", OTHERS[0].encode())
    put(root / "exports/traits-1.csv", f'video_id\r\n"{ANNA.replace(chr(34), chr(34) * 2)}"\r\n'.encode())
    put(root / "exports/traits-1.csv.datapackage.json", b"{}")
    put(root / "runs/1-extract.json", json.dumps({"videos": [ANNA]}).encode())
    put(root / "runs/2-extract.log", f"{digest[ANNA]}".encode())
    sink = io.BytesIO()
    # As `flows.archive.videos.digests` writes it, by a run that was killed before it noted anything else.
    paths = [f"/videos/{name}".encode() for name in (ANNA, *OTHERS)]
    pq.write_table(pa.table({"path": paths, "sha256": [f"{0:064}"] * len(paths)}), sink, compression="zstd")
    put(root / "runs/digests.parquet", sink.getvalue())
    put(root / "runs/evaluation-0123/mean-seed0-ab.npz", b"scores of all clips")
    put(root / "reports/features-1/static-components.png", b"a point for each clip")
    put(root / "leases/key/00000001.json", b"{}")
    put(root / "leases/key/00000001.end", b"{}")
    return root


@pytest.fixture
def filled(open_store, root, past, monkeypatch):
    """A copy of the store with a past, with what killed processes left and a lease."""
    monkeypatch.setattr(table, "CHECKPOINT_EVERY", 5)
    if isinstance(root, Path):
        shutil.copytree(past, root, dirs_exist_ok=True)
        for name in ("runs/evaluation-0123/.tmp-1-a.npz", "exports/.tmp-2-old/a.csv", "features/.tmp-3-a"):
            put(root / name, ANNA.encode())
    else:
        for path in past.rglob("*"):
            if path.is_file():
                (root / path.relative_to(past).as_posix()).write_bytes(path.read_bytes())
    with Leases(root, "other") as lease:
        lease.claim(lambda _: {ANNA: 1})
    return open_store(root)


def found_in(root, anna) -> set[str]:
    """Return the files that hold anything of Anna."""
    return files_with(root, {ANNA, COPY, "Änna", "nna ", *(video.video_sha256 for video in anna)}, anna)


def content_of(root) -> dict:
    store = FeatureStore(root)
    found = {(video.video_id, family.name): video.checksum() for family in FAMILIES for video in store.read(family)}
    found["failures"] = [row.video_id for row in FailureLog(root).current()]
    found["seen"] = SeenVideos(root).current()
    found["scores"] = list(ScoreStore(root).read("traits", "1"))
    return found


def without_anna(content: dict) -> dict:
    rest = {key: value for key, value in content.items() if key[0] not in (ANNA, COPY)}
    rest["failures"] = [name for name in content["failures"] if name != ANNA]
    rest["seen"] = {name: digest for name, digest in content["seen"].items() if name not in (ANNA, COPY)}
    rest["scores"] = [row for row in content["scores"] if row.video_id != ANNA]
    return rest


def test_nothing_of_a_person_is_left_in_any_byte(root, filled, anna):
    SeenVideos(root).note([batch_of({COPY: anna[-1].video_sha256})])
    before, tops = content_of(root), {name.split("/")[0] for name in found_in(filled.root, anna)}
    checkpoints = [name for name in found_in(filled.root, anna) if ".checkpoint" in name]
    assert {name.split("/")[0] for name in checkpoints} == {"manifest", "failures", "seen", "scores"}
    assert tops == {"manifest", "features", "failures", "seen", "scores", "reports", "exports", "runs", "leases"}
    traces = find_traces(root, [ANNA])
    assert traces.videos == {ANNA, COPY}
    assert set(traces.rows) == {"manifest", "failures", "seen", "scores/traits/1"}
    assert content_of(root) == before  # so far, nothing is changed
    erase(root, traces)
    assert found_in(filled.root, anna) == set()
    assert content_of(root) == without_anna(before)
    assert [find_problem(part) for part in parts(root)] == [None] * len(parts(root))
    left = {
        str(path.relative_to(filled.root))
        for top in ("reports", "exports", "runs")
        for path in (filled.root / top).rglob("*")
        if path.is_file()
    }
    assert left == {"reports/other.html"}
    assert not find_traces(root, [ANNA])
    assert not interrupted(root)
    SeenVideos(root).note([batch_of({"new.mp4": "00"})])  # tables continue
    filled.write(MOTION, [anna[1]])
    assert FeatureStore(root).done(MOTION)[ANNA] == anna[1].video_sha256


def test_names_that_no_table_and_no_shard_holds_are_told_and_remove_nothing(root, filled, anna):
    before = content_of(root)
    traces = find_traces(root, ["", "a", "people", "1.mp4", ANNA.upper()])
    assert (traces.videos, traces.unheld) == (set(), ["", "1.mp4", ANNA.upper(), "a", "people"])
    assert (traces.rows, traces.shards, traces.files, traces.of_all) == ({}, [], [], set())
    traces = find_traces(root, [ANNA, "people"])
    assert (traces.videos, traces.unheld) == ({ANNA}, ["people"])
    erase(root, traces)
    assert content_of(root) == without_anna(before)
    assert find_traces(root, [ANNA]).unheld == [ANNA]


def test_a_video_that_only_the_shard_of_a_killed_writer_holds_is_erased(root, filled, draw):
    orphan = draw("orphan.mp4", MOTION)
    path = FeatureStore(root).shards(MOTION)[0]
    FeatureStore(filled.root / "other", format={".h5": "hdf5"}.get(path.suffix, "parquet")).write(MOTION, [orphan])
    (other,) = FeatureStore(filled.root / "other").shards(MOTION)
    put(path.with_name(f"shard-000000000000-ffffffffffff{path.suffix}"), other.read_bytes())
    remove_folder(filled.root / "other")
    traces = find_traces(root, ["orphan.mp4"])
    assert traces.videos == {"orphan.mp4"}
    erase(root, traces)
    assert files_with(filled.root, {"orphan.mp4"}, [orphan]) == set()


def test_damaged_shards_are_erased_as_a_whole(root, filled, anna):
    before = content_of(root)
    for family in FAMILIES:
        for place, shard in enumerate(FeatureStore(root).shards(family)):
            data = shard.read_bytes()
            put(shard, data[: len(data) // 2] if place else b"")
    erase(root, find_traces(root, [ANNA]))
    assert found_in(filled.root, anna) == set()
    assert FeatureStore(root).done(MOTION) == {}
    assert content_of(root)["scores"] == without_anna(before)["scores"]
    assert [find_problem(part) for part in parts(root)] == [None] * len(parts(root))


@on_this_machine
def test_files_and_folders_of_others_within_the_store_stop_nothing(root, filled, anna):
    before = content_of(root)
    family = filled.folder(MOTION)
    for folder in ("", "features", "features/static", family, "leases", "leases/key", "models", "scores", "manifest"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in (".DS_Store", "Thumbs.db", "shard-notes.txt"):
            (root / folder / name).write_text("somebody else's")
    for name in ("shard-000000000001-aaaaaaaaaaaa.parquet", "shard-000000000001-aaaaaaaaaaaa.h5", "copies"):
        (family / name).mkdir()
    (family / "my notes.txt").write_text(ANNA)
    assert [find_problem(part) for part in parts(root)] == [None] * len(parts(root))
    assert unused_families(root) == []
    assert all(path.is_file() or path.name.startswith(".tmp-") for path in leftovers(root, idle_s=0))
    erase(root, find_traces(root, [ANNA]))
    assert found_in(root, anna) == set()
    assert content_of(root) == without_anna(before)
    assert (family / ".DS_Store").exists()
    rebuild_manifest(FeatureStore(root))


def test_erasing_refuses_beside_a_live_run(root, filled, anna):
    with Leases(root, "other") as lease:
        lease.claim(lambda _: {OTHERS[0]: 1})
        before = found_in(filled.root, anna)
        with pytest.raises(StoreError, match="a run works on"):
            erase(root, find_traces(root, [ANNA]))
        lease.release()
    assert found_in(filled.root, anna) == before


@on_this_machine
@pytest.mark.parametrize("open_store", ["parquet"], indirect=True)
def test_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(root, filled, anna):
    put(root / "reports/old/traits.html", ANNA.encode())
    before = found_in(root, anna)
    for folder in ("runs", "reports/old", "manifest/_delta_log", "features", "exports", "leases/key"):
        with pytest.MonkeyPatch.context() as patch:
            refuse_to_list(root / folder, patch)
            with pytest.raises(StoreError, match=f"{folder}.*Permission denied"):
                erase(root, find_traces(root, [ANNA]))
    assert found_in(root, anna) == before


def refuse_to_list(folder, monkeypatch) -> None:
    def refusing(real):
        def listed(place):
            if os.fspath(place) == str(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
            return real(place)

        return listed

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


@on_this_machine
@pytest.mark.parametrize("open_store", ["parquet"], indirect=True)
def test_folders_on_other_disks_are_searched_too_and_links_in_a_circle_do_no_harm(root, filled, anna, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk") / "runs"
    (root / "runs").rename(elsewhere)
    (root / "runs").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(root)
    (elsewhere / "nowhere").symlink_to(root / "gone")
    erase(root, find_traces(root, [ANNA]))
    assert {path.name for path in elsewhere.iterdir()} == {"round", "nowhere"}


def test_models_that_were_trained_on_a_person_are_named(root, filled):
    for version, facts in enumerate(({}, {"videos": OTHERS}, {"videos": [*OTHERS, ANNA]}), start=1):
        marks = {"clip_marks": " ".join(clip_marks("ab", facts["videos"]))} if facts else {}
        save_version(filled.root / f"models/traits/{version}", recipe="ab", **marks)
    traces = find_traces(root, [ANNA])
    assert (traces.trained, traces.unknown) == (["traits/3"], ["traits/1"])
    assert ModelSerializer(root).versions("traits") == ["1", "2", "3"]


ERASE = """
import os, sys
from storage.files import commit
from storage.maintenance import erasing
calls = 0
def counting(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
        return function(*arguments, **options)
    return call
os.unlink, os.replace, os.rename = map(counting, (os.unlink, os.replace, os.rename))
erasing.erase(sys.argv[1], erasing.find_traces(sys.argv[1], [sys.argv[3]]))
"""


@on_this_machine
@pytest.mark.parametrize("step", [4, 9, 14, 22, 30, 40])
def test_a_killed_erasure_continues(root, filled, anna, step):
    expected = without_anna(content_of(root))
    killed = subprocess.run([sys.executable, "-c", ERASE, root, str(step), ANNA], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    whom = [] if interrupted(root) else [ANNA]  # once anything is gone, it is noted whom to erase
    assert interrupted(root) == (step > 4)
    erase(root, find_traces(root, whom))
    assert found_in(root, anna) == set()
    assert content_of(root) == expected
    assert not interrupted(root)

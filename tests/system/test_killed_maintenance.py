"""Writers, readers, compaction, conversion, repair and gc at once on one store, with clocks that differ by two days.

Some of them are killed again and again, every fourth one after it has done something, however slow the machine is;
nothing that was committed is lost, doubled or torn.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from store_crew import FAMILIES, contents, drawn, open_crew, rounds

from storage import FeatureStore
from storage.files.commit import commit_file, remove_folder
from storage.maintenance.garbage import leftovers, remove_leftover
from storage.maintenance.verification import find_problem, parts

DAYS_S = 2 * 86_400
# Each with whether its clock is ahead.
FEW = (("write", False), ("write", True), ("compact", False), ("collect", True), ("read", False))
EACH = (*FEW, ("convert", True), ("mend", False))
ALL = (*EACH, ("write", False), ("compact", True), ("collect", False), ("read", True))


@pytest.mark.parametrize(
    ("place", "kills", "roles"),
    [
        pytest.param("local", 8, FEW, id="few", marks=pytest.mark.slow),
        pytest.param("local", 400, ALL, id="four hundred kills", marks=pytest.mark.slow),
        pytest.param("s3", 60, EACH, id="object storage", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_lost_doubled_or_torn(tmp_path, request, place, kills, roles):
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc, which builds another clock")
    root = str(tmp_path / "store") if place == "local" else request.getfixturevalue("s3_folder")
    notes = tmp_path / "notes"
    notes.mkdir()
    rng, began = random.Random(kills), time.monotonic()
    store = FeatureStore(root)
    store.write_all({family: [drawn("first.mp4", "", family)] for family in FAMILIES})
    orphan = store.folder(FAMILIES[0]) / "shard-000000000000-abcdef012345.parquet"
    with commit_file(orphan) as temporary:
        temporary.write_bytes(b"left by a killed writer")
    if isinstance(orphan, Path):
        os.utime(orphan, times=(time.time() - DAYS_S,) * 2)
    with ExitStack() as stack:
        crews = [stack.enter_context(open_crew(root, notes, ahead_s=ahead_s)) for ahead_s in (0, DAYS_S)]
        running = [(role, crews[ahead], crews[ahead].start(role, place)) for place, (role, ahead) in enumerate(roles)]
        for number in range(kills):
            role, crew, pid = running.pop(rng.randrange(len(running)))
            if number % 4 == 3:
                crew.await_round(pid)
            time.sleep(rng.uniform(0, 0.3))
            crew.kill(pid)
            running.append((role, crew, crew.start(role, kills + number)))
        time.sleep(1)
        for _, crew, pid in running:
            crew.kill(pid)
    assert not (notes / "faults").exists(), (notes / "faults").read_text()[:5000]
    wanted, rows, superseded = contents(notes), 0, 0
    for last in (False, True):
        store = FeatureStore(root)
        for family in FAMILIES:
            found = {video.video_id: video for video in store.read(family)}
            assert len(list(store.read(family))) == len(found)
            assert wanted.keys() <= found.keys()
            for name, possible in wanted.items():
                content = {hashlib.sha256(f"{name} {text}".encode()).hexdigest(): text for text in possible}
                truth = drawn(name, content[found[name].video_sha256], family)
                assert found[name].checksum() == truth.checksum()
            rows += len(found)
        assert [problem for part in parts(root) if (problem := find_problem(part))] == []
        if isinstance(orphan, Path):
            assert not orphan.exists()
        if not last:
            remove_folder(store.root / "leases")  # those of killed writers count as live for a while
            for path in leftovers(root, idle_s=-DAYS_S):
                superseded += 1
                remove_leftover(path)
    counts = rounds(notes)
    assert {f"done-{role}" for role, _ in roles} <= counts.keys()
    print(
        f"\n{place}: {kills} kills in {time.monotonic() - began:.0f} s: {store.manifest.table.version()} commits, "
        f"{len(wanted)} videos noted as committed, {rows // 4} found in each family; 0 lost, 0 doubled, 0 torn; "
        f"rounds that ended, or met a late server: {dict(counts)}; files left by killed processes: {superseded}"
    )

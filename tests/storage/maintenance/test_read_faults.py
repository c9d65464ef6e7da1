"""Every system call that reads fails in turn: nobody gets wrong features, and nothing is moved, removed or forgotten.

A file that is gone (ENOENT, and ESTALE of one that was open) and one that the system does not let us read (EACCES, EIO)
are both no damage.
"""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import system_calls
from model_version import save_version

from storage import Failure, FailureLog, Family, FeatureStore, Score, ScoreStore, StoreError
from storage.leases.leases import Leases
from storage.maintenance.garbage import leftovers, unused_families
from storage.maintenance.rewriting import plan_merges, rewrite
from storage.maintenance.survey import survey
from storage.maintenance.verification import find_problem, parts, repair

if _reason := system_calls.supported():
    pytest.skip(_reason, allow_module_level=True)

ERRORS = [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOENT]
OTHER = Family("dynamic", 4, {"of": "nothing"})


@pytest.fixture
def filled(tmp_path, draw, static) -> Path:
    """A store with shards of both formats, an orphan, an unused family, failures, scores, a model and a live claim."""
    root = tmp_path / "store"
    for number, format in enumerate(("parquet", "hdf5", "parquet")):
        FeatureStore(root, format).write(static, [draw(f"{number}.mp4"), draw(f"{number} too.mp4")])
    FeatureStore(root).write(OTHER, [draw("0.mp4", OTHER)])
    shard = FeatureStore(root).shards(static)[0]
    shutil.copy(shard, shard.with_name("shard-000000000000-abcdef012345.parquet"))
    FailureLog(root).add([Failure("9.mp4", "0" * 64, "k", "faces", "no_face", "no face", 1)])
    ScoreStore(root).write("traits", "1", [Score("0.mp4", "0" * 64, (0.5,) * 5, 1.0, 1, 1, static.key, "d", "random")])
    save_version(root / "models" / "traits" / "1", static_key=static.key)
    return root


def seen(root: Path, static: Family) -> Any:
    store = FeatureStore(root)
    return (
        {(video.video_id, family): video.checksum() for family in (static, OTHER) for video in store.read(family)},
        FailureLog(root).current(),
        list(ScoreStore(root).read("traits", "1")),
    )


def fresh_copy(root: Path) -> tuple[Path, Callable[[], object]]:
    """Return the place of a copy of a store, and what makes it afresh."""
    copy = root.with_name("copy")

    def prepare() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy)

    return copy, prepare


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def each_read_fails(
    work: Callable[[], object],
    root: Path,
    error: int,
    *,
    every: int,
    check: Callable[[system_calls.Result, str], None],
    prepare: Callable[[], object] = lambda: None,
) -> Counter[str]:
    """Let each (or each so many-th) call that reads fail once; returns how many of each name there were."""
    prepare()
    calls = system_calls.run(work, root, reads=True).calls
    for k in range(1, len(calls) + 1, every):
        prepare()
        result = system_calls.run(work, root, fail_at=k, error=error, reads=True)
        where = f"{result.calls[k - 1] if len(result.calls) >= k else '?'}, call {k} of {len(calls)}"
        if result.error is not None and not isinstance(result.error, StoreError | FileNotFoundError):
            raise AssertionError(where) from result.error
        check(result, where)
    return Counter(calls)


quick_and_all = pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
each_error = pytest.mark.parametrize("error", ERRORS, ids=[errno.errorcode[error] for error in ERRORS])


@quick_and_all
@each_error
def test_reader_gets_what_was_written_or_an_error(filled, static, error, every):
    truth, found = seen(filled, static), []

    def work() -> None:
        found[:] = [seen(filled, static)]

    def check(result, where) -> None:
        if result.error is None and error != errno.ENOENT:  # a table that does not exist is empty
            assert found == [truth], where

    print(errno.errorcode[error], each_read_fails(work, filled, error, every=every, check=check))


@pytest.mark.slow
@quick_and_all
@each_error
def test_verify_calls_nothing_damaged_and_repair_moves_nothing(filled, static, error, every):
    truth, before = seen(filled, static), files(filled)
    copy, prepare = fresh_copy(filled)
    said: list[str] = []

    def work() -> None:
        said.clear()
        found = [problem for part in parts(copy) if (problem := find_problem(part))]
        said.extend(word for problem in found for word in (problem.trouble, problem.message))
        for problem in found:
            repair(problem)

    def check(result, where) -> None:
        assert "damaged" not in said, f"{where}: {said}"
        after = files(copy)
        assert {name: after[name] for name in before if name.split("/")[0] == "features"} == {
            name: data for name, data in before.items() if name.split("/")[0] == "features"
        }, where
        if error in (errno.EIO, errno.EACCES):
            assert seen(copy, static) == truth, where
        else:  # the next run extracts what seemed to be gone
            assert seen(copy, static)[0].items() <= truth[0].items(), where

    print(errno.errorcode[error], each_read_fails(work, copy, error, every=every, check=check, prepare=prepare))


@pytest.mark.slow
@quick_and_all
@each_error
def test_gc_finds_only_what_nobody_needs(filled, static, error, every):
    found: list[Any] = []
    with Leases(filled, static.key, beat_s=60) as lease:
        lease.claim(lambda _: {"a.mp4": 1})
        lease.release()

        def work() -> None:
            found.clear()
            found.extend(unused_families(filled, idle_s=0))
            found.extend(path.name for path in leftovers(filled, idle_s=0))

        def check(result, where) -> None:
            allowed = {OTHER, "shard-000000000000-abcdef012345.parquet"}
            if error == errno.ENOENT:  # a model and scores that do not exist use nothing
                allowed.add(static)
            assert set(found) <= allowed, where

        print(errno.errorcode[error], each_read_fails(work, filled, error, every=every, check=check))
        assert set(found) <= {OTHER, static, "shard-000000000000-abcdef012345.parquet"}


@pytest.mark.slow
@quick_and_all
@each_error
def test_compaction_and_counting_lose_nothing(filled, static, error, every):
    truth = seen(filled, static)
    copy, prepare = fresh_copy(filled)

    def work() -> None:
        store = FeatureStore(copy)
        for sources in plan_merges(store, static):
            rewrite(store, static, sources)
        survey(store, static)

    def check(result, where) -> None:
        assert seen(copy, static) == truth, where

    print(errno.errorcode[error], each_read_fails(work, copy, error, every=every, check=check, prepare=prepare))

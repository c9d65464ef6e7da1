"""Every system call of every commit fails in turn: what is committed stays, and the next try succeeds.

The calls are found by counting: the k-th one fails, for k = 1, 2, ... until the work ends undisturbed. The quick tests
leave out all but the first and the last of writes that follow each other, which are the pieces of one file.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import system_calls
from trait_csv import read_trait_csv, write_trait_csv

from storage import Failure, FailureLog, FeatureStore, ModelSerializer, Score, ScoreStore, StoreError
from storage.maintenance.rewriting import plan_merges, rewrite, shards_to_convert
from storage.maintenance.verification import Problem, parts, repair

if _reason := system_calls.supported():
    pytest.skip(_reason, allow_module_level=True)

TRAITS = ("o", "c", "e", "a", "n")
FAILURE = Failure("a.mp4", "0" * 64, "k" * 16, "faces", "no_face", "no face", 1)
SCORE = Score("a.mp4", "0" * 64, (0.1, 0.2, -0.3, 1e-8, 0.5), 0.9, 16, 6, "s" * 16, "d" * 16, "random")


@dataclass
class Case:
    """Something that commits.

    Args:
        before: makes the store in which it happens.
        work: what is disturbed; done again, it must succeed.
        seen: what readers get, as something to compare.
    """

    before: Callable[[Path], object]
    work: Callable[[Path], object]
    seen: Callable[[Path], Any]


def families_case(format: str, draw, static) -> Case:
    def seen(root: Path) -> Any:
        store = FeatureStore(root)
        return {video.video_id: (video.video_sha256, video.checksum()) for video in store.read(static)}

    return Case(
        before=lambda _: None,
        work=lambda root: FeatureStore(root, format).write(static, [draw("a.mp4"), draw("b.mp4", tokens=5)]),
        seen=seen,
    )


def cases(draw, static) -> dict[str, Case]:
    shards = {format: families_case(format, draw, static) for format in ("parquet", "hdf5")}
    seen = shards["parquet"].seen

    def two_shards(root: Path) -> None:
        for name in ("a.mp4", "b.mp4"):
            FeatureStore(root).write(static, [draw(name)])

    def one_shard(root: Path) -> None:
        FeatureStore(root).write(static, [draw(name) for name in ("a.mp4", "b.mp4")])

    def merge(root: Path) -> None:
        store = FeatureStore(root)
        for sources in plan_merges(store, static):
            rewrite(store, static, sources)

    def convert(root: Path) -> None:
        store = FeatureStore(root)
        for shard in shards_to_convert(store, static, "hdf5"):
            rewrite(store, static, [shard], "hdf5")

    def set_aside(root: Path) -> None:
        first = FeatureStore(root).shards(static)[0]
        if "a.mp4" in FeatureStore(root).done(static):
            (part,) = [part for part in parts(root) if part.path == first]
            repair(Problem(part, "damaged", "drawn so"))

    return {
        "Parquet shard": shards["parquet"],
        "HDF5 shard": shards["hdf5"],
        "_family.json": Case(
            before=lambda _: None,
            work=lambda root: FeatureStore(root).describe(static),
            seen=lambda root: FeatureStore(root).families(),
        ),
        "failures": Case(
            before=lambda _: None,
            work=lambda root: FailureLog(root).add([FAILURE]),
            seen=lambda root: FailureLog(root).current(),
        ),
        "scores": Case(
            before=lambda root: ScoreStore(root).write("main", "1", [SCORE]),
            work=lambda root: ScoreStore(root).write("main", "1", [SCORE]),
            seen=lambda root: list(ScoreStore(root).read("main", "1")),
        ),
        "trait CSV": Case(
            before=lambda root: write_trait_csv(root / "a.csv", [], trait_names=TRAITS, model="main/1"),
            work=lambda root: write_trait_csv(root / "a.csv", [SCORE], trait_names=TRAITS, model="main/1"),
            seen=lambda root: list(read_trait_csv(root / "a.csv", trait_names=TRAITS)),
        ),
        "merge": Case(before=two_shards, work=merge, seen=seen),
        "convert": Case(before=one_shard, work=convert, seen=seen),
        "quarantine": Case(before=two_shards, work=set_aside, seen=seen),
    }


def fail_each_call(case: Case, tmp_path: Path, error: int, *, repeated: bool = False) -> Counter[str]:
    """Let each call fail in turn, writes amid others only if `repeated`; returns how many of each name there were."""
    template = tmp_path / "template"
    template.mkdir()
    case.before(template)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(template, undisturbed)
    before = case.seen(template)
    calls = system_calls.run(lambda: case.work(undisturbed), undisturbed).calls
    after = case.seen(undisturbed)
    for k in range(1, len(calls) + 2):  # the last one is not reached, so that nothing fails
        if not repeated and calls[max(k - 2, 0) : k + 1] == ["write"] * 3:
            continue
        root = tmp_path / str(k)
        shutil.copytree(template, root)
        result = system_calls.run(lambda root=root: case.work(root), root, fail_at=k, error=error)
        if k > len(calls):
            assert (result.calls, result.error) == (calls, None)
            break
        failed = result.calls[k - 1]
        where = f"{failed}, call {k} of {len(calls)}"
        seen = case.seen(root)
        assert seen in (before, after), where
        if result.error is None:  # only clearing up may fail without a word, once all is done
            assert seen == after, where
            assert failed == "unlink", where
        else:
            if not isinstance(result.error, StoreError):
                raise AssertionError(where) from result.error
            message = str(result.error)
            assert str(root) in message, where
            assert "\n" not in message, where
            if error == errno.ENOSPC and failed != "open":  # which takes no room
                assert os.strerror(error) in message, f"{where}: {message}"
        if failed != "unlink":
            assert [path for path in root.rglob(".tmp-*")] == [], where
        case.work(root)
        assert case.seen(root) == after, where
        shutil.rmtree(root)
    return Counter(calls)


NAMES = ("Parquet shard", "HDF5 shard", "_family.json", "failures", "scores", "trait CSV", "merge", "convert")


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        pytest.param(errno.ENOSPC, False, id="ENOSPC"),
        pytest.param(errno.ENOSPC, True, id="ENOSPC, repeated calls too", marks=pytest.mark.slow),
        pytest.param(errno.EIO, True, id="EIO", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", [*NAMES, "quarantine"])
def test_any_failing_call_leaves_what_was_there_or_all_of_the_new_and_the_next_try_succeeds(
    tmp_path, draw, static, name, error, repeated
):
    calls = fail_each_call(cases(draw, static)[name], tmp_path, error, repeated=repeated)
    counts = ", ".join(f"{count} {call}" for call, count in sorted(calls.items()))
    print(f"{name}: calls failed once with {errno.errorcode[error]}, of {calls.total()} ({counts})")
    assert calls["fsync"] > 0


@pytest.mark.parametrize("repeated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_any_failing_call_while_a_model_is_saved_leaves_no_version_or_a_whole_one(tmp_path, repeated):
    from fusion.model.bilinear import BilinearPersonalityModel

    model = BilinearPersonalityModel(2, 2, 1, 1)  # of few arrays: it is saved and verified again and again

    def seen(root: Path) -> list[str]:
        serializer = ModelSerializer(root)
        for version in serializer.versions("main"):
            serializer.verify("main", version)
        return serializer.versions("main")[:1]

    case = Case(
        before=lambda _: None,
        work=lambda root: ModelSerializer(root).save(model, "main", {"note": "x"}, {"loss": [1.0]}),
        seen=seen,
    )
    calls = fail_each_call(case, tmp_path, errno.ENOSPC, repeated=repeated)
    print(f"model: calls failed once, of {calls.total()} ({dict(calls)})")


def test_a_call_that_is_made_to_fail_does_fail_and_the_others_do_not(tmp_path):
    def work() -> None:
        descriptor = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
        try:
            os.write(descriptor, b"one")
            os.write(descriptor, b"two")
        finally:
            os.close(descriptor)

    result = system_calls.run(work, tmp_path, fail_at=3, error=errno.EIO)
    assert isinstance(result.error, OSError)
    assert result.error.errno == errno.EIO
    assert result.calls == ["create", "write", "write"]
    assert (tmp_path / "a").read_text() == "one"

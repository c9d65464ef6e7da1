"""A bit that turns in a shard is found, or makes no difference to anybody."""

from __future__ import annotations

import numpy as np
import pytest

from storage import Failure, FailureLog, FeatureStore, Score, ScoreStore, StoreError
from storage.maintenance.verification import find_problem, parts
from storage.shards.formats import check_shard


@pytest.mark.parametrize("flips", [300, pytest.param(10_000, marks=pytest.mark.slow)], ids=["a few", "ten thousand"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_flipped_bit_that_changes_what_a_reader_gets_is_caught(
    open_store, tmp_path, draw, static, assert_same, dtype, flips
):
    videos = {name: draw(name, tokens=40) for name in ("a.mp4", "b.mp4", "c.mp4")}
    open_store(tmp_path, dtype=dtype).write(static, list(videos.values()))
    (path,) = (tmp_path / "features" / static.name / static.key).glob("shard-*")
    whole = path.read_bytes()
    caught = unread = harmless = 0
    for bit in np.random.default_rng(0).choice(8 * len(whole), min(flips, 8 * len(whole)), replace=False):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        try:
            check_shard(path)
            passed = True
        except StoreError as error:
            assert path.name in str(error)  # noqa: PT017 - either outcome is right
            assert "\n" not in str(error)  # noqa: PT017
            passed = False
        caught += not passed
        try:
            found = {video.video_id: video for video in FeatureStore(tmp_path).read(static)}
        except StoreError:
            assert not passed, f"bit {bit}: a reader is refused what verify passed"
            continue
        # Whatever a reader gets, it is right, even from a file of which another part is damaged.
        assert set(found) == set(videos), f"bit {bit}"
        for name, video in videos.items():
            assert_same(found[name], video.rounded(dtype))
        unread += not passed
        harmless += passed
    print(
        f"{path.suffix} {dtype}, {len(whole)} bytes: of {flips} flipped bits {caught} caught, {unread} of them in what "
        f"readers here do not use; {harmless} change nothing that anybody gets; 0 changed what a reader got"
    )
    assert caught > flips / 2


FAILURES = [
    Failure(f"{number}.mp4", f"{number:064x}", "k", "faces", "no_face", f"no face in {number} frames", 1)
    for number in range(20)
]
SCORES = [
    Score(
        f"{number:02d}.mp4", f"{number:064x}", tuple(np.random.default_rng(number).random(5)), 1, 16, 6, "s", "d", "w"
    )
    for number in range(20)
]


@pytest.mark.parametrize("flips", [12, pytest.param(2_000, marks=pytest.mark.slow)], ids=["a few", "thousands"])
@pytest.mark.parametrize("name", ["failures", "scores", "manifest", "family"])
def test_every_flipped_bit_in_a_table_or_description_that_changes_what_a_reader_gets_is_caught(
    tmp_path, draw, static, name, flips
):
    write, read = {
        "failures": (lambda: FailureLog(tmp_path).add(FAILURES), lambda: FailureLog(tmp_path).current()),
        "scores": (
            lambda: ScoreStore(tmp_path).write("main", "1", SCORES),
            lambda: list(ScoreStore(tmp_path).read("main", "1")),
        ),
        "manifest": (
            lambda: FeatureStore(tmp_path).write(static, [draw(f"{number}.mp4", tokens=1) for number in range(20)]),
            lambda: FeatureStore(tmp_path).done(static),
        ),
        "family": (
            lambda: FeatureStore(tmp_path).describe(static),
            lambda: [family.to_dict() for family in FeatureStore(tmp_path).families()],
        ),
    }[name]
    write()
    (part,) = [part for part in parts(tmp_path) if name in str(part.path) and part.path.suffix != ".parquet"]
    truth = read()
    files = [path for path in part.path.rglob("*") if path.is_file()] if part.path.is_dir() else [part.path]
    for path in files:
        whole = path.read_bytes()
        caught = harmless = 0
        bits = np.random.default_rng(0).permutation(8 * len(whole))[:flips]
        for bit in bits:
            data = bytearray(whole)
            data[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(data)
            (again,) = [each for each in parts(tmp_path) if each.path == part.path] or [part]
            problem = find_problem(again)
            if problem is not None:
                assert part.path.name in problem.message
                assert "\n" not in problem.message
                caught += 1
            try:
                assert read() == truth or problem is not None, f"{path.name}, bit {bit}"
                harmless += problem is None
            except StoreError:
                assert problem is not None, f"{path.name}, bit {bit}: a reader is refused what verify passed"
        path.write_bytes(whole)
        print(
            f"{path.name}, {len(whole)} bytes: of {len(bits)} flipped bits {caught} caught, {harmless} change nothing"
        )
        assert caught == len(bits) or path.suffix == ".json"

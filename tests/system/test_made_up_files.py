"""Whatever stands in a file, reading it gives what was asked for or one line that says why not; nothing else comes out.

Hypothesis changes good files: bytes anywhere, and the JSON within, under checksums that are right again, as whoever
makes a file up would make them. `tests/benchmarks/fuzz_parsers.py` does the same for longer, guided by coverage.
"""

from __future__ import annotations

import pytest
from changed_files import changed_bytes, changed_tree
from file_parsers import Parser, file_parsers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = [
    *("labels, CSV", "labels, Parquet", "labels, pickle", "groups, CSV", "groups, Parquet"),
    *("settings, YAML", "settings, --set", "shard, parquet", "shard, hdf5", "_family.json"),
    *("failures", "failures, log", "scores", "scores, log", "seen", "seen, log", "digests"),
    *("video list, text", "video list, CSV", "video list, Parquet", "claim", "evaluation"),
    *("metadata of a model", "alias of a model", "checkpoint"),
    *("optical flow, .npy", "optical flow, .npz", "optical flow, .flo", "assets.toml", "bundle", "own asset"),
]
HOLD_JSON = [
    *("shard, parquet", "shard, hdf5", "_family.json", "claim", "evaluation"),
    *("metadata of a model", "alias of a model", "own asset"),
]
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
EXAMPLES = pytest.mark.parametrize("examples", [50, pytest.param(500, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def parsers(tmp_path_factory) -> dict[str, Parser]:
    return {parser.name: parser for parser in file_parsers(tmp_path_factory.mktemp("good"))}


def test_there_is_a_test_for_every_kind_of_file(parsers):
    assert list(parsers) == NAMES
    assert [name for name, parser in parsers.items() if parser.seal is not None] == HOLD_JSON


@pytest.mark.parametrize("name", NAMES)
def test_good_files_are_read(parsers, tmp_path, name):
    parser = parsers[name]
    good = [parser.try_on(tmp_path, data) for data in parser.seeds]
    assert "" in good


@EXAMPLES
@pytest.mark.parametrize("name", NAMES)
def test_changed_bytes_are_read_or_refused_in_one_line(parsers, tmp_path, name, examples):
    parser = parsers[name]

    @settings(SETTINGS, max_examples=examples)
    @given(changed_bytes(parser.seeds))
    def check(data: bytes) -> None:
        parser.try_on(tmp_path, data)

    check()


@EXAMPLES
@pytest.mark.parametrize("name", HOLD_JSON)
def test_changed_contents_under_right_checksums_are_read_or_refused_in_one_line(parsers, tmp_path, name, examples):
    parser = parsers[name]

    @settings(SETTINGS, max_examples=examples)
    @given(st.sampled_from(parser.trees).flatmap(changed_tree))
    def check(tree: object) -> None:
        parser.try_on(tmp_path, parser.seal(tree))

    check()

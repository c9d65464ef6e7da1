"""The command itself, several at once on one store or killed in its midst, on the demo clips with random weights."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.archive.families import families_of
from flows.config.load import load_config
from storage import FeatureStore
from storage.shards.formats import format_of
from storage.shards.header import read_header

pytestmark = pytest.mark.slow


@contextmanager
def extraction(videos: Path, store: Path, prefect: Path) -> Iterator[subprocess.Popen[str]]:
    """`traitline extract`, one video a shard, in a process group of its own that does not outlive the block."""
    command = [
        *(str(Path(sys.executable).with_name("traitline")), "extract", "--videos", str(videos), "--store", str(store)),
        *("--weights", "random", "--set", "extract.shard_size=1"),
    ]
    environment = {**os.environ, "PREFECT_HOME": str(prefect), "COLUMNS": "200"}
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, env=environment, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def videos_in_shards(store: Path) -> dict[str, Counter[str]]:
    """For each family, in how many shards each video is."""
    features, families = FeatureStore(store), families_of(load_config(flags={"weights": "random"}))
    return {
        family.name: Counter(
            entry.video_id for shard in features.shards(family) for entry in read_header(shard, format_of(shard)).videos
        )
        for family in (families.faces, families.static, families.dynamic)
    }


def wait_for_shards(store: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while len(list((store / "features").glob("dynamic/*/shard-*"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_commands_at_once_share_the_work_and_both_wait_for_all_of_it(rendered, tmp_path):
    videos, store = rendered.videos, tmp_path / "store"
    names = sorted(path.name for path in videos.iterdir())
    with extraction(videos, store, tmp_path / "a") as one, extraction(videos, store, tmp_path / "b") as two:
        shown = [process.communicate(timeout=600)[1] for process in (one, two)]
        assert [process.returncode for process in (one, two)] == [0, 0], shown
    for family, counts in videos_in_shards(store).items():
        assert counts == Counter(names), family
    reports = [json.loads(path.read_text()) for path in (store / "runs").glob("*-extract.json")]
    print("\nextracted, by others:", [(report["extracted"], report["by_others"]) for report in reports])
    assert len(reports) == 2
    assert sum(report["extracted"] for report in reports) == len(names)
    for report in reports:
        assert 0 < report["extracted"] < len(names)
        assert report["extracted"] + report["by_others"] == len(names)
    assert all(re.search(r"done by other runs or lost workers +\d", text) for text in shown)


def test_killed_command_is_taken_over_at_once_by_the_next_one(rendered, tmp_path):
    videos, store = rendered.videos, tmp_path / "store"
    names = sorted(path.name for path in videos.iterdir())
    with extraction(videos, store, tmp_path / "prefect") as first:
        wait_for_shards(store, 2)
        first.kill()
    (claim,) = [path for path in (store / "leases").rglob("[0-9]*.json") if not path.with_suffix(".end").exists()]
    done = videos_in_shards(store)["dynamic"]
    assert 2 <= len(done) < len(names)
    with extraction(videos, store, tmp_path / "prefect") as second:
        shown = second.communicate(timeout=600)[1]
        assert second.returncode == 0, shown
    assert "waiting" not in shown
    assert not claim.exists()
    for family, counts in videos_in_shards(store).items():
        assert counts == Counter(names), family
    (report,) = [json.loads(path.read_text()) for path in (store / "runs").glob("*-extract.json")]
    print(f"\nkilled after {len(done)} of {len(names)} videos; the next run extracted {report['extracted']}")
    assert (report["extracted"], report["cached"]) == (len(names) - len(done), len(done))


def test_interrupted_command_gives_its_videos_back(rendered, tmp_path):
    store = tmp_path / "store"
    with extraction(rendered.videos, store, tmp_path / "prefect") as first:
        wait_for_shards(store, 1)
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=120) == 130
    assert not [path for path in (store / "leases").rglob("[0-9]*.json") if not path.with_suffix(".end").exists()]

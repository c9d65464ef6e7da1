"""Scoring an archive anew, killed in the middle, as a machine that loses its power does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawn_store import draw_store

from flows.archive.families import families_of
from flows.archive.videos import known_videos
from flows.config.load import load_config
from flows.pipeline.train import train
from flows.scoring.worklist import CLIPS_PER_COMMIT
from storage.tables.scores import ScoreStore

pytestmark = pytest.mark.slow
PEOPLE, CLIPS_EACH = 100, 130
KILLS = 5


def start(folder: Path) -> subprocess.Popen:
    traitline = Path(sys.executable).with_name("traitline")
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
    return subprocess.Popen([traitline, "rescore", "--store", folder / "store"], env=environment)


def test_nothing_is_lost_or_doubled(tmp_path):
    labels, _ = draw_store(tmp_path, people=PEOPLE, clips_each=CLIPS_EACH)
    config = load_config(
        flags={"weights": "random", "store.path": tmp_path / "store", "labels": labels},
        assignments=["train.keep_useless=true"],
    )
    videos = known_videos(config.store.path, families_of(config))
    model = train.fn(config, videos)
    folder = tmp_path / "store" / "scores" / model.name / model.version
    scores = ScoreStore(tmp_path / "store")
    seen = {}
    killed_with = []
    for kill in range(KILLS):
        before = len(list(folder.glob("*.parquet")))
        process = start(tmp_path)
        deadline = time.monotonic() + 120
        # Once when a further part has just come, once at whatever instant comes after it.
        while len(list(folder.glob("*.parquet"))) == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.05 * kill)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        rows = {row.video_id: row.traits for row in scores.read(model.name, model.version)}
        assert len(rows) % CLIPS_PER_COMMIT == 0 or len(rows) == len(videos)
        assert rows.items() >= seen.items()
        seen = rows
        killed_with.append(len(rows))
    assert killed_with
    assert killed_with[0] < len(videos)
    assert start(tmp_path).wait() == 0
    found = list(scores.read(model.name, model.version))
    assert [row.video_id for row in found] == [video.video_id for video in videos]
    assert {row.video_id: row.traits for row in found}.items() >= seen.items()
    print(f"\nkilled {len(killed_with)} times, with {killed_with} of {len(videos)} scores written")

"""On a finished store, commands start no server and import none of the libraries that take seconds."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from drawn_store import draw_store

# Runs commands one after the other, and tells of each what it has imported and which processes it has started.
WATCHED = """
import json, sys
started, seen = [], set()
sys.addaudithook(lambda event, arguments: event == "subprocess.Popen" and started.append(str(arguments[1])))
from flows.cli import app as cli
from flows.session.environment import settle_environment
settle_environment()
for command in json.loads(sys.argv[1]):
    try:
        status = cli.app(command, standalone_mode=False) or 0
    except (SystemExit, Exception) as error:
        status = repr(error)
    heavy = {"tensorflow", "keras", "mediapipe", "sklearn", "scipy.stats", "matplotlib"} & sys.modules.keys()
    print(json.dumps([command[0], status, sorted(heavy - seen), started]), flush=True)
    seen |= heavy
    started.clear()
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, traitline, face_model) -> dict[str, list[str]]:
    """A run over a drawn store, whose features are there, and the arguments of its commands."""
    folder = tmp_path_factory.mktemp("finished")
    labels, _ = draw_store(folder, people=4, clips_each=2)
    with labels.open(newline="") as file:
        for row in csv.DictReader(file):
            video = folder / "videos" / row["video_id"]  # the drawn features are those of these bytes
            video.parent.mkdir(parents=True, exist_ok=True)
            video.write_text(row["video_id"])
    common = ["--store", str(folder / "store"), "--weights", "random", "--set", "train.epochs=1"]
    videos, out = ["--videos", str(folder / "videos")], ["--out", str(folder / "traits.csv")]
    commands = {
        "run": ["run", *common, *videos, *out, "--labels", str(labels)],
        "extract": ["extract", *common, *videos],
        "train": ["train", *common, *videos, "--labels", str(labels)],
        "score": ["score", *common, *videos],
        "rescore": ["rescore", *common[:2]],
        "export": ["export", *common, *videos, *out],
    }
    first = traitline(*commands["run"], TRAITLINE_ASSETS=str(face_model.parents[1]))
    assert first.returncode == 0, first.stderr
    assert "8 of 8 (8 in this run)" in first.stderr
    return commands


def test_what_is_done_is_found_out_without_a_server_and_without_heavy_libraries(finished, face_model):
    command = [sys.executable, "-c", WATCHED, json.dumps(list(finished.values()))]
    environment = {**os.environ, "TRAITLINE_ASSETS": str(face_model.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line[:3] for line in told] == [[name, 0, []] for name in finished], done.stderr
    assert "prefect" not in done.stdout


def test_a_run_that_does_nothing_reports_as_one_that_does(finished, traitline, face_model):
    store = Path(finished["run"][2])
    pages = set((store / "reports").iterdir())
    again = traitline(*finished["run"], TRAITLINE_ASSETS=str(face_model.parents[1]))
    assert again.returncode == 0, again.stderr
    assert "nothing to decode: 8 videos" in again.stderr
    assert "scored 8 of 8 (0 in this run)" in again.stderr
    assert set((store / "reports").iterdir()) == pages  # the last page says the same already
    assert f"report {next(iter(pages))}" in again.stderr


def test_a_page_that_says_something_else_is_written(finished, traitline, face_model):
    store = Path(finished["run"][2])
    pages = set((store / "reports").iterdir())
    arguments = ["report", *finished["score"][1:], "--clips", "p000/0000.mp4"]
    changed = traitline(*arguments, TRAITLINE_ASSETS=str(face_model.parents[1]))
    assert changed.returncode == 0, changed.stderr
    assert len(set((store / "reports").iterdir()) - pages) == 1

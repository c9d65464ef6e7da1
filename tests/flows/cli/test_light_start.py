"""The command line starts without the libraries that only the work needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "av",
    "cv2",
    "h5py",
    "keras",
    "matplotlib",
    "mediapipe",
    "numba",
    "pandas",
    "prefect",
    "pyarrow",
    "scipy",
    "sklearn",
    "tensorflow",
}
HELP = """
import sys
from flows.cli.app import main
sys.argv = ["traitline", *sys.argv[1:], "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
LOADED = "\nprint('loaded', *sorted({name.partition('.')[0] for name in sys.modules}))"


def _loaded_by(code: str, *arguments: str, folder: Path | None = None) -> set[str]:
    command = [sys.executable, "-c", code + LOADED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=folder)
    word, *names = done.stdout.splitlines()[-1].split()
    assert word == "loaded"
    assert {"flows", "typer"} <= set(names)
    return set(names)


def test_importing_the_command_line_loads_no_heavy_library():
    assert not _loaded_by("import sys; import flows.cli.app") & HEAVY


@pytest.mark.parametrize("command", [(), ("run",), ("visualize", "attention"), ("store", "ls")])
def test_help_loads_no_heavy_library(command):
    assert not _loaded_by(HELP, *command) & HEAVY


REFUSED = HELP.replace(', "--help"]', "]").replace("assert not end.code", "assert end.code == 1")


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--labels", "labels.csv", "--weights", "random"),
        ("evaluate", "--labels", "labels.csv", "--weights", "random"),
        ("finetune", "--videos", "nowhere", "--labels", "labels.csv"),
        ("visualize", "attention", "a.mp4", "--out", "a.png", "--weights", "random"),
        ("models", "export", "traits/1", "--out", "exported"),
        ("compare", "nothing"),
    ],
)
def test_refusing_loads_no_network_library(command, tmp_path):
    (tmp_path / "store").mkdir()
    values = dict.fromkeys(("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"), "0.5")
    labels = {"video_id": "a.mp4", **values}
    (tmp_path / "labels.csv").write_text(f"{','.join(labels)}\n{','.join(labels.values())}\n")
    assert not _loaded_by(REFUSED, *command, folder=tmp_path) & {"keras", "tensorflow", "mediapipe"}


def test_loading_the_settings_loads_no_heavy_library():
    code = "import sys, typer; from flows.config.load import dump_config, load_config; dump_config(load_config())"
    assert not _loaded_by(code) & HEAVY

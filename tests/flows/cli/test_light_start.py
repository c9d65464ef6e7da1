"""The command line starts without the libraries that only the work needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NETWORKS = {"keras", "mediapipe", "tensorflow"}
HEAVY = {
    *NETWORKS,
    *("av", "cv2", "h5py", "matplotlib", "numba", "pandas", "prefect", "pyarrow", "scipy", "sklearn"),
}
# Runs commands one after the other; after each it tells how that ended, and what has been loaded by then.
COMMANDS = """
import json, sys
from flows.cli.app import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["traitline", *command]
    try:
        main()
    except SystemExit as end:
        print("told", json.dumps([command, end.code or 0, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def run_python(code: str, *arguments: str, folder: Path | None = None) -> list[str]:
    """Run a program in a process of its own; the lines that it shows."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=folder)
    return done.stdout.splitlines()


def loaded_by(code: str) -> set[str]:
    (names,) = run_python(f"{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})")
    assert "flows" in names
    return set(names.split())


def loaded_by_commands(commands: Sequence[Sequence[str]], status: int, folder: Path) -> dict[tuple[str, ...], set[str]]:
    """What was loaded after each command, all of which end with that status."""
    lines = run_python(COMMANDS, json.dumps(commands), folder=folder)
    told = [json.loads(line.removeprefix("told ")) for line in lines if line.startswith("told ")]
    assert [ending for _, ending, _ in told] == [status] * len(commands), lines
    return {tuple(command): set(loaded) for command, _, loaded in told}


def test_importing_the_command_line_loads_no_heavy_library():
    assert not loaded_by("import sys; import flows.cli.app") & HEAVY


def test_loading_the_settings_loads_no_heavy_library():
    code = "import sys, typer; from flows.config.load import dump_config, load_config; dump_config(load_config())"
    assert not loaded_by(code) & HEAVY


def test_keras_loads_only_what_is_used_of_it_and_hides_nothing_from_others():
    imports = "import keras\nby_keras = {*sys.modules}\nimport pandas, matplotlib.pyplot, sklearn.linear_model"
    settled = "import sys\nfrom flows.session.environment import settle_environment\nsettle_environment()"
    (names,) = run_python(f"{settled}\n{imports}\nprint(*by_keras)")
    assert "tensorflow" in names.split()
    assert not {"IPython", "matplotlib", "pandas", "sklearn"} & set(names.split())


def test_help_loads_no_heavy_library(tmp_path):
    commands = [[*words, "--help"] for words in ([], ["run"], ["visualize", "attention"], ["store", "ls"])]
    for command, loaded in loaded_by_commands(commands, 0, tmp_path).items():
        assert "typer" in loaded
        assert not loaded & HEAVY, command


def test_refusing_loads_no_network_library(tmp_path):
    (tmp_path / "store").mkdir()
    values = dict.fromkeys(("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"), "0.5")
    labels = {"video_id": "a.mp4", **values}
    (tmp_path / "labels.csv").write_text(f"{','.join(labels)}\n{','.join(labels.values())}\n")
    commands = [
        ["train", "--labels", "labels.csv", "--weights", "random"],
        ["evaluate", "--labels", "labels.csv", "--weights", "random"],
        ["finetune", "--videos", "nowhere", "--labels", "labels.csv"],
        ["visualize", "attention", "a.mp4", "--out", "a.png", "--weights", "random"],
        ["models", "export", "traits/1", "--out", "exported"],
        ["compare", "nothing"],
    ]
    for command, loaded in loaded_by_commands(commands, 1, tmp_path).items():
        assert not loaded & NETWORKS, command

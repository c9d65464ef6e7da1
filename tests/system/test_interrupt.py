"""Stopping a command: Ctrl-C reaches every process of the terminal's group, a scheduler's stop only the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from flows.cli.command import plain_command
from flows.session import stopping

# Told to stop in the midst of an import, after which another thread imports as well.
IMPORTING = """
import sys, threading
from pathlib import Path
from flows.session import stopping
Path("slow.py").write_text("import os, time\\nos.kill(os.getpid(), 15)\\ntime.sleep(1)\\nwhole = True")
sys.path.insert(0, ".")
stopping.listen()
try:
    import slow
    threading.Event().wait(120)
except KeyboardInterrupt:
    other = threading.Thread(target=lambda: __import__("colorsys"))
    other.start()
    other.join(60)
    print("stopped", getattr(sys.modules.get("slow"), "whole", None), "colorsys" in sys.modules)
"""

# Goes on whatever it is told.
STUBBORN = """
import os, sys, time
from flows.session import stopping
stopping.LIMIT_S = float(sys.argv[1])
stopping.listen()
while True:
    try:
        os.write(1, b".")
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""


@pytest.mark.parametrize(("stop", "name"), [(os.killpg, "SIGINT"), (os.kill, "SIGTERM")])
def test_a_stopped_command_says_so_in_one_line_and_leaves_no_process_behind(
    short_clips, small_networks, tmp_path, stop, name
):
    command = [
        str(Path(sys.executable).with_name("traitline")),
        *("extract", "--videos", str(short_clips.videos), "--store", str(tmp_path / "store"), "--weights", "random"),
        *(part for setting in small_networks for part in ("--set", setting)),
    ]
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **options) as process:
        deadline = time.monotonic() + 300
        while not list((tmp_path / "store" / "runs").glob("*.log")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        shown = stopped(process, stop, name)
    assert process.returncode == 130
    assert [line for line in shown.splitlines() if line.startswith("traitline: stopped")]
    assert "Traceback" not in shown
    assert living_in_session(process.pid) == []


def test_a_stop_waits_until_the_import_at_hand_is_done(tmp_path):
    done = subprocess.run([sys.executable, "-c", IMPORTING], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr, done.returncode) == ("stopped True True\n", "", 0)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_what_does_not_stop_in_time_is_ended_and_says_so(name):
    with stubborn(limit_s=1) as process:
        process.send_signal(getattr(signal, name))
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert said.decode().strip().startswith("traitline: stopped without waiting longer")


def test_a_second_ctrl_c_ends_by_force():
    with stubborn(limit_s=3600) as process:
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.decode().strip().startswith("traitline: stopped by force")


def test_a_ctrl_c_that_comes_twice_at_once_counts_once(monkeypatch):
    """Programs that start others, such as `uv run`, pass on what the terminal has sent to both."""
    monkeypatch.setattr(stopping, "_asked", threading.Event())
    monkeypatch.setattr(stopping, "_State", type("Fresh", (stopping._State,), {}))
    monkeypatch.setattr(stopping, "REPEATED_S", 3600.0)
    with pytest.raises(KeyboardInterrupt):
        stopping._stop(signal.SIGINT, None)
    stopping._stop(signal.SIGINT, None)


def test_a_stop_that_was_put_off_does_not_interrupt_the_cleaning_up(monkeypatch):
    """It was noticed between two items before the signal came again."""
    monkeypatch.setattr(stopping, "_asked", threading.Event())
    monkeypatch.setattr(stopping, "_State", type("Fresh", (stopping._State,), {}))
    monkeypatch.setattr(stopping, "REPEATED_S", 3600.0)
    stopping._asked.set()
    with pytest.raises(KeyboardInterrupt):
        stopping.check()
    stopping._stop(signal.SIGTERM, None)


def test_an_interruption_that_a_library_turns_into_its_own_error_is_a_stop(monkeypatch, capsys):
    """As pydantic does, if it comes while it serialises settings."""
    monkeypatch.setattr(stopping, "_asked", threading.Event())

    def interrupted() -> None:
        stopping._asked.set()
        raise ValueError("Error calling function: KeyboardInterrupt")

    with pytest.raises(typer.Exit) as ended, plain_command():
        interrupted()
    assert ended.value.exit_code == stopping.EXIT_INTERRUPTED
    assert "stopped; finished work is kept" in capsys.readouterr().err


def stubborn(limit_s: float) -> subprocess.Popen[bytes]:
    """A process that goes on when it is told to stop, and has begun to."""
    command = [sys.executable, "-c", STUBBORN, str(limit_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(1) == b"."
    return process


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "dask"])
@pytest.mark.parametrize(("stop", "name"), [(os.killpg, "SIGINT"), (os.kill, "SIGTERM")])
def test_stopped_in_the_midst_of_its_shards_all_processes_end_within_30_s(rendered, tmp_path, runner, stop, name):
    store = tmp_path / "store"
    command = [
        *(str(Path(sys.executable).with_name("traitline")), "extract", "--videos", str(rendered.videos)),
        *("--store", str(store), "--weights", "random"),
        *("--set", f"runner={runner}", "--set", "dask.workers=2", "--set", "extract.shard_size=4"),
    ]
    environment = {**os.environ, "COLUMNS": "200"}
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, env=environment, **options) as process:
        deadline = time.monotonic() + 180
        while not list((store / "leases").glob("*/*.json")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)  # into the first videos
        stopped_at = time.monotonic()
        shown = stopped(process, stop, name)
    while living := living_in_session(process.pid):  # Python's resource tracker ends when all others have
        assert time.monotonic() < stopped_at + 30, living
        time.sleep(0.1)
    seconds = time.monotonic() - stopped_at
    print(f"\n{runner}, {name}: ended after {seconds:.1f} s")
    assert process.returncode == 130
    assert [line for line in shown.splitlines() if line.startswith("traitline: stopped")]
    assert "Traceback" not in shown
    assert seconds < 30
    open_claims = [path for path in store.glob("leases/*/*.json") if not path.with_suffix(".end").exists()]
    assert open_claims == [] or runner == "dask"  # whose workers are killed: their claims end with them
    assert list(store.rglob("*.tmp*")) == []


def stopped(process: subprocess.Popen[str], stop: Callable[[int, int], None], name: str) -> str:
    """Stop a command by a signal; what it has shown."""
    stop(process.pid, getattr(signal, name))
    try:
        return process.communicate(timeout=300)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # else the test would wait for it for ever


def living_in_session(session: int) -> list[str]:
    """Processes of a session, but for those that have ended and that nobody has asked about."""
    command = ["ps", "--sid", str(session), "--no-headers", "--format", "stat,pid,args"]
    shown = subprocess.run(command, capture_output=True, text=True).stdout
    return [line for line in shown.splitlines() if not line.startswith("Z")]

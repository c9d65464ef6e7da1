"""With the assets on the machine, no command opens a network connection: shown by a kernel without a network."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest

# Runs in a network namespace of its own. Prefect's server and its client talk over the loopback interface, so that one
# is brought up; nothing else is there. The kernel counts whatever is to go elsewhere, be it from Python, from a
# library's C++ code or from a child process, and also the questions to a name server.
OFFLINE = r"""
import fcntl, json, pathlib, socket, struct, subprocess, sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14s", b"lo", 0x49, b""))  # SIOCSIFFLAGS: up, loopback, running
interfaces = [name for _, name in socket.if_nameindex()]

def without_route():
    names, values = [line.split() for line in open("/proc/net/snmp") if line.startswith("Ip:")]
    six = dict(line.split() for line in open("/proc/net/snmp6"))
    return int(dict(zip(names, values))["OutNoRoutes"]) + int(six["Ip6OutNoRoutes"])

before = without_route()
status = subprocess.run(sys.argv[2:]).returncode
tried = without_route() - before
for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
    with socket.socket(family) as probe:
        probe.connect_ex((address, 80))
report = {"interfaces": interfaces, "tried": tried, "tried_by_us": without_route() - before - tried}
pathlib.Path(sys.argv[1]).write_text(json.dumps(report))
sys.exit(status)
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Run a command without a network; return what it showed, and how often anything tried to get out."""
    unshare = shutil.which("unshare")
    flags = ["-n"] if os.geteuid() == 0 else ["-rn"]
    if unshare is None or subprocess.run([unshare, *flags, "true"], capture_output=True).returncode:
        pytest.skip("this machine permits no network namespace (unshare -n)")
    folder = tmp_path_factory.mktemp("offline")
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "HOME": str(folder / "home")}
    environment = {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}

    def run(*command: str | Path, **variables: str):
        report = folder / "report.json"
        shown = subprocess.run(
            [unshare, *flags, sys.executable, "-c", OFFLINE, str(report), *map(str, command)],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=600,
        )
        found = json.loads(report.read_text())
        assert found["interfaces"] == ["lo"]
        assert found["tried_by_us"] == 2  # the kernel does count
        return shown, found["tried"]

    return run


def test_an_attempt_to_get_out_is_counted_whoever_makes_it(offline):
    ask = "import socket, sys; sys.exit(isinstance(socket.getaddrinfo('example.org', 80), list))"
    shown, tried = offline(sys.executable, "-c", ask)
    assert "gaierror" in shown.stderr
    assert tried > 0
    _, tried = offline(sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}])")
    assert tried > 0


def test_looking_at_the_assets_needs_no_network(offline, face_model, tmp_path):
    shutil.copytree(face_model.parent, tmp_path / "face_detector")
    shown, tried = offline(
        *(Path(sys.executable).with_name("traitline"), "assets", "verify"),
        TRAITLINE_ASSETS=str(tmp_path),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert shown.returncode == 1, shown.stderr  # it has the face detector alone
    assert "1 file read, 0 damaged" in shown.stderr
    missing = ("face_detector_full_range", "yunet", "face_recognizer", "resnet50_imagenet", "i3d_flow_imagenet")
    assert f"missing or incomplete: {', '.join(missing)}." in shown.stderr
    assert tried == 0


USE_MEDIAPIPE = """
import sys
sys.modules["tensorflow"] = None  # MediaPipe imports it to decorate its documentation, which takes seconds
import numpy as np
from pathlib import Path
from extractors.faces.detector import FaceDetector
from extractors.faces.settings import FaceModels
with FaceDetector(FaceModels(*map(Path, sys.argv[1:]))) as detector:
    detector.detect(np.zeros((200, 200, 3), np.uint8))
"""
# The same with nothing in between: what MediaPipe does when nobody keeps it from it.
FREE_MEDIAPIPE = "import extractors.faces.offline as t; t.give_up_network = lambda: None" + USE_MEDIAPIPE


def test_mediapipe_does_not_report_to_google_how_it_is_used(offline, face_models):
    models = astuple(face_models)
    shown, tried = offline(sys.executable, "-c", USE_MEDIAPIPE, *models)
    assert shown.returncode == 0, shown.stderr
    assert tried == 0
    _, tried = offline(sys.executable, "-c", FREE_MEDIAPIPE, *models)
    if not tried:
        pytest.skip("this version of MediaPipe does not try, so that nothing is shown by its not getting out")


@pytest.mark.slow
def test_a_whole_run_without_a_network_tries_none(offline, rendered, face_model, tmp_path):
    """Prefect's server and its new home, both networks, training, scores, the CSV and the report, from two clips."""
    (tmp_path / "videos").mkdir()
    for name in ("nod.mp4", "still.mp4"):
        shutil.copy(rendered.videos / name, tmp_path / "videos")
    shown, tried = offline(
        *(Path(sys.executable).with_name("traitline"), "run", "--weights", "random", "--set", "train.epochs=2"),
        *("--videos", tmp_path / "videos", "--labels", rendered.labels),
        *("--store", tmp_path / "store", "--out", tmp_path / "traits.csv"),
        TRAITLINE_ASSETS=str(face_model.parents[1]),
    )
    assert shown.returncode == 0, shown.stderr
    with (tmp_path / "traits.csv").open(newline="", encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["scored", "scored"]
    assert tried == 0

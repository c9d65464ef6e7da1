"""`traitline doctor` on machines with real faults: a full disk, a library that crashes, a server that is off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_networks import patch_network
from small_disk import SmallDisk

from extractors.devices import has_cuda_device
from extractors.optical_flow.gpu import Obstacle
from flows.config.load import load_config
from flows.doctor import libraries
from flows.doctor.machine import check_networks

OPENCV_WITHOUT_ITS_EXTRAS = """
import sys
here = sys.path.pop(sys.path.index(__file__.rpartition("/")[0]))
del sys.modules["cv2"]
import cv2
del cv2.optflow
sys.path.insert(0, here)
"""


def look(traitline, *arguments: object, status: int = 1, **variables: str) -> dict[str, dict[str, str]]:
    """What the doctor finds by subject."""
    done = traitline("doctor", "--json", *arguments, **variables)
    assert done.returncode == status, done.stdout + done.stderr
    assert not done.stderr
    return {finding["subject"]: finding for finding in json.loads(done.stdout)}


def test_a_good_machine(traitline, tmp_path, face_model):
    store = tmp_path / "new" / "store"
    found = look(traitline, "--weights", "random", "--store", store, status=0)
    assert "fault" not in {finding["level"] for finding in found.values()}
    assert found["face_detector"]["found"] == str(face_model.parent)
    assert found["MediaPipe"]["level"] == found["OpenCV's TV-L1"]["level"] == "ok"
    assert ("TV-L1 on the GPU" in found) == has_cuda_device()
    assert list(tmp_path.iterdir()) == []  # it looks, and leaves nothing


@pytest.fixture
def broken(tmp_path) -> Path:
    """A folder for PYTHONPATH, in front of the real libraries, with ones that crash, do not load or lack a part.

    The real ones take seconds to ask.
    """
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "mediapipe.py").write_text("import ctypes\nctypes.string_at(0)\n")
    (broken / "cv2.py").write_text(OPENCV_WITHOUT_ITS_EXTRAS)
    (broken / "tensorflow.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')\n")
    return broken


def test_every_fault_has_its_cure(traitline, tmp_path, face_model, broken):
    """A machine with many faults at once."""
    # Besides, libraries that are too old or there twice.
    for name, version in (("rich", "1.0"), ("opencv_python", "4.10.0")):
        (broken / f"{name}-{version}.dist-info").mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (broken / f"{name}-{version}.dist-info" / "METADATA").write_text(text)
    assets = tmp_path / "assets"
    (assets / "face_detector").mkdir(parents=True)
    (assets / "face_detector" / face_model.name).write_bytes(face_model.read_bytes()[:-1] + b"?")
    (tmp_path / "store").write_text("not a folder")

    found = look(
        traitline,
        *("--store", tmp_path / "store"),
        PYTHONPATH=str(broken),
        PREFECT_API_URL="http://127.0.0.1:9/api",
        TRAITLINE_ASSETS=str(assets),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )

    for subject, words in {
        "packages": "rich is 1.0, not >=14",
        "OpenCV's wheels": "opencv-contrib-python, opencv-python",
        "OpenCV's TV-L1": "optflow",
        "MediaPipe": "SIGSEGV",
        "TensorFlow": "libcudart.so.12",
        "Prefect": "no answer from http://127.0.0.1:9/api",
        "face_detector": "face_detection_short_range.tflite",
        "resnet50_imagenet": "missing",
        "store": "it is a file",
    }.items():
        assert found[subject]["level"] == "fault"
        assert words in found[subject]["found"]
        assert found[subject]["cure"]
    variables = {"PYTHONPATH": str(broken), "PREFECT_API_URL": "http://x:1/api"}
    shown = traitline("doctor", "--store", tmp_path / "store", "--weights", "random", **variables)
    assert shown.returncode == 1
    assert "http://x:1/api" in shown.stdout
    assert shown.stderr.startswith("Faults: ")


def test_folders_that_cannot_be_written_or_are_not_there(traitline, tmp_path, broken):
    """/proc takes no files, from the superuser neither."""
    found = look(
        traitline,
        *("--weights", "random"),
        PYTHONPATH=str(broken),
        PREFECT_HOME="/proc/prefect",
        XDG_CACHE_HOME="/proc/cache",
        TRAITLINE_ASSETS=str(tmp_path / "gone"),
    )
    assert found["Prefect"]["level"] == "fault"
    assert "/proc/prefect cannot be written" in found["Prefect"]["found"]
    assert (found["cache of downloads"]["level"], found["asset folder"]["level"]) == ("warning", "warning")
    assert found["face_detector"]["found"] == "missing"


@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_disk_that_takes_nothing(disk, small_disk, tmp_path):
    from flows.doctor.store import check_store

    mounted: SmallDisk = small_disk(1 << 20, files=1 if disk == "full" else 100)
    if disk == "read-only":
        mounted.make_read_only()
    found = {finding.subject: finding for finding in check_store(mounted.folder)}
    assert found["writing there"].level == "fault"
    assert ("Read-only" if disk == "read-only" else "full") in found["writing there"].found
    assert found["disk of the store"].level == "fault"  # 1 MB is not much
    assert not list(Path(mounted.folder).iterdir())


@pytest.mark.parametrize(
    ("obstacle", "fault", "level", "found", "cure"),
    [
        (None, "", "ok", "compiled and run", ""),
        (Obstacle("it is not installed", "pip install it"), "", "warning", "it is not installed", "pip install it; "),
        (Obstacle("it is too old"), "", "warning", "it is too old", "the processors"),
        (None, "CUDA_ERROR_DEVICE_UNAVAILABLE", "fault", "CUDA_ERROR_DEVICE_UNAVAILABLE", "engine to cpu"),
    ],
)
def test_a_gpu_that_optical_flow_cannot_use_is_told_with_its_cure(obstacle, fault, level, found, cure):
    (finding,) = libraries._gpu_engine(json.dumps([obstacle, fault]), "")
    assert finding.level == level
    assert found in finding.found
    assert cure in finding.cure


def test_a_check_of_the_gpu_that_crashes_is_a_fault():
    (finding,) = libraries._gpu_engine("", "crashes (SIGSEGV)")
    assert (finding.level, finding.found) == ("fault", "crashes (SIGSEGV)")


@pytest.mark.parametrize(
    ("hidden", "found", "cure"),
    [("", "CUDA_VISIBLE_DEVICES is ''", "unset it"), ("7", "does not see it", "is '7'"), (None, "not see it", "pip")],
)
def test_a_gpu_that_tensorflow_does_not_see_is_told_with_its_cure(monkeypatch, hidden, found, cure):
    monkeypatch.setattr(libraries, "has_cuda_device", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    _, finding = libraries._tensorflow(json.dumps(["2.21.0", []]), "")
    assert finding.level == "warning"
    assert found in finding.found
    assert cure in finding.cure


@pytest.mark.skipif(has_cuda_device(), reason="there is a GPU")
def test_settings_that_need_a_gpu_are_faults_without_one(traitline, tmp_path, broken):
    chosen = ("optical_flow.engine=gpu", "static.precision=tf32", "dynamic.precision=tf32")
    settings = [word for setting in chosen for word in ("--set", setting)]
    found = look(traitline, "--weights", "random", "--store", tmp_path / "s", *settings, PYTHONPATH=str(broken))
    assert "there is no GPU" in found["optical_flow.engine"]["cure"]
    for name in ("static.precision", "dynamic.precision"):
        assert found[name]["level"] == "fault"
        assert "tf32 needs an NVIDIA GPU" in found[name]["cure"]


def test_a_network_in_a_file_of_ones_own_is_looked_at_like_the_assets(tmp_path):
    path = tmp_path / "net.onnx"
    patch_network(path)
    config = load_config(flags={"weights": "auto", "static.base_model": str(path), "static.preprocessing": "0-1"})
    (good,) = check_networks(config)
    assert (good.level, good.found) == ("ok", f"{path}, 8 numbers per token")
    also = [{"base_model": str(path), "preprocessing": "0-1"}, {"base_model": "vgg16"}]
    joined = list(check_networks(load_config(flags={"static.also": also})))
    assert [finding.found.partition(";")[0] for finding in joined] == [f"{path}, 8 numbers per token", "vgg16"]
    path.write_bytes(b"no network")
    (bad,) = check_networks(config)
    assert bad.level == "fault"
    assert "not an ONNX model" in bad.found
    assert list(check_networks(load_config())) == []

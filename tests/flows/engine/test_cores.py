"""What workers on one machine get of it. Each looks at it in a process of its own, as a worker does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from extractors import devices
from extractors.devices import visible_gpus
from flows.engine.cores import cores_of, default_workers, take_share

LOOK = """
from flows.session.environment import settle_environment
settle_environment()
import cv2, numba, tensorflow as tf
from extractors.devices import usable_cores
tf.linalg.matmul(tf.ones((2000, 2000)), tf.ones((2000, 2000)))
names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
print(json.dumps({
    "cores": sorted(os.sched_getaffinity(0)),
    "usable": usable_cores(),
    "opencv": cv2.getNumberOfCPUs(),
    "numba": numba.config.NUMBA_NUM_THREADS,
    "tensorflow": names.count("tf_Compute"),
    "growth": os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH"),
}))
"""


TAKE = """
import json, os
from flows.engine.cores import take_share
take_share({number}, {count})
"""
CORES = "print(json.dumps({'cores': sorted(os.sched_getaffinity(0))}))"


def look(number: int, count: int, program: str) -> dict:
    code = TAKE.format(number=number, count=count) + program
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_two_workers_share_the_cores_and_no_library_counts_more():
    all_cores = os.sched_getaffinity(0)
    if len(all_cores) < 2:
        pytest.skip("one core cannot be shared out")
    first, second = look(0, 2, LOOK), look(1, 2, CORES)
    assert set(first["cores"]) | set(second["cores"]) == all_cores
    assert not set(first["cores"]) & set(second["cores"])
    for library in ("usable", "opencv", "numba", "tensorflow"):
        assert first[library] == len(first["cores"]), library
    assert first["growth"] == "true"


@pytest.mark.parametrize(
    ("usable", "count", "shares"),
    [
        ({0, 1, 2, 3}, 2, [{0, 1}, {2, 3}]),
        ({2, 3, 5, 7, 11}, 2, [{2, 3}, {5, 7, 11}]),
        ({4, 6}, 1, [{4, 6}]),
        ({4, 6}, 2, [{4}, {6}]),
        ({4, 6}, 3, [{4}, {6}, {4}]),
    ],
)
def test_cores_are_dealt_out_evenly_and_shared_only_where_there_are_fewer_than_workers(
    monkeypatch, usable, count, shares
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable)
    assert [cores_of(number, count) for number in range(count)] == shares


def test_each_worker_gets_one_of_the_gpus_that_its_parent_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    shares = []
    for number in range(3):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
        take_share(number, 3)
        shares.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert shares == ["3", "5", "3"]


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [
        ("3,5,7", ["3", "5", "7"]),
        ("3, 5", ["3", "5"]),
        ("2,-1,3", ["2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),  # as Slurm says it
        ("GPU-8f2", ["GPU-8f2"]),
    ],
)
def test_gpus_are_those_that_cuda_would_show(monkeypatch, tmp_path, chosen, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setattr(devices, "_DEVICE_FILES", tmp_path)
    assert default_workers() == 2  # an image may name GPUs of the machine that it was made for
    (tmp_path / "nvidiactl").touch()
    assert visible_gpus() == gpus
    assert default_workers() == (len(gpus) or 2)


@pytest.mark.parametrize(
    ("files", "gpus"),
    [
        (["nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1"], ["0", "1"]),
        (["nvidiactl", "nvidia2", "nvidia5"], ["0", "1"]),  # a container with two of eight GPUs
        (["dxg"], []),
    ],
)
def test_gpus_are_counted_from_0_as_cuda_does(monkeypatch, tmp_path, files, gpus):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_DEVICE_FILES", tmp_path)
    for name in files:
        (tmp_path / name).touch()
    assert visible_gpus() == gpus

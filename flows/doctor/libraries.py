"""Checks of libraries that depend on the machine, each in its own process, because it may crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from extractors.devices import has_cuda_device, visible_gpus
from flows.config.settings import RunConfig
from flows.doctor.machine import REINSTALL, Finding, why_not_writable

LIMIT_S = 300  # a busy machine with a slow disk needs over a minute to import TensorFlow
ANSWER_S = 5

_TV_L1 = """
import cv2, numpy
cv2.optflow.DualTVL1OpticalFlow_create().calc(*numpy.zeros((2, 32, 32), numpy.uint8), None)
print(cv2.__version__)
"""
_TENSORFLOW = """
import json
from flows.session.environment import settle_environment
settle_environment()
import tensorflow as tf
cards = [tf.config.experimental.get_device_details(card) for card in tf.config.list_physical_devices("GPU")]
print(json.dumps([tf.__version__, [card.get("device_name", "GPU") for card in cards]]))
"""
_GPU_ENGINE = """
import json, numpy
from extractors.errors import DeviceError
from extractors.optical_flow.computer import OpticalFlowComputer
from extractors.optical_flow.gpu import why_unusable
obstacle, fault = why_unusable(), ""
if obstacle is None:
    try:
        OpticalFlowComputer("gpu").compute(numpy.zeros((2, 224, 224), numpy.uint8))
    except DeviceError as error:
        fault = str(error)
print(json.dumps([obstacle, fault]))
"""
_DEVICE_SETTINGS = """
import json, sys
from flows.session.environment import settle_environment
settle_environment()
from extractors.errors import DeviceError
from extractors.networks.precision import check_precision
from extractors.optical_flow.computer import OpticalFlowComputer
def check_engine(engine):
    computer = OpticalFlowComputer(engine)
    computer.check()
    if computer.engine == "opencv" != engine:
        raise DeviceError("Numba cannot run here: install it again, or set engine to opencv (20 times slower)")
checks = {"optical_flow.engine": check_engine}
faults = {}
for name, value in json.loads(sys.argv[1]).items():
    try:
        checks.get(name, check_precision)(value)
    except DeviceError as error:
        faults[name] = str(error)
print(json.dumps(faults))
"""
_MEDIAPIPE = """
import socket, sys
from extractors.faces.offline import give_up_network
give_up_network()
sys.modules["tensorflow"] = None  # MediaPipe imports it for one decorator
import mediapipe.tasks.python.vision
try:
    socket.socket().close()
except OSError:
    print("closed")
else:
    print("open")
"""
_PREFECT = """
import json, prefect
from prefect.settings import PREFECT_API_URL, PREFECT_HOME
print(json.dumps([prefect.__version__, PREFECT_API_URL.value(), str(PREFECT_HOME.value())]))
"""


def check_libraries(config: RunConfig) -> Iterator[Finding]:
    """Check OpenCV, TensorFlow, CUDA, MediaPipe without a network, Prefect, and settings that some devices lack."""
    chosen = {
        "optical_flow.engine": config.optical_flow.engine,
        "static.precision": config.static.precision,
        "dynamic.precision": config.dynamic.precision,
    }
    checks = {
        _tv_l1: (_TV_L1,),
        _tensorflow: (_TENSORFLOW,),
        _gpu_engine: (_GPU_ENGINE,),
        _device_settings: (_DEVICE_SETTINGS, json.dumps(chosen)),
        _mediapipe: (_MEDIAPIPE,),
        _prefect: (_PREFECT,),
    }
    if not has_cuda_device():
        del checks[_gpu_engine]
    with ThreadPoolExecutor() as pool:
        for look, answer in zip(checks, pool.map(_ask, checks.values()), strict=True):
            yield from look(*answer)


def _tv_l1(answer: str, fault: str) -> Iterator[Finding]:
    if fault:
        yield Finding("OpenCV's TV-L1", "fault", fault, f"only opencv-contrib-python has it: {REINSTALL}")
    else:
        yield Finding("OpenCV's TV-L1", "ok", f"in OpenCV {answer}")


def _tensorflow(answer: str, fault: str) -> Iterator[Finding]:
    if fault:
        yield Finding("TensorFlow", "fault", fault, REINSTALL)
        return
    version, cards = json.loads(answer)
    yield Finding("TensorFlow", "ok", version)
    if cards:
        yield Finding("GPU", "ok", ", ".join(cards))
    elif has_cuda_device() and not visible_gpus() and "CUDA_VISIBLE_DEVICES" in os.environ:
        hidden = f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}, which hides NVIDIA's GPU"
        yield Finding("GPU", "warning", hidden, "unset it, or leave the GPU to others: the processors do the work")
    elif has_cuda_device():
        cure = "if nvidia-smi shows it, pip install 'tensorflow[and-cuda]' in the same version"
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            cure += f"; CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}"
        yield Finding("GPU", "warning", "there is an NVIDIA GPU, but TensorFlow does not see it", cure)
    else:
        yield Finding("GPU", "ok", "none; the networks run on the processors")


def _gpu_engine(answer: str, fault: str) -> Iterator[Finding]:
    subject = "TV-L1 on the GPU"
    obstacle, refusal = json.loads(answer) if answer else (None, fault)
    if refusal:
        yield Finding(subject, "fault", refusal, "free the GPU, or set optical_flow.engine to cpu to do without it")
    elif obstacle is None:
        yield Finding(subject, "ok", "its kernels are compiled and run")
    else:
        found, cure = obstacle
        slower = "until then, optical flow takes some 30 times as long"
        yield Finding(subject, "warning", found, f"{cure}; {slower}" if cure else "the processors do it, more slowly")


def _device_settings(answer: str, fault: str) -> Iterator[Finding]:
    if fault:
        yield Finding("devices", "fault", fault, REINSTALL)
    else:
        for name, why in json.loads(answer).items():
            yield Finding(name, "fault", "not possible on this machine", why)


def _mediapipe(answer: str, fault: str) -> Iterator[Finding]:
    if fault:
        # Extraction refuses to start if this fails, rather than let MediaPipe send reports.
        cure = "it needs Debian's libegl1 and libgles2, and a container that allows seccomp filters"
        yield Finding("MediaPipe", "fault", fault, cure)
    elif answer == "closed":
        yield Finding("MediaPipe", "ok", "runs, and the kernel denies it network sockets")
    else:
        cure = "block outgoing connections, or run on Linux (x86-64 or arm64)"
        yield Finding("MediaPipe", "warning", "this system cannot stop it from sending usage reports", cure)


def _prefect(answer: str, fault: str) -> Iterator[Finding]:
    if fault:
        yield Finding("Prefect", "fault", fault, REINSTALL)
        return
    version, api, home = json.loads(answer)
    if api is None:
        if (reason := why_not_writable(Path(home))) is None:
            yield Finding("Prefect", "ok", f"{version}; without a PREFECT_API_URL, each command starts a server")
        else:
            found = f"its folder {home} cannot be written: {reason}"
            yield Finding("Prefect", "fault", found, "name another in PREFECT_HOME")
        return
    try:
        with urllib.request.urlopen(f"{api}/admin/version", timeout=ANSWER_S) as reply:
            server = json.loads(reply.read())
    except (OSError, ValueError) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        yield Finding("Prefect", "fault", f"no answer from {api}: {why}", "start it, or correct PREFECT_API_URL")
        return
    if server == version:
        yield Finding("Prefect", "ok", f"{version}, server at {api}")
    else:
        yield Finding("Prefect", "warning", f"{version} here, {server} at {api}", "install the same version on both")


def _ask(code: tuple[str, ...]) -> tuple[str, str]:
    """Run code with its arguments in a process; return the last line of output, and its fault; either may be empty."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "DO_NOT_TRACK": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", *code], capture_output=True, text=True, timeout=LIMIT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return "", f"does not answer in {LIMIT_S} s"
    if done.returncode < 0:
        return "", f"crashes ({signal.Signals(-done.returncode).name})"
    if done.returncode:
        return "", (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return done.stdout.strip().splitlines()[-1], ""

"""A preparing child on a machine with many cores: no more threads, no more memory, and the same videos accepted."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from many_cores import pretend_cores

from extractors.preparation.pool import Finished, PreparerPool
from extractors.preparation.preparer import PreparationSettings, Request
from extractors.video.settings import Limits

# Measured with mediapipe 1.2.2 on 1 to 64 cores: 11 threads and 420 MiB at most; without bounds on 64 cores, 216
# threads and 14,193 MiB.
MOST_THREADS, MOST_DATA_MB = 16, 600


@pytest.fixture(params=[1, 64])
def cores(request, tmp_path, monkeypatch) -> int:
    """The number of cores that child processes believe to see, and are told to use."""
    try:
        environment = pretend_cores(request.param, tmp_path)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot pretend to have many cores: {error}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return request.param


def prepare(settings: PreparationSettings, path: Path) -> tuple[object, int, float]:
    """The last part of a video, and threads and VmData (MiB) of the child that prepared it."""
    with PreparerPool(settings, 1, stall_s=60) as pool:
        for _, part in pool.prepare([Request(path, None, static=True, dynamic=True)]):
            end = part
        # The tests have other children, too: the process that starts commands.
        children = psutil.Process().children()
        (child,) = (child for child in children if "extractors.preparation.child" in " ".join(child.cmdline()))
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return end, int(status["Threads"]), int(status["VmData"].split()[0]) / 1024


def test_the_pretence_works(cores):
    code = "import os, cv2, numpy; print(len(os.sched_getaffinity(0)), len(os.listdir('/proc/self/task')))"
    seen, threads = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert int(seen) == cores
    assert int(threads) >= cores  # OpenBLAS's alone


def test_a_720p_video_is_prepared_with_few_threads_and_little_memory(settings, drawing, cores):
    pictures = (np.roll(drawing.picture(0, 1280, 720), 4 * number, axis=1) for number in range(10))
    end, threads, data_mb = prepare(settings, drawing.write("720p.mp4", pictures))
    assert (end.stage, end.reason) == ("faces", "no_face")  # decoded, converted, and looked for faces in
    assert threads <= MOST_THREADS
    assert data_mb <= MOST_DATA_MB


def test_a_clip_of_a_person_is_prepared_within_the_least_limit(settings, clip, cores):
    end, threads, data_mb = prepare(replace(settings, limits=Limits(memory_mb=512)), clip)
    assert isinstance(end, Finished)
    assert threads <= MOST_THREADS
    assert data_mb <= MOST_DATA_MB


def test_the_limit_of_memory_means_the_same(settings, drawing, cores):
    pictures = [np.full((2160, 3840, 3), 90, np.uint8)] * 3
    video = drawing.write("4k.mkv", pictures, codec="mjpeg", pix_fmt="yuvj420p")
    end, *_ = prepare(replace(settings, limits=Limits(memory_mb=512)), video)
    assert (end.stage, end.reason) == ("faces", "no_face")
    tight = Limits.model_construct(**{**Limits().model_dump(), "memory_mb": 60})
    with PreparerPool(replace(settings, limits=tight), 1, stall_s=60) as pool:
        ((_, end),) = pool.prepare([Request(video, None, static=True, dynamic=True)])
    assert (end.stage, end.reason) == ("decode", "too_large")

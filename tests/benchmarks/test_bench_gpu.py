"""The benchmark of GPU workers, as a machine without a GPU runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from extractors.optical_flow.gpu import why_unusable

SCRIPT = Path(__file__).with_name("bench_gpu.py")


@pytest.mark.slow
@pytest.mark.skipif(not why_unusable(), reason="the engine gpu can run here, and the CPU would measure nothing new")
def test_without_a_gpu_every_row_is_measured_or_said_to_need_one(corpus):
    clip = next(iter(sorted(corpus.glob("fi_v2/*.mp4"))))
    done = subprocess.run(
        [sys.executable, SCRIPT, "--clips", "1", "--price-per-hour", "36", "--video", clip],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"^│ (.+?) +│ +(.+?) │$", done.stdout, re.MULTILINE)
    rows = dict(found)
    assert len(rows) == len(found)
    assert {name for name, value in rows.items() if value == "needs a GPU"} == {
        "GPU busy",
        "decode with NVDEC, core-ms",
        "frames with the same pixels",
        "gpu: pairs/s, 64 a call",
        "gpu: pairs/s, 256 a call",
        "I3D, ms per window, fields left on the GPU",
    }
    measured = {name: float(value.replace(",", "")) for name, value in rows.items() if value != "needs a GPU"}
    assert min(measured.values()) > 0
    assert measured["until the first clip is done, s"] > measured["until the networks are built, s"]
    assert measured["wall, ms per clip"] == pytest.approx(1000 / measured["clips per second"], rel=0.5)
    assert measured["10,000 clips at 36 an hour"] == pytest.approx(36 * measured["10,000 clips, hours"], rel=0.01)
    assert {"cpu: pairs/s, 64 a call", "ResNet-50, ms per crop, 16 at a time"} < set(measured)

"""The log of a command holds what a person may need, and not the greetings of C++ libraries."""

from __future__ import annotations

import pytest

from flows.session import log
from flows.session.log import local_log

OURS = [
    "2026-11-26T20:23:03+0000 INFO    flows: Extract: 1 of 26",
    "Fatal Python error: Segmentation fault",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "W0000 00:00:1795724645.596462   28550 gpu_device.cc:2341] Cannot dlopen some GPU libraries",
]
# Read off the logs of real runs.
GREETINGS = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795723675.978170    1403 port.cc:153] oneDNN custom operations are on.",
    "INFO: [accelerator_registry.cc:54] RegisterAccelerator: ptr=0x7fddd8004800, name=GPU WebGPU",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "WARNING: Logging before InitGoogle() is written to STDERR",
    "W0000 00:00:1795724645.605390   28533 inference_runner_litert.cc:1418] Input tensor memory is not aligned to",
]
CUINIT = "E0000 00:00:1795724610.896466   27672 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error (303)"


@pytest.mark.parametrize("has_gpu", [True, False])
def test_greetings_go_and_all_else_stays_in_order(tmp_path, monkeypatch, has_gpu):
    monkeypatch.setattr(log, "has_cuda_device", lambda: has_gpu)
    path = tmp_path / "run.log"
    mixed = [line for pair in zip([*GREETINGS, CUINIT], [*OURS, *OURS], strict=False) for line in pair]
    with local_log(path) as file:
        file.write_text("".join(f"{line}\n" for line in mixed), encoding="utf-8")
    kept = path.read_text(encoding="utf-8").splitlines()
    # With a GPU in the machine, its driver's complaint matters.
    assert kept == [line for line in mixed if line in OURS or (has_gpu and line == CUINIT)]


def test_a_log_is_kept_if_the_command_breaks_off(tmp_path):
    path = tmp_path / "run.log"
    path.write_text(f"{GREETINGS[0]}\n{OURS[1]}\n", encoding="utf-8")
    with pytest.raises(KeyError), local_log(path):
        raise KeyError
    assert path.read_text(encoding="utf-8") == f"{OURS[1]}\n"

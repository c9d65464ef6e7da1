"""The latency and the memory of a network, measured in a separate process.

    python -m flows.evaluation.measured NAME

prints one line of JSON, as `Measured` has it. Only a fresh process knows its own peak of memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.evaluation.networks import ENTRIES, Entry
from flows.session.errors import UserError

WARM_UP = 3
SECONDS = 2.0
FEWEST, MOST = 5, 200


@dataclass(frozen=True, slots=True)
class Measured:
    """One network at inference on this machine, one input at a time.

    Attributes:
        latency_ms: median over passes, in milliseconds.
        passes: how many were timed.
        peak_mb: peak of the resident memory from building it to the last pass, minus that of the process before, with
            TensorFlow loaded and one multiplication done; MB of 1,000,000 bytes.
    """

    latency_ms: float
    passes: int
    peak_mb: float


def measure(name: str) -> Measured:
    """Measure a network of `flows.evaluation.networks` in a child process. Raises UserError if that fails."""
    command = [sys.executable, "-m", "flows.evaluation.measured", name]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if child.returncode:
        last = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        raise UserError(f"measuring {name} failed, perhaps for lack of memory: {last[0]}")
    return Measured(**json.loads(child.stdout.splitlines()[-1]))


def _measure_here(entry: Entry) -> Measured:
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    tf.linalg.matmul(tf.ones((64, 64)), tf.ones((64, 64)))  # starts threads and allocators
    before = _peak_bytes()
    network = _network(entry)
    inputs = [tf.constant(rng.uniform(-1, 1, shape).astype(np.float32)) for shape in entry.shapes]
    forward = tf.function(lambda *x: network(x if len(x) > 1 else x[0], training=False), jit_compile=False)
    times_ms: list[float] = []
    for _ in range(WARM_UP):
        forward(*inputs).numpy()
    while len(times_ms) < FEWEST or (sum(times_ms) < 1000 * SECONDS and len(times_ms) < MOST):
        started = time.perf_counter()
        forward(*inputs).numpy()
        times_ms.append(1000 * (time.perf_counter() - started))
    return Measured(statistics.median(times_ms), len(times_ms), (_peak_bytes() - before) / 1e6)


def _network(entry: Entry) -> Any:
    if not entry.folds:
        return entry.build()
    from extractors.networks.inference import for_inference

    return for_inference(entry.build())


def _peak_bytes() -> int:
    """Return the peak of this process's resident memory in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss: on Linux, a child's begins with its parent's.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(asdict(_measure_here(ENTRIES[sys.argv[1]]))))

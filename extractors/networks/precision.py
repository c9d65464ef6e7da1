"""Precisions that networks compute in, and whether this machine has them.

GPUs since NVIDIA's Ampere can round what float32 convolutions and matrix products multiply to 10 bits (TF32).
TensorFlow allows that by default, by a switch of the whole process. Here it is off, except while a network with
precision "tf32" runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extractors.devices import cuda_capability, has_gpu
from extractors.errors import DeviceError
from extractors.networks import Precision

CPU_FLAGS = Path("/proc/cpuinfo")  # Linux only
# Of x86 CPUs (Intel and AMD) and of ARM.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_AMPERE = (8, 0)

_tf32: set[bool] = set()  # of the networks that this process has built


def settle_precision(precision: Precision) -> None:
    """Prepare this process for a network in this precision. Call it before the network is built.

    Raises:
        DeviceError: this machine does not have the precision, or would give other numbers than machines that have it;
            or this process has networks with TF32 and others without: TensorFlow keeps the algorithm that it chose for
            a convolution of some size, with or without TF32, for all networks.
    """
    import tensorflow as tf

    check_precision(precision)
    if not _tf32 <= {precision == "tf32"}:
        raise DeviceError(
            "one process cannot compute both with tf32 and without: set the precision of all networks to tf32 or none, "
            "and start a new process to change it"
        )
    _tf32.add(precision == "tf32")
    tf.config.experimental.enable_tensor_float_32_execution(False)


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Allow TF32 in the block if that is the precision."""
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)


def check_precision(precision: Precision) -> None:
    """Raise DeviceError unless this machine has the precision and computes the same numbers as others.

    Without hardware support for bfloat16, TensorFlow falls back to emulation, 4 times slower than float32, or to sums
    in bfloat16, 30 times slower and 1.4% off (measured on I3D). Without TF32, it computes in float32 and says nothing.
    """
    if precision == "float32":
        return
    capability = cuda_capability()
    if precision == "tf32":
        if capability is None or capability < _AMPERE:
            raise DeviceError(
                "tf32 needs an NVIDIA GPU of compute capability 8.0 or newer, which TensorFlow does not see here: set "
                "precision to float32"
            )
    elif has_gpu():
        if capability is not None and capability < _AMPERE:
            raise DeviceError(
                "this GPU has no bfloat16 (compute capability {}.{}, not 8.0 or newer): set precision to "
                "float32".format(*capability)
            )
    else:
        _check_bfloat16_of_cpu()


def _check_bfloat16_of_cpu() -> None:
    flags = set(CPU_FLAGS.read_text().split()) if CPU_FLAGS.is_file() else set()
    if not flags & BFLOAT16_FLAGS:
        raise DeviceError("this CPU has no bfloat16 (AVX512_BF16, AMX or ARM's BF16): set precision to float32")
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        raise DeviceError("bfloat16 needs oneDNN, which TF_ENABLE_ONEDNN_OPTS=0 turns off: unset it, or take float32")

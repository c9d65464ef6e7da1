"""TV-L1 optical flow on an NVIDIA GPU by a fused kernel.

Importing this package loads no CUDA library; `extractors.optical_flow.gpu.engine` needs what `traitline[gpu]` installs.
"""

from __future__ import annotations

NO_GPU = "there is no GPU"
OLDEST_CAPABILITY = (7, 0)  # atomic loads and stores as the kernels use them


def why_unusable() -> str:
    """Say why the engine cannot run here: `NO_GPU` if CUDA shows none; empty if it can. Takes no memory of the GPU."""
    try:
        from cuda.bindings import driver
        from cuda.core import Device
    except ImportError:
        return "cuda-core is not installed (pip install 'traitline[gpu]')"
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError:
        return "NVIDIA's driver is not installed"
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:  # also if CUDA_VISIBLE_DEVICES hides all
        return NO_GPU
    if status != driver.CUresult.CUDA_SUCCESS:
        return f"NVIDIA's driver refuses to start ({status.name})"
    capability = tuple(Device(0).compute_capability)
    if capability < OLDEST_CAPABILITY:
        return f"the GPU has compute capability {'{}.{}'.format(*capability)}, and 7.0 is the oldest that will do"
    return ""

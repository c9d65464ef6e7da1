"""TV-L1 optical flow on an NVIDIA GPU by a fused kernel.

Importing this package loads no CUDA library; `extractors.optical_flow.gpu.engine` needs what `traitline[gpu]` installs.
"""

from __future__ import annotations

NO_GPU = "there is no GPU"
OLDEST_DRIVER = 12000  # as CUDA numbers it: 12.0
OLDEST_CAPABILITY = (7, 0)  # atomic loads and stores as the kernels use them


def why_unusable() -> str:
    """Say why the engine cannot run here: `NO_GPU` if CUDA shows none; empty if it can. Takes no memory of the GPU."""
    try:
        from cuda.bindings import driver
        from cuda.core import Device

        from extractors.optical_flow.gpu.program import architecture_for
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
    _, version = driver.cuDriverGetVersion()
    if version < OLDEST_DRIVER:
        shown = f"{version // 1000}.{version % 1000 // 10}"
        return f"NVIDIA's driver is for CUDA {shown}, and 12.0 is the oldest that will do"
    capability = Device(0).compute_capability
    shown = f"the GPU has compute capability {capability.major}.{capability.minor}"
    if tuple(capability) < OLDEST_CAPABILITY:
        return f"{shown}, and 7.0 is the oldest that will do"
    try:
        known = architecture_for(capability.major, capability.minor)
    except RuntimeError:
        return "NVRTC is not installed (pip install 'traitline[gpu]')"
    return "" if known else f"{shown}, for which the installed NVRTC cannot compile"

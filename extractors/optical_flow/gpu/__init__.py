"""TV-L1 optical flow on an NVIDIA GPU by a fused kernel.

Importing this package loads no CUDA library; `extractors.optical_flow.gpu.engine` needs what `traitline[gpu]` installs.
"""

from __future__ import annotations

from typing import NamedTuple


class Obstacle(NamedTuple):
    """Why the engine cannot run on this machine.

    Args:
        cure: what to do about it; empty if there is nothing to be done.
    """

    found: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.found} ({self.cure})" if self.cure else self.found


NO_GPU = Obstacle("there is no GPU")
HIDDEN = Obstacle("CUDA shows this process no GPU", "CUDA_VISIBLE_DEVICES may hide it")
OLDEST_DRIVER = 12000  # as CUDA numbers it: 12.0
OLDEST_CAPABILITY = (7, 0)  # atomic loads and stores as the kernels use them

_INSTALL = "pip install 'traitline[gpu]'"
# What helps if the driver refuses to start, by CUDA's name of the error.
_CURES = {
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "restart the machine, whose driver was updated",
    "CUDA_ERROR_SYSTEM_NOT_READY": "start nvidia-fabricmanager",
    "CUDA_ERROR_STUB_LIBRARY": "remove CUDA's folder stubs from LD_LIBRARY_PATH",
}


def why_unusable() -> Obstacle | None:
    """Say why the engine cannot run on the GPU of this machine; None if it can. Takes no memory of the GPU."""
    try:
        from cuda.bindings import driver
        from cuda.core import Device

        from extractors.optical_flow.gpu.program import architecture_for
    except ImportError:
        return Obstacle("cuda-core is not installed", _INSTALL)
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError:
        cure = "install it; a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        return Obstacle("NVIDIA's driver libcuda.so.1 is not installed", cure)
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        return HIDDEN
    if status != driver.CUresult.CUDA_SUCCESS:
        cure = _CURES.get(status.name, "nvidia-smi may say more")
        return Obstacle(f"NVIDIA's driver refuses to start: {status.name}", cure)
    _, version = driver.cuDriverGetVersion()
    if version < OLDEST_DRIVER:
        shown = f"{version // 1000}.{version % 1000 // 10}"
        found = f"NVIDIA's driver is for CUDA {shown}, and 12.0 is the oldest that will do"
        return Obstacle(found, "install driver 525 or newer")
    capability = Device(0).compute_capability
    shown = f"the GPU has compute capability {capability.major}.{capability.minor}"
    if tuple(capability) < OLDEST_CAPABILITY:
        return Obstacle(f"{shown}, and 7.0 is the oldest that will do")
    try:
        known = architecture_for(capability.major, capability.minor)
    except RuntimeError:
        return Obstacle("NVRTC is not installed", _INSTALL)
    if known is None:
        cure = "pip install --upgrade nvidia-cuda-nvrtc-cu12 'traitline[gpu]'"
        return Obstacle(f"{shown}, for which the installed NVRTC cannot compile", cure)
    return None

"""Optical flow of grey frames by TV-L1, with a choice of engines that agree.

The computer is loaded on first use, so that the settings can be read without the libraries that it needs.
"""

from typing import TYPE_CHECKING

from extractors.optical_flow.parameters import OpticalFlowSettings

if TYPE_CHECKING:
    from extractors.optical_flow.computer import OpticalFlowComputer, loop_to, scale_for_i3d

__all__ = ["OpticalFlowComputer", "OpticalFlowSettings", "loop_to", "scale_for_i3d"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'extractors.optical_flow' has no attribute {name!r}")
    from extractors.optical_flow import computer

    return getattr(computer, name)

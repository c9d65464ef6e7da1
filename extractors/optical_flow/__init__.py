"""Optical flow of grey frames by TV-L1, with a choice of engines that agree."""

from extractors.optical_flow.computer import OpticalFlowComputer, OpticalFlowSettings, loop_to, scale_for_i3d

__all__ = ["OpticalFlowComputer", "OpticalFlowSettings", "loop_to", "scale_for_i3d"]

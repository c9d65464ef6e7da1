"""Parameters of TV-L1 optical flow, shared by every engine, and what a user may choose."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class TVL1Parameters(BaseModel, frozen=True, extra="forbid"):
    """Parameters by the names of Zach, Pock and Bischof, with OpenCV's defaults.

    Sources:
        C. Zach, T. Pock, H. Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007.
        J. Sanchez Perez, E. Meinhardt-Llopis, G. Facciolo, "TV-L1 optical flow estimation", IPOL 2013.
        OpenCV contrib 4.x, `cv::optflow::DualTVL1OpticalFlow`: defaults, stop criterion and median filter.
    """

    tau: float = Field(0.25, gt=0, le=0.25, description="Time step of the dual variables (no unit; at most 1/4).")
    lambda_: float = Field(0.15, gt=0, description="Weight of the data term: smaller gives a smoother field (no unit).")
    theta: float = Field(0.3, gt=0, description="Tightness between the two halves of the energy (no unit).")
    scales: int = Field(5, ge=1, description="Most levels in the image pyramid (count); no side falls under 16 px.")
    step: float = Field(0.8, gt=0, lt=1, description="Size of a pyramid level over the next finer one (ratio).")
    warps: int = Field(5, ge=1, description="Warps of the second frame at each level (count).")
    epsilon: float = Field(0.01, ge=0, description="Root mean square change under which iterations end (pixels).")
    inner: int = Field(30, ge=1, description="Most iterations between two median filters (count).")
    outer: int = Field(10, ge=1, description="Most rounds of median filter and iterations for each warp (count).")
    median: Literal[1, 3, 5] = Field(5, description="Side of the median filter over the field (pixels; 1 is none).")


SMALLEST_SIDE_PX = 16
# OpenCV's defaults, with which I3D's authors computed the optical flow that they trained on: MediaPipe's
# tvl1_optical_flow_calculator.cc, which the README of google-deepmind/kinetics-i3d names as their preprocessing. Five
# scales end at 0.41 of the size, where 20 px are still 8.
EXACT = TVL1Parameters()
FAST = TVL1Parameters(step=0.5, scales=4)
# The same, with as many scales as there are down to 16 px, as in IPOL's tvl1flow. Without smoothing before each step
# down, which OpenCV omits, coarser steps alias: 0.75 takes 0.84 of the time, and errs more on regular patterns.
LARGE_MOTION = TVL1Parameters(scales=100)

Engine = Literal["auto", "opencv", "cpu", "gpu"]
Preset = Literal["exact", "fast", "large_motion"]
PRESETS: dict[Preset, TVL1Parameters] = {"exact": EXACT, "fast": FAST, "large_motion": LARGE_MOTION}


class OpticalFlowSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of optical flow."""

    engine: Engine = Field(
        "auto",
        description="What computes TV-L1: cpu (Numba), gpu (CUDA), opencv (slow); auto is gpu on a CUDA GPU, else cpu. "
        "Each has keys of its own: name one if an archive is processed on machines with and without a GPU.",
    )
    preset: Preset = Field(
        "exact",
        description="TV-L1's parameters: exact has OpenCV's defaults, as I3D was trained on, and loses motion beyond "
        "10 px a frame; large_motion follows 20 px and takes 1.2 times as long; fast takes 0.6 times as long and is "
        "0.03 px from exact on calm faces.",
    )
    parameters: TVL1Parameters | None = Field(None, description="TV-L1 parameters in full, in place of the preset's.")
    threads: int | None = Field(None, ge=1, description="Pairs of frames at a time (count); by default, one per core.")
    bound_px: float = Field(20.0, gt=0, description="Displacement that becomes 1 for I3D; larger is clipped (pixels).")


def pyramid_sizes(height: int, width: int, parameters: TVL1Parameters) -> list[tuple[int, int]]:
    """Size (height, width) of every level of the pyramid, the finest first; no side falls under 16 pixels."""
    sizes = [(height, width)]
    for _ in range(1, parameters.scales):
        coarser = (round(sizes[-1][0] * parameters.step), round(sizes[-1][1] * parameters.step))
        if min(coarser) < SMALLEST_SIDE_PX:
            break
        sizes.append(coarser)
    return sizes

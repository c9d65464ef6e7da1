"""Optical flow of grey frames by TV-L1, with a choice of engines that agree, and its preparation for I3D."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from extractors.devices import usable_cores
from extractors.optical_flow.parameters import (
    EXACT,
    FAST,
    SMALLEST_SIDE_PX,
    Engine,
    OpticalFlowSettings,
    Preset,
    TVL1Parameters,
)

logger = logging.getLogger(__name__)

# What Linux shows of a GPU: NVIDIA's driver, Windows' subsystem for Linux, AMD's driver.
GPU_DEVICES = ("/dev/nvidia0", "/dev/dxg", "/dev/kfd")
# Part of the cache key: raise it when this code's numbers change.
REVISION = 1


class OpticalFlowComputer:
    """Compute dense optical flow between successive frames by TV-L1.

    All engines follow OpenCV's scheme (see `TVL1Parameters` for parameters and sources), so that they agree to
    hundredths of a pixel.

    Args:
        engine: "opencv", "cpu" (Numba), "xla" (Keras, compiled for a GPU), or "auto": "xla" where Keras's backend has
            a GPU, else "cpu"; "opencv", with a warning, where Numba cannot run.
        preset: "exact" (OpenCV's default parameters) or "fast" (pyramid step 0.5, 4 scales; its measured error stands
            beside `FAST` in `parameters`).
        threads: pairs computed at the same time on the CPU; None takes every core that this process may use.
        parameters: TV-L1 parameters in place of the preset's.

    Attributes:
        engine: the engine in use; never "auto".
        parameters: the parameters in use.
        threads: pairs computed at the same time on the CPU.

    Raises:
        ValueError: an unknown engine or preset, or threads under 1.
    """

    def __init__(
        self,
        engine: Engine = "auto",
        preset: Preset = "exact",
        *,
        threads: int | None = None,
        parameters: TVL1Parameters | None = None,
    ) -> None:
        settings = OpticalFlowSettings(engine=engine, preset=preset, threads=threads, parameters=parameters)
        self.engine = _available_engine(settings.engine)
        self.threads = usable_cores() if threads is None else threads
        if parameters is None:
            self.parameters = FAST if preset == "fast" else EXACT
        else:
            self.parameters = parameters
        self._compute = _build(self.engine, self.parameters, self.threads)

    @classmethod
    def from_settings(cls, settings: OpticalFlowSettings) -> OpticalFlowComputer:
        """Build the computer that `settings` describe."""
        return cls(settings.engine, settings.preset, threads=settings.threads, parameters=settings.parameters)

    @property
    def numerics(self) -> dict[str, Any]:
        """Everything that changes the numbers, for a cache key; JSON-able.

        The "cpu" and "xla" engines are one implementation on two devices, and a device is no part of a key.
        """
        implementation = "opencv" if self.engine == "opencv" else f"traitline-{REVISION}"
        return {"algorithm": "tvl1", "implementation": implementation, "parameters": self.parameters.model_dump()}

    def compute(self, gray: np.ndarray) -> np.ndarray:
        """Compute the optical flow from each frame to the next.

        Args:
            gray: uint8, (T, H, W), T at least 1, H and W at least 16.

        Returns:
            float32, (T - 1, H, W, 2), pixels: frame[t][y, x] is seen in frame[t + 1] at (x + dx, y + dy); channel 0 is
            dx (rightwards), channel 1 is dy (down).

        Raises:
            ValueError: the frames have another dtype, rank or too small a size.
        """
        if gray.dtype != np.uint8 or gray.ndim != 3:
            raise ValueError(f"gray must be uint8 [T, H, W]; got {gray.dtype} with shape {gray.shape}")
        if gray.shape[0] < 1 or min(gray.shape[1:]) < SMALLEST_SIDE_PX:
            raise ValueError(f"gray needs a frame and sides of at least {SMALLEST_SIDE_PX} px; got shape {gray.shape}")
        if gray.shape[0] == 1:
            return np.empty((0, *gray.shape[1:], 2), np.float32)
        return self._compute(gray)

    __call__ = compute


def _available_engine(engine: Engine) -> Engine:
    """Resolve "auto", and replace the CPU engine where Numba cannot be imported."""
    if engine == "auto":
        engine = "xla" if _gpu_usable() else "cpu"
    if engine == "cpu":
        try:
            import extractors.optical_flow.cpu.engine  # noqa: F401
        except ImportError as error:
            logger.warning("Numba cannot run here (%s): optical flow by OpenCV, some 20 times slower", error)
            return "opencv"
    return engine


def _build(engine: Engine, parameters: TVL1Parameters, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    # Each engine's libraries are heavy and are loaded for those who use it.
    if engine == "cpu":
        from extractors.optical_flow.cpu.engine import CpuEngine

        return CpuEngine(parameters, threads).compute
    if engine == "xla":
        from extractors.optical_flow.xla import tvl1_xla

        return functools.partial(tvl1_xla, parameters=parameters)
    from extractors.optical_flow.opencv import tvl1_opencv

    return functools.partial(tvl1_opencv, parameters=parameters, threads=threads)


def _gpu_usable() -> bool:
    # Keras and its backend take seconds to load: do not even ask them where there is no GPU.
    if not any(Path(device).exists() for device in GPU_DEVICES):
        return False
    from extractors.devices import has_gpu

    return has_gpu()


def scale_for_i3d(displacement_px: np.ndarray, *, bound_px: float = 20.0) -> np.ndarray:
    """Bring an optical-flow field into the range that the I3D flow stream was trained on.

    Args:
        displacement_px: float32, (..., H, W, 2); channel 0 is dx (rightwards), channel 1 is dy (down), in pixels.
        bound_px: displacements beyond +-bound_px are clipped to it.

    Returns:
        float32, the same shape, in [-1, 1] (pixels / bound_px).

    Raises:
        ValueError: the last axis is not 2, or bound_px is not positive.

    Sources:
        google-deepmind/kinetics-i3d, README, "Sample data and preprocessing".
    """
    if displacement_px.ndim == 0 or displacement_px.shape[-1] != 2:
        raise ValueError(f"the last axis must be (dx, dy); got shape {displacement_px.shape}")
    if not bound_px > 0:
        raise ValueError(f"bound_px must be positive; got {bound_px}")
    scaled = np.clip(displacement_px, -bound_px, bound_px, dtype=np.float32)
    scaled /= np.float32(bound_px)
    return scaled


def loop_to(fields: np.ndarray, count: int) -> np.ndarray:
    """Complete a short run of fields to `count` by starting it over as often as needed.

    Args:
        fields: (N, ...), N at least 1.
        count: fields wanted, at least N.

    Returns:
        (count, ...), the same dtype; item i is fields[i % N]. The array itself where it is long enough.

    Raises:
        ValueError: there are no fields, or more than `count`.
    """
    if not 1 <= len(fields) <= count:
        raise ValueError(f"between 1 and {count} fields can be looped to {count}; got {len(fields)}")
    return fields if len(fields) == count else fields[np.arange(count) % len(fields)]

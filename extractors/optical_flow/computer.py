"""Optical flow of grey frames by TV-L1, with a choice of engines that agree, and its preparation for I3D."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from extractors.devices import has_cuda_device, usable_cores
from extractors.errors import DeviceError
from extractors.optical_flow.gpu import HIDDEN, NO_GPU, Obstacle, why_unusable
from extractors.optical_flow.parameters import (
    PRESETS,
    SMALLEST_SIDE_PX,
    Engine,
    OpticalFlowSettings,
    Preset,
    TVL1Parameters,
)

if TYPE_CHECKING:
    from extractors.optical_flow.gpu.engine import GpuEngine

logger = logging.getLogger(__name__)

# Part of the cache key: raise it if this code's results change.
REVISION = 1
_NONE_HERE = (NO_GPU, HIDDEN)  # "auto" then takes the CPU without a word


class DeviceArray(Protocol):
    """An array on whatever device, for `from_dlpack` of any array library."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype:
        """Its numbers' type."""

    def __dlpack__(self, *, stream: int | None = None) -> object: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


class OpticalFlowComputer:
    """Compute dense optical flow between successive frames by TV-L1.

    All engines follow OpenCV's scheme (see `TVL1Parameters` for parameters and sources), so that they agree to
    hundredths of a pixel.

    Args:
        engine: "opencv", "cpu" (Numba), "gpu" (CUDA; needs `traitline[gpu]`), or "auto": "gpu" if there is a CUDA GPU,
            else "cpu". If Numba cannot run here, "cpu" is replaced by "opencv", with a warning.
        preset: "exact" (OpenCV's default parameters, whose five scales lose motion beyond 10 px), "large_motion" (the
            same with a pyramid down to 16 px, for 20 px and more) or "fast" (pyramid step 0.5, 4 scales).
        threads: pairs computed at the same time on the CPU; None takes every core that this process may use.
        parameters: TV-L1 parameters in place of the preset's.

    Attributes:
        engine: the engine in use; never "auto".
        parameters, threads: those in use.

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
        self.parameters = PRESETS[preset] if parameters is None else parameters

    @classmethod
    def from_settings(cls, settings: OpticalFlowSettings) -> OpticalFlowComputer:
        """Build the computer that `settings` describe."""
        return cls(settings.engine, settings.preset, threads=settings.threads, parameters=settings.parameters)

    @property
    def numerics(self) -> dict[str, Any]:
        """All settings that change the numbers, for a cache key; JSON-able.

        Of "gpu", too, because TV-L1 amplifies the last bits: its fields are .01 px from those of "cpu" on average, and
        I3D's features of them up to 1% (random weights).
        """
        implementation = "opencv" if self.engine == "opencv" else f"traitline-{REVISION}"
        device = {"engine": "gpu"} if self.engine == "gpu" else {}
        parameters = self.parameters.model_dump()
        return {"algorithm": "tvl1", "implementation": implementation, **device, "parameters": parameters}

    def check(self) -> None:
        """Raise DeviceError if the engine is "gpu" and cannot run here, as `compute` does."""
        if self.engine == "gpu" and (missing := _missing_for_gpu()):
            raise DeviceError(
                f"the gpu engine of optical flow cannot run: {missing}; use another machine, or set "
                "optical_flow.engine to cpu, whose features have keys of their own"
            )

    def compute(self, gray: np.ndarray) -> np.ndarray:
        """Compute the optical flow from each frame to the next.

        Args:
            gray: uint8, (T, H, W), T at least 1, H and W at least 16.

        Returns:
            float32, (T - 1, H, W, 2), pixels: `frame[t][y, x]` is seen in `frame[t + 1]` at (x + dx, y + dy); channel 0
            is dx (rightwards), channel 1 is dy (down).

        Raises:
            ValueError: the frames have another dtype, rank or too small a size.
        """
        _check_frames(gray, ndim=3)
        if gray.shape[0] == 1:
            return np.empty((0, *gray.shape[1:], 2), np.float32)
        if self.engine == "gpu" and self._gpu.fits(*gray.shape[1:]):
            return self._gpu.compute(gray)
        return self._compute(gray)

    def compute_scaled(self, gray: np.ndarray, *, bound_px: float = 20.0) -> DeviceArray:
        """Compute the optical flow of windows, clipped and scaled as `scale_for_i3d` does, and leave it where it is.

        Args:
            gray: uint8, (..., T, H, W): windows of T successive frames; T at least 2, H and W at least 16.
            bound_px: displacement that becomes 1; larger ones are clipped.

        Returns:
            float32, (..., T - 1, H, W, 2), in [-1, 1]. With engine "gpu" the numbers stay on the GPU, ready to be read,
            and `from_dlpack` of TensorFlow, JAX, PyTorch or CuPy takes them without a copy. Keep what this returns
            until the work that reads it has finished. With other engines it is a NumPy array.

        Raises:
            ValueError: the frames have another dtype, rank or too small a size, or bound_px is not positive.
        """
        _check_frames(gray)
        if gray.shape[-3] < 2:
            raise ValueError(f"a window needs 2 frames; got shape {gray.shape}")
        if not bound_px > 0:
            raise ValueError(f"bound_px must be positive; got {bound_px}")
        if self.engine == "gpu" and self._gpu.fits(*gray.shape[-2:]):
            return cast(DeviceArray, self._gpu.compute_scaled(gray, bound_px))
        windows = gray.reshape(-1, *gray.shape[-3:])
        fields = np.stack([scale_for_i3d(self.compute(window), bound_px=bound_px) for window in windows])
        return fields.reshape(*gray.shape[:-3], *fields.shape[1:])

    @functools.cached_property
    def _gpu(self) -> GpuEngine:
        # A process that only asks for `numerics` takes no memory of the GPU, and needs none.
        self.check()
        from extractors.optical_flow.gpu.engine import GpuEngine

        return GpuEngine(self.parameters)

    @functools.cached_property
    def _compute(self) -> Callable[[np.ndarray], np.ndarray]:
        """The engine; with "gpu", the one for pictures that are too large for it."""
        if self.engine != "gpu":
            return _build(self.engine, self.parameters, self.threads)
        logger.warning(
            "pictures as large as these do not fit the gpu engine: their optical flow is computed on the CPU"
        )
        return _build(_available_engine("cpu"), self.parameters, self.threads)

    __call__ = compute


def _check_frames(gray: np.ndarray, ndim: int | None = None) -> None:
    if gray.dtype != np.uint8 or gray.ndim < 3 or (ndim is not None and gray.ndim != ndim):
        raise ValueError(f"gray must be uint8 [T, H, W]; got {gray.dtype} with shape {gray.shape}")
    if 0 in gray.shape or min(gray.shape[-2:]) < SMALLEST_SIDE_PX:
        raise ValueError(f"gray needs a frame and sides of at least {SMALLEST_SIDE_PX} px; got shape {gray.shape}")


def _available_engine(engine: Engine) -> Engine:
    """Resolve "auto", and replace "cpu" if it cannot run here."""
    if engine == "auto":
        missing = _missing_for_gpu()
        if missing is None:
            return "gpu"
        if missing not in _NONE_HERE:
            logger.warning("the gpu engine, by far the fastest, cannot run: %s; the CPU computes optical flow", missing)
        engine = "cpu"
    if engine == "cpu":
        try:
            importlib.import_module("extractors.optical_flow.cpu.engine")
        except (ImportError, OSError) as error:  # OSError: its library cannot be loaded
            logger.warning("Numba cannot run here (%s): optical flow by OpenCV, some 20 times slower", error)
            return "opencv"
    return engine


def why_gpu_is_idle() -> Obstacle | None:
    """Say why "auto" does not use the GPU of this machine; None if it does, or if there is none for this process."""
    missing = _missing_for_gpu()
    return None if missing in _NONE_HERE else missing


def _missing_for_gpu() -> Obstacle | None:
    # CUDA's libraries take a while to load: they are not asked if there is no device.
    return why_unusable() if has_cuda_device() else NO_GPU


def engine_of(numerics: Mapping[str, Any]) -> Engine:
    """Return the engine that `OpticalFlowComputer.numerics` stand for."""
    if numerics["implementation"] == "opencv":
        return "opencv"
    return "gpu" if numerics.get("engine") == "gpu" else "cpu"


def _build(engine: Engine, parameters: TVL1Parameters, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    # Each engine's libraries are heavy; load only those of the engine in use.
    if engine == "cpu":
        from extractors.optical_flow.cpu.engine import CpuEngine

        return CpuEngine(parameters, threads).compute
    from extractors.optical_flow.opencv import tvl1_opencv

    return functools.partial(tvl1_opencv, parameters=parameters, threads=threads)


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
    scaled: np.ndarray = np.clip(displacement_px, -bound_px, bound_px, dtype=np.float32)
    scaled /= np.float32(bound_px)
    return scaled


def loop_to(fields: np.ndarray, count: int) -> np.ndarray:
    """Extend a short run of fields to `count` by repeating it.

    Args:
        fields: (N, ...), N at least 1.
        count: fields wanted, at least N.

    Returns:
        (count, ...), the same dtype; item i is fields[i % N]. The array itself if it is long enough.

    Raises:
        ValueError: there are no fields, or more than `count`.
    """
    if not 1 <= len(fields) <= count:
        raise ValueError(f"between 1 and {count} fields can be looped to {count}; got {len(fields)}")
    return fields if len(fields) == count else fields[np.arange(count) % len(fields)]

"""From a video file to the inputs of the networks: face track, face crops, windows of motion. No network runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.faces.crops import CropWindow, Window, iter_crops, plan_static, plan_windows
from extractors.faces.detector import FaceDetector
from extractors.faces.settings import CropSettings, FaceSettings
from extractors.faces.track import FaceTrack, track_faces
from extractors.optical_flow.computer import OpticalFlowComputer, scale_for_i3d
from extractors.optical_flow.parameters import OpticalFlowSettings
from extractors.preparation.stopwatch import Stopwatch
from extractors.video.limits import DEFAULT_LIMITS, Limits
from extractors.video.settings import VideoSettings


@dataclass(frozen=True)
class PreparationSettings:
    """All settings that preparation depends on.

    Args:
        face_model: the face detector's file.
        optical_flow: its engine is never "auto". With "gpu", which runs in the process that has the GPU, windows
            come as grey frames; otherwise as optical flow.
        limits: the resources that a video may take.
    """

    face_model: Path
    video: VideoSettings
    faces: FaceSettings
    crops: CropSettings
    optical_flow: OpticalFlowSettings
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class Request:
    """One video and the parts wanted of it.

    Args:
        path: the file.
        track: the main person's face track, if it is known already.
        static: whether face crops are wanted.
        dynamic: whether windows of motion are wanted.
        threads: pairs of frames whose optical flow is computed at the same time.
        sha256: digest that the file's bytes must have, in hex; empty if they could not be read, None if it is unknown.
    """

    path: Path
    track: FaceTrack | None
    static: bool
    dynamic: bool
    threads: int = 1
    sha256: str | None = None


@dataclass(frozen=True)
class FaceCrop:
    """A face, uint8 RGB [224, 224, 3], at one frame of the grid."""

    frame: int
    pixels: np.ndarray


@dataclass(frozen=True)
class Motion:
    """Motion in one window.

    Args:
        window: its place in the video.
        fields: float32 [window.fields, 224, 224, 2] in [-1, 1], as `scale_for_i3d` gives them; or with engine "gpu"
            the grey frames to compute them from, uint8 [window.fields + 1, 224, 224].
    """

    window: Window
    fields: np.ndarray


Part = FaceTrack | FaceCrop | Motion


class Preparer:
    """Prepares one video after another. Use it as a context manager; the face detector must be closed.

    Args:
        settings: how to prepare videos.
        on_progress: called for each picture in which faces are detected, and for each window.
    """

    def __init__(self, settings: PreparationSettings, on_progress: Callable[[], None]) -> None:
        self._settings, self._on_progress = settings, on_progress
        self._computers: dict[int, OpticalFlowComputer] = {}
        self._resources = ExitStack()

    def __enter__(self) -> Preparer:
        self._detector = self._resources.enter_context(FaceDetector(self._settings.face_model, self._settings.faces))
        return self

    def __exit__(self, *reason: object) -> None:
        self._resources.close()

    def prepare(self, request: Request, watch: Stopwatch) -> Iterator[Part]:
        """Yield a video's parts as they come: its track, unless it is known, then crops and windows in order.

        Args:
            request: the video.
            watch: adds the time to its stages "decode", "faces" and "optical flow".

        Raises:
            VideoError: the video is unusable; may come after any part.
        """
        settings, track = self._settings, request.track
        if track is None:
            # The time outside the detector is the decoder's.
            with watch.measure("decode"):
                detector = _MeasuredDetector(self._detector, watch, self._on_progress)
                track = track_faces(request.path, detector, settings.video, settings.faces, settings.limits)
            yield track
        windows = plan_windows(track, settings.crops)
        static_frames = plan_static(windows, settings.crops) if request.static else []
        crops = iter_crops(request.path, windows, static_frames, fps=settings.video.fps, limits=settings.limits)
        for cut in watch.iterate("decode", crops):
            self._on_progress()
            yield from (FaceCrop(frame, pixels) for frame, pixels in cut.static)
            if request.dynamic:
                yield self._motion(cut, request.threads, watch)

    def _motion(self, cut: CropWindow, threads: int, watch: Stopwatch) -> Motion:
        settings = self._settings.optical_flow
        if settings.engine == "gpu":
            return Motion(cut.window, cut.grey)
        if threads not in self._computers:
            self._computers[threads] = OpticalFlowComputer.from_settings(
                settings.model_copy(update={"threads": threads})
            )
        with watch.measure("optical flow"):
            fields = self._computers[threads].compute(cut.grey)
            return Motion(cut.window, scale_for_i3d(fields, bound_px=settings.bound_px))


class _MeasuredDetector:
    """Adds a face detector's time to a stopwatch."""

    def __init__(self, detector: FaceDetector, watch: Stopwatch, on_progress: Callable[[], None]) -> None:
        self._detector, self._watch, self._on_progress = detector, watch, on_progress

    def detect(self, image: np.ndarray) -> np.ndarray:
        self._on_progress()
        with self._watch.measure("faces"):
            return self._detector.detect(image)

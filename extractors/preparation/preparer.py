"""From a video file to what the networks take: face track, face crops, windows of motion. No network runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.faces.crops import CropSettings, CropWindow, Window, iter_crops, plan_static, plan_windows
from extractors.faces.detector import FaceDetector, FaceSettings
from extractors.faces.track import FaceTrack, track_faces
from extractors.optical_flow.computer import OpticalFlowComputer, OpticalFlowSettings, scale_for_i3d
from extractors.preparation.stopwatch import Stopwatch
from extractors.video.grid import VideoSettings
from extractors.video.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class PreparationSettings:
    """Everything that says how a video is prepared.

    Args:
        face_model: the face detector's file.
        optical_flow: its engine is never "auto". With "gpu", which belongs to the process that has the
            GPU, windows come as grey frames; otherwise as optical flow.
        limits: what a video may cost.
    """

    face_model: Path
    video: VideoSettings
    faces: FaceSettings
    crops: CropSettings
    optical_flow: OpticalFlowSettings
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class Request:
    """One video and what of it is wanted.

    Args:
        path: the file.
        track: of the main person's face, where it is known already.
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
    """What moves in one window.

    Args:
        window: where it is.
        fields: float32 [window.fields, 224, 224, 2] in [-1, 1], as `scale_for_i3d` gives them; or with
            engine "gpu" the grey frames to compute them from, uint8 [window.fields + 1, 224, 224].
    """

    window: Window
    fields: np.ndarray


Part = FaceTrack | FaceCrop | Motion


class Preparer:
    """Prepare one video after the other. Use it as a context manager; the face detector must be closed.

    Args:
        settings: how.
        on_progress: called for every picture that faces are looked for in, and for every window.
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
        """Give a video's parts as they come: its track, if it is not known yet, then crops and windows in their order.

        Args:
            request: the video.
            watch: the time is added to its stages "decode", "faces" and "optical flow".

        Raises:
            VideoError: the video cannot be used, at whatever point that shows.
        """
        settings, track = self._settings, request.track
        if track is None:
            # Whatever is not the detector's time is the decoder's.
            with watch.measure("decode"):
                detector = _MeasuredDetector(self._detector, watch, self._on_progress)
                track = track_faces(request.path, detector, settings.video, settings.faces, settings.limits)
            yield track
        windows = plan_windows(track, settings.crops)
        static_frames = plan_static(windows, settings.crops) if request.static else []
        crops = iter_crops(request.path, windows, static_frames, fps=settings.video.fps, most=settings.limits)
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
    """A face detector whose time is counted."""

    def __init__(self, detector: FaceDetector, watch: Stopwatch, on_progress: Callable[[], None]) -> None:
        self._detector, self._watch, self._on_progress = detector, watch, on_progress

    def detect(self, image: np.ndarray) -> np.ndarray:
        self._on_progress()
        with self._watch.measure("faces"):
            return self._detector.detect(image)

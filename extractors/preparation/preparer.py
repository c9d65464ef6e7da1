"""From a video file to the inputs of the networks: face track, face crops, windows of motion. No network runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import cv2
import numpy as np

from extractors.errors import undecodable
from extractors.faces.crops import CropWindow, Window, iter_crops, plan_static, plan_windows
from extractors.faces.crops import FaceCrop as FaceCrop
from extractors.faces.detector import FaceDetector
from extractors.faces.recognizer import FaceRecognizer
from extractors.faces.settings import CropSettings, FaceModels, FaceSettings
from extractors.faces.track import FaceTrack, track_faces
from extractors.optical_flow.computer import OpticalFlowComputer, scale_for_i3d
from extractors.optical_flow.parameters import OpticalFlowSettings
from extractors.preparation.stopwatch import Stopwatch
from extractors.video.grid import KeptFrames, grid_frames
from extractors.video.settings import DEFAULT_LIMITS, Limits, VideoSettings


@dataclass(frozen=True)
class PreparationSettings:
    """All settings that preparation depends on.

    Args:
        face_models: the face detector's files; None if every request has a track or asks for frames.
        optical_flow: its engine is never "auto". With "gpu", which runs in the process that has the GPU, windows
            come as grey frames; otherwise as optical flow.
    """

    face_models: FaceModels | None
    video: VideoSettings
    faces: FaceSettings
    crops: CropSettings
    optical_flow: OpticalFlowSettings
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class Request:
    """One video and the parts wanted of it.

    Args:
        track: the main person's face track, if it is known already.
        static: whether face crops are wanted.
        dynamic: whether windows of motion are wanted.
        windows: which of them, counted from 0; None prepares them all.
        frames: if not empty, these whole frames of the grid are wanted, and nothing else. A still picture has frame 0.
        threads: pairs of frames whose optical flow is computed at the same time.
        sha256: digest that the file's bytes must have, in hex; empty if they could not be read, None if it is unknown.
    """

    path: Path
    track: FaceTrack | None = None
    _: KW_ONLY
    static: bool = False
    dynamic: bool = False
    windows: frozenset[int] | None = None
    frames: frozenset[int] = frozenset()
    threads: int = 1
    sha256: str | None = None


@dataclass(frozen=True)
class Frame:
    """A whole picture, uint8 RGB [H, W, 3], upright, at one point of the grid."""

    number: int
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


Part = FaceTrack | Frame | FaceCrop | Motion

STILL_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
# Decoded frames are kept while faces are detected, to be cut afterwards, if they fit into this share of
# limits.memory_mb: by default, 24 s of 1280 x 720 at 25 frames a second. Otherwise, a video is decoded twice.
KEPT_SHARE = 0.2


class Preparer:
    """Prepares one video after another. Use it as a context manager; the face detector must be closed.

    Args:
        on_progress: called for each picture in which faces are detected or from which crops are cut.
    """

    def __init__(self, settings: PreparationSettings, on_progress: Callable[[], None]) -> None:
        self._settings, self._on_progress = settings, on_progress
        self._computers: dict[int, OpticalFlowComputer] = {}
        self._resources = ExitStack()

    def __enter__(self) -> Preparer:
        if self._settings.face_models is not None:
            detector = FaceDetector(self._settings.face_models, self._settings.faces)
            self._detector = self._resources.enter_context(detector)
            self._recognizer = FaceRecognizer(self._settings.face_models.recognizer)
        return self

    def __exit__(self, *reason: object) -> None:
        self._resources.close()

    def prepare(self, request: Request, watch: Stopwatch) -> Iterator[Part]:
        """Yield a video's parts: its track, unless it is known, then crops and windows in order.

        Args:
            watch: adds the time to its stages "decode", "faces" and "optical flow".

        Raises:
            VideoError: the video is unusable; may come after any part.
        """
        if request.frames:
            yield from watch.iterate("decode", self._frames(request))
            return
        settings, track = self._settings, request.track
        kept = KeptFrames(round(KEPT_SHARE * settings.limits.memory_mb * 2**20))
        if track is None:
            # The time outside the detector is the decoder's.
            with watch.measure("decode"):
                detector = _MeasuredDetector(self._detector, watch, self._on_progress)
                track = track_faces(
                    request.path, detector, settings.video, settings.faces, settings.limits, self._recognizer, kept
                )
            yield track
        windows = plan_windows(track, settings.crops)
        views = plan_static(track, settings.crops) if request.static else []
        wanted = request.windows
        moving = [window for window in windows if request.dynamic and (wanted is None or window.index in wanted)]
        pictures = kept.pictures()
        if pictures is None:
            pictures = grid_frames(request.path, settings.video.fps, thresholds=None, limits=settings.limits)
        crops = iter_crops(pictures, moving, views, on_frame=self._on_progress)
        for cut in watch.iterate("decode", crops):
            yield cut if isinstance(cut, FaceCrop) else self._motion(cut, request.threads, watch)

    def _frames(self, request: Request) -> Iterator[Frame]:
        settings = self._settings
        pictures: Iterable[np.ndarray]
        if request.path.suffix.lower() in STILL_PICTURES:
            pictures = [_still_picture(request.path, settings.limits)]
        else:
            pictures = grid_frames(request.path, settings.video.fps, thresholds=None, limits=settings.limits)
        last = max(request.frames)
        for number, picture in enumerate(pictures):
            self._on_progress()
            if number in request.frames:
                yield Frame(number, picture)
            if number == last:
                return

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


def _still_picture(path: Path, limits: Limits) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise undecodable("no_frames", f"{path.name} does not decode as a picture")
    height, width = picture.shape[:2]
    if height * width > limits.pixels:
        message = f"{path.name} is {width} x {height}; limits.pixels allows {limits.pixels:,} pixels"
        raise undecodable("too_large", message)
    return picture


class _MeasuredDetector:
    """Adds a face detector's time to a stopwatch."""

    def __init__(self, detector: FaceDetector, watch: Stopwatch, on_progress: Callable[[], None]) -> None:
        self._detector, self._watch, self._on_progress = detector, watch, on_progress

    def detect(self, image: np.ndarray) -> np.ndarray:
        self._on_progress()
        with self._watch.measure("faces"):
            return self._detector.detect(image)

    def confirms(self, sample: np.ndarray) -> bool:
        with self._watch.measure("faces"):
            return self._detector.confirms(sample)

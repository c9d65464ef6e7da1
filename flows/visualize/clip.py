"""What the networks are shown of one video or picture, for `traitline visualize`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from extractors import dynamic, static
from extractors.assets import catalog
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.errors import VideoError
from extractors.faces.crops import Window, iter_crops, plan_static, plan_windows
from extractors.faces.detector import FaceDetector
from extractors.faces.track import track_faces
from extractors.networks import SIDE_PX
from extractors.optical_flow.computer import OpticalFlowComputer, loop_to, scale_for_i3d
from extractors.pictures.dynamic import WindowMaps
from extractors.pictures.layers import find_layer, layer_activations
from extractors.static.extractor import StaticFeatureExtractor
from extractors.video.grid import grid_frames
from flows.archive.families import FACE_ASSET, asset_folder, static_weights
from flows.config.settings import RunConfig
from flows.session.console import counted
from flows.session.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True, eq=False)
class Face:
    """A face crop and where it is from.

    Args:
        time_s: in the video.
        crop: uint8 RGB [224, 224, 3].
        frame: uint8 RGB [H, W, 3], upright.
        box: x, y, side of the crop in px of the frame.
    """

    time_s: float
    crop: np.ndarray
    frame: np.ndarray
    box: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class MotionWindow:
    """Optical flow and grey frames of one window, as in `WindowMaps`, before a network has seen it."""

    start_s: float
    end_s: float
    frames: np.ndarray
    optical_flow: np.ndarray

    def with_maps(self, maps: np.ndarray) -> WindowMaps:
        """Join a layer's maps [t, h, w, C] to it."""
        return WindowMaps(maps, self.start_s, self.end_s, self.frames, self.optical_flow)


def faces_of(config: RunConfig, path: Path) -> list[Face]:
    """Cut out the faces that static tokens are made of; of a picture, its middle square.

    Raises:
        UserError: the file cannot be used; says why.
    """
    if path.suffix.lower() in PICTURES:
        return [_middle(path)]
    try:
        windows = _windows_of(config, path)
        chosen = plan_static(windows, config.crops)
        crops = {
            number: (crop, cut.window.box)
            for cut in iter_crops(path, windows, chosen, fps=config.video.fps)
            for number, crop in cut.static
        }
        frames = frames_at(config, path, list(crops))
    except VideoError as error:
        raise _unusable(path, error) from error
    return [Face(number / config.video.fps, crop, frames[number], box) for number, (crop, box) in crops.items()]


def frames_at(config: RunConfig, path: Path, numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """Decode some frames of the grid: number -> uint8 RGB [H, W, 3].

    Raises:
        UserError: the video cannot be used.
    """
    wanted = set(numbers)
    try:
        grid = enumerate(grid_frames(path, config.video.fps, thresholds=None))
        return {number: picture.copy() for number, picture in grid if number in wanted}
    except VideoError as error:
        raise _unusable(path, error) from error


def motion_of(config: RunConfig, path: Path, numbers: Sequence[int]) -> list[MotionWindow]:
    """Compute the optical flow of some windows of a video, 1 being the first; those beyond its end are left out.

    Raises:
        UserError: the file cannot be used, or has none of these windows.
    """
    computer = OpticalFlowComputer.from_settings(config.optical_flow)
    try:
        planned = _windows_of(config, path)
        windows = [window for window in planned if window.index + 1 in numbers]
        if not windows:
            raise UserError(f"{path} has {counted(len(planned), 'window')} of motion; choose one of them")
        return [
            MotionWindow(
                cut.window.first_frame / config.video.fps,
                cut.window.last_frame / config.video.fps,
                cut.grey,
                computer.compute(cut.grey),
            )
            for cut in iter_crops(path, windows, [], fps=config.video.fps)
        ]
    except VideoError as error:
        raise _unusable(path, error) from error


def static_network(config: RunConfig) -> StaticFeatureExtractor:
    """ResNet-50 with the weights that the settings (settled) name."""
    return StaticFeatureExtractor(
        static_weights(config),
        seed=config.seed,
        asset_folder=asset_folder(config, config.static.weights or static.ASSET),
    )


def prepared(crops: Sequence[np.ndarray]) -> np.ndarray:
    """Bring crops into the form that ResNet-50's model takes: float32 [N, 224, 224, 3]."""
    import keras

    return keras.applications.resnet.preprocess_input(np.stack(crops).astype(np.float32))


def motion_maps(
    config: RunConfig, read: Callable[[], Sequence[MotionWindow]], layers: Sequence[str]
) -> dict[str, list[WindowMaps]]:
    """Feature maps of layers of I3D over each window: layer -> one per window.

    Args:
        config: its weights are settled.
        read: computes the windows; called once the layers have been found good, as optical flow takes its time.
        layers: names.

    Raises:
        extractors.errors.LayerError: there is no such layer.
    """
    network = DynamicFeatureExtractor(
        config.weights, seed=config.seed, asset_folder=asset_folder(config, dynamic.ASSET)
    ).model
    found: dict[str, list[WindowMaps]] = {layer: [] for layer in layers}
    for layer in layers:
        find_layer(network, layer)
    for window in read():
        scaled = scale_for_i3d(window.optical_flow, bound_px=config.optical_flow.bound_px)
        # as in extraction, a short last window starts over; only what is its own is shown
        whole = loop_to(scaled, config.crops.window_fields)
        for layer, maps in layer_activations(network, whole[None], layers).items():
            steps = max(1, round(maps.shape[1] * len(scaled) / len(whole)))
            found[layer].append(window.with_maps(maps[0, :steps]))
    return found


def _windows_of(config: RunConfig, path: Path) -> list[Window]:
    (file,) = catalog.known_assets()[FACE_ASSET].files
    model = catalog.resolve(FACE_ASSET, folder=asset_folder(config, FACE_ASSET)) / file.name
    with FaceDetector(model, config.faces) as detector:
        track = track_faces(path, detector, config.video, config.faces)
    return plan_windows(track, config.crops)


def _middle(path: Path) -> Face:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise UserError(f"{path} is no picture that can be read")
    height, width = picture.shape[:2]
    side = min(height, width)
    x, y = (width - side) // 2, (height - side) // 2
    crop = cv2.resize(picture[y : y + side, x : x + side], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    return Face(0.0, crop, picture, (x, y, side))


def _unusable(path: Path, error: VideoError) -> UserError:
    return UserError(f"{path} cannot be used: {error.message}")

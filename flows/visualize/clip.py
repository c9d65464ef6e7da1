"""The inputs of the networks from one video or picture, for `traitline visualize`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from extractors import dynamic, static
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.errors import VideoError
from extractors.faces.crops import plan_static, plan_windows
from extractors.faces.levelling import View
from extractors.faces.track import FaceTrack
from extractors.networks import SIDE_PX
from extractors.optical_flow.computer import OpticalFlowComputer, loop_to, scale_for_i3d
from extractors.pictures.dynamic import WindowMaps
from extractors.pictures.layers import find_layer, layer_activations
from extractors.preparation.preparer import STILL_PICTURES, FaceCrop, Motion, Part, Request
from extractors.static.extractor import StaticFeatureExtractor
from flows.archive.families import asset_folder, settled_weights, static_weights
from flows.archive.reader import VideoReader
from flows.config.settings import RunConfig
from flows.session.console import counted
from flows.session.errors import UserError


@dataclass(frozen=True, eq=False)
class Face:
    """A face crop and its source.

    Args:
        time_s: in the video.
        crop: uint8 RGB [224, 224, 3].
        frame: uint8 RGB [H, W, 3], upright.
        view: of the crop in the frame.
    """

    time_s: float
    crop: np.ndarray
    frame: np.ndarray
    view: View


@dataclass(frozen=True, eq=False)
class MotionWindow:
    """Optical flow and grey frames of one window, as in `WindowMaps`, before a network has seen it."""

    start_s: float
    end_s: float
    frames: np.ndarray
    optical_flow: np.ndarray

    def with_maps(self, maps: np.ndarray) -> WindowMaps:
        """Combine the window with a layer's maps [t, h, w, C]."""
        return WindowMaps(maps, self.start_s, self.end_s, self.frames, self.optical_flow)


def faces_of(config: RunConfig, path: Path) -> list[Face]:
    """Cut out the faces that static tokens are made of; of a still picture, the square in its middle.

    Raises:
        UserError: the file cannot be used.
    """
    still = path.suffix.lower() in STILL_PICTURES
    try:
        with VideoReader(config, finds_faces=not still) as reader:
            if still:
                return [_middle(reader.frames(path, [0])[0])]
            parts = reader.parts(Request(path, static=True))
            crops = [part for part in parts if isinstance(part, FaceCrop)]
            frames = reader.frames(path, [crop.frame for crop in crops])
    except VideoError as error:
        raise _unusable(path, error) from error
    views = {planned.frame: planned.view for planned in plan_static(track_of(parts), config.crops)}
    return [Face(crop.frame / config.video.fps, crop.pixels, frames[crop.frame], views[crop.frame]) for crop in crops]


def frames_at(config: RunConfig, path: Path, numbers: Collection[int]) -> dict[int, np.ndarray]:
    """Decode some frames of the grid: number -> uint8 RGB [H, W, 3].

    Raises:
        UserError: the video cannot be used.
    """
    try:
        with VideoReader(config) as reader:
            return reader.frames(path, numbers)
    except VideoError as error:
        raise _unusable(path, error) from error


def motion_of(config: RunConfig, path: Path, numbers: Sequence[int]) -> list[MotionWindow]:
    """Compute the optical flow of some windows of a video, counted from 1; numbers beyond its end are ignored.

    Raises:
        UserError: the file cannot be used, or has none of these windows.
    """
    computer = OpticalFlowComputer.from_settings(config.optical_flow)
    wanted = frozenset(number - 1 for number in numbers)
    try:
        with VideoReader(config, finds_faces=True) as reader:
            parts = reader.parts(Request(path, dynamic=True, windows=wanted))
    except VideoError as error:
        raise _unusable(path, error) from error
    motion = [part for part in parts if isinstance(part, Motion)]
    if not motion:
        windows = plan_windows(track_of(parts), config.crops)
        raise UserError(f"{path} has {counted(len(windows), 'window')} of motion; choose one of them")
    return [
        MotionWindow(
            part.window.first_frame / config.video.fps,
            part.window.last_frame / config.video.fps,
            part.fields,
            computer.compute(part.fields),
        )
        for part in motion
    ]


def static_network(config: RunConfig) -> StaticFeatureExtractor:
    """Build ResNet-50 with the weights of the settings, which are settled."""
    return StaticFeatureExtractor(
        static_weights(config),
        seed=config.seed,
        asset_folder=asset_folder(config, config.static.weights or static.ASSET),
    )


def prepared(crops: Sequence[np.ndarray]) -> np.ndarray:
    """Convert crops to the input of ResNet-50's model: float32 [N, 224, 224, 3]."""
    import keras

    return np.asarray(keras.applications.resnet.preprocess_input(np.stack(crops).astype(np.float32)))


def motion_maps(
    config: RunConfig, read: Callable[[], Sequence[MotionWindow]], layers: Sequence[str]
) -> dict[str, list[WindowMaps]]:
    """Return the feature maps of layers of I3D over each window: layer -> one per window.

    Args:
        config: its weights are settled.
        read: computes the windows; called after the check of the layers, because optical flow is slow.
        layers: names.

    Raises:
        extractors.errors.LayerError: the layer is unknown.
    """
    network = DynamicFeatureExtractor(
        settled_weights(config), seed=config.seed, asset_folder=asset_folder(config, dynamic.ASSET)
    ).model
    found: dict[str, list[WindowMaps]] = {layer: [] for layer in layers}
    for layer in layers:
        find_layer(network, layer)
    for window in read():
        scaled = scale_for_i3d(window.optical_flow, bound_px=config.optical_flow.bound_px)
        # as in extraction, a short last window is looped; only its own part is shown
        whole = loop_to(scaled, config.crops.window_fields)
        for layer, maps in layer_activations(network, whole[None], layers).items():
            steps = max(1, round(maps.shape[1] * len(scaled) / len(whole)))
            found[layer].append(window.with_maps(maps[0, :steps]))
    return found


def track_of(parts: Sequence[Part]) -> FaceTrack:
    """Return the face track, which the child process sends first."""
    (track,) = (part for part in parts if isinstance(part, FaceTrack))
    return track


def _middle(picture: np.ndarray) -> Face:
    height, width = picture.shape[:2]
    side = min(height, width)
    x, y = (width - side) // 2, (height - side) // 2
    crop = cv2.resize(picture[y : y + side, x : x + side], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    return Face(0.0, crop, picture, View(x + side / 2, y + side / 2, side, 0.0))


def _unusable(path: Path, error: VideoError) -> UserError:
    return UserError(f"{path} cannot be used: {error.message}")

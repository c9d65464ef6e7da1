"""The inputs of the networks from one video or picture, for `traitline visualize`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from extractors import dynamic, static
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.dynamic.settings import I3D
from extractors.faces.crops import plan_static, plan_windows
from extractors.faces.levelling import View
from extractors.faces.track import FaceTrack
from extractors.networks import SIDE_PX
from extractors.optical_flow.computer import OpticalFlowComputer, loop_to, scale_for_i3d
from extractors.pictures.dynamic import WindowMaps
from extractors.pictures.layers import find_layer, layer_activations
from extractors.preparation.preparer import STILL_PICTURES, FaceCrop, Motion, Part, Request
from extractors.static.extractor import StaticFeatureExtractor
from flows.archive.families import asset_folder, check_resnet50, settled_weights, static_weights
from flows.archive.reader import VideoReader
from flows.config.settings import RunConfig
from flows.session.console import counted
from flows.session.errors import UserError


@dataclass(frozen=True, eq=False)
class Face:
    """A face crop and its source.

    Args:
        crop: uint8 RGB [224, 224, 3].
        frame: uint8 RGB [H, W, 3], upright.
        view: of the crop in the frame.
    """

    time_s: float
    crop: np.ndarray
    frame: np.ndarray
    view: View


def faces_of(config: RunConfig, path: Path) -> list[Face]:
    """Return the faces that static tokens are made of, or the middle square of a still picture.

    Raises:
        UserError: the file cannot be used.
    """
    still = path.suffix.lower() in STILL_PICTURES
    with VideoReader(config, finds_faces=not still) as reader:
        if still:
            return [_middle(reader.frames(path, [0])[0])]
        parts = reader.parts(Request(path, static=True))
        crops = [part for part in parts if isinstance(part, FaceCrop)]
        frames = reader.frames(path, [crop.frame for crop in crops])
    views = {planned.frame: planned.view for planned in plan_static(track_of(parts), config.crops)}
    return [Face(crop.frame / config.video.fps, crop.pixels, frames[crop.frame], views[crop.frame]) for crop in crops]


def frames_throughout(config: RunConfig, path: Path, length_s: float, count: int) -> dict[float, np.ndarray]:
    """Decode at most `count` frames that divide a video of this length evenly: time in s -> uint8 RGB [H, W, 3].

    Raises:
        UserError: the video cannot be used.
    """
    fps = config.video.fps
    wanted = np.unique(((np.arange(count) + 0.5) / count * length_s * fps).astype(int))
    with VideoReader(config) as reader:
        return {number / fps: picture for number, picture in reader.frames(path, wanted.tolist()).items()}


def motion_of(config: RunConfig, path: Path, numbers: Sequence[int]) -> list[Motion]:
    """Read the grey frames of some windows of a video, counted from 1; numbers beyond its end are ignored.

    Raises:
        UserError: the file cannot be used, or has none of these windows.
    """
    wanted = frozenset(number - 1 for number in numbers)
    with VideoReader(config, finds_faces=True) as reader:
        parts = reader.parts(Request(path, dynamic=True, windows=wanted))
    motion = [part for part in parts if isinstance(part, Motion)]
    if not motion:
        windows = plan_windows(track_of(parts), config.crops)
        raise UserError(f"{path} has {counted(len(windows), 'window')} of motion; choose one of them")
    return motion


def static_network(config: RunConfig) -> StaticFeatureExtractor:
    """Build ResNet-50 with the weights of the settings, which are settled. Raises UserError for another network."""
    check_resnet50(config.static, "looking into the static network")
    return StaticFeatureExtractor(
        static_weights(config),
        seed=config.seed,
        asset_folder=asset_folder(config.assets, config.static.weights or static.ASSET),
    )


def motion_network(config: RunConfig) -> DynamicFeatureExtractor:
    """Build I3D with the weights of the settings, which are settled. Raises UserError for another network."""
    if config.dynamic.base_model != I3D:
        raise UserError(f"looking into the dynamic network is for i3d only, not for {config.dynamic.base_model}")
    return DynamicFeatureExtractor(
        settled_weights(config.weights), seed=config.seed, asset_folder=asset_folder(config.assets, dynamic.ASSET)
    )


def prepared(crops: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Convert crops to the input of ResNet-50's model: float32 [N, 224, 224, 3]."""
    import keras

    return np.asarray(keras.applications.resnet.preprocess_input(np.asarray(crops, np.float32)))


def motion_maps(config: RunConfig, motion: Sequence[Motion], layers: Sequence[str]) -> dict[str, list[WindowMaps]]:
    """Compute the feature maps of layers of I3D over each window: layer -> one per window.

    Args:
        config: its weights are settled.
        motion: grey frames, from `motion_of`.

    Raises:
        extractors.errors.LayerError: the layer is unknown.
    """
    network = motion_network(config).model
    found: dict[str, list[WindowMaps]] = {layer: [] for layer in layers}
    for layer in layers:
        find_layer(network, layer)  # fail before the optical flow, which is slow
    computer = OpticalFlowComputer.from_settings(config.optical_flow)
    fps = config.video.fps
    for part in motion:
        optical_flow = computer.compute(part.fields)
        scaled = scale_for_i3d(optical_flow, bound_px=config.optical_flow.bound_px)
        # As in extraction, a short last window is looped; only its own part is shown.
        whole = loop_to(scaled, config.crops.window_fields)
        for layer, maps in layer_activations(network, whole[None], layers).items():
            steps = max(1, round(maps.shape[1] * len(scaled) / len(whole)))
            start_s, end_s = part.window.first_frame / fps, part.window.last_frame / fps
            found[layer].append(WindowMaps(maps[0, :steps], start_s, end_s, part.fields, optical_flow))
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

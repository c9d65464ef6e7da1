"""Pictures of the feature networks on one file: layers, maps over the frame, filters, features over time.

Every function raises UserError if the file cannot be used, and `extractors.errors.LayerError` if a layer, feature or
filter is unknown or nothing activates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from extractors.pictures.dynamic import (
    WindowMaps,
    animate_features,
    plot_comparison,
    plot_evolution,
    plot_layers_over_time,
    plot_volume,
)
from extractors.pictures.filters import maximise_filters
from extractors.pictures.layers import check_channels, class_activation_map, layer_activations, liveliest, strongest
from extractors.pictures.static import placed, plot_activations, plot_filters, plot_overlays
from extractors.preparation.preparer import STILL_PICTURES
from flows.config.settings import RunConfig
from flows.visualize.clip import Face, faces_of, motion_maps, motion_of, prepared, static_network
from flows.visualize.files import heading_of

LAST_MAPS = "conv5_block3_out"  # ResNet-50 averages these into its features


def draw_static_layers(config: RunConfig, file: Path, layers: Sequence[str], count: int) -> Figure:
    """Draw the strongest maps of layers of ResNet-50 on the middle face of a video, or on a picture."""
    face = _middle_face(config, file)
    network = static_network(config).model
    maps = {
        layer: found[0]
        for layer, found in layer_activations(network, prepared([face.crop]), list(dict.fromkeys(layers))).items()
    }
    return plot_activations(
        face.crop,
        maps,
        {layer: strongest(values, count) for layer, values in maps.items()},
        heading=heading_of(config.weights, f"Strongest features of layers of ResNet-50: {_source(file, face)}"),
    )


def draw_cam(config: RunConfig, file: Path, features: Sequence[int] | None, count: int) -> Figure:
    """Draw class activation maps of static features over the frame of the middle face."""
    face = _middle_face(config, file)
    network = static_network(config).model
    maps = layer_activations(network, prepared([face.crop]), [LAST_MAPS])[LAST_MAPS][0]
    chosen = features if features else strongest(maps, count)
    check_channels(chosen, maps, LAST_MAPS)
    weights = np.eye(maps.shape[-1], dtype=np.float32)[list(chosen)]
    height, width = face.frame.shape[:2]
    return plot_overlays(
        [face.frame] * len(chosen),
        [placed(class_activation_map(maps, row), face.view, height, width) for row in weights],
        [f"feature {feature}" for feature in chosen],
        heading=heading_of(config.weights, f"Where static features come from: {_source(file, face)}"),
        unit="activation",
    )


def draw_filters(config: RunConfig, layer: str, filters: Sequence[int] | None, count: int) -> Figure:
    """Draw the inputs that excite filters of ResNet-50 most."""
    chosen = list(filters) if filters else list(range(count))
    found = maximise_filters(static_network(config).model, layer, chosen)
    # The network takes blue, green, red.
    return plot_filters(
        [pattern[..., ::-1] for pattern in found],
        [f"filter {number}\n{len(pattern)} px" for number, pattern in zip(chosen, found, strict=True)],
        heading=heading_of(config.weights, f"What excites filters of {layer} of ResNet-50 most, with grey for zero"),
    )


def draw_motion_layers(config: RunConfig, video: Path, layers: Sequence[str]) -> Figure:
    """Draw the feature that varies most, of layers of I3D through a video's first window."""
    found = motion_maps(config, motion_of(config, video, [1]), list(dict.fromkeys(layers)))
    return plot_layers_over_time(
        {layer: windows[0] for layer, windows in found.items()},
        {layer: liveliest(windows[0].maps, 1)[0] for layer, windows in found.items()},
        heading=heading_of(config.weights, f"Liveliest feature of layers of I3D: {video.name}"),
    )


def draw_evolution(
    config: RunConfig,
    video: Path,
    layer: str,
    features: Sequence[int] | None,
    count: int,
    windows: int,
    *,
    moving: bool = False,
) -> Figure | FuncAnimation:
    """Draw features of a layer of I3D over a video's first windows."""
    found, chosen = _seen(config, video, layer, features, count, range(1, windows + 1))
    heading = heading_of(config.weights, f"Features of {layer} of I3D over time: {video.name}")
    return (animate_features if moving else plot_evolution)(found, chosen, heading=heading)


def draw_comparison(
    config: RunConfig,
    video: Path,
    layer: str,
    features: Sequence[int] | None,
    count: int,
    window: int,
    *,
    moving: bool = False,
) -> Figure | FuncAnimation:
    """Draw heat maps of features side by side over one window, with the optical flow."""
    found, chosen = _seen(config, video, layer, features, count, [window])
    heading = heading_of(config.weights, f"Where features of {layer} of I3D are active: {video.name}")
    if moving:
        return animate_features(found, chosen, heading=heading)
    return plot_comparison(found[0], chosen, heading=heading)


def draw_volume(config: RunConfig, video: Path, layer: str, feature: int | None, window: int) -> Figure:
    """Draw one feature in space and time."""
    found, (chosen,) = _seen(config, video, layer, None if feature is None else [feature], 1, [window])
    heading = heading_of(config.weights, f"Feature {chosen} of {layer} of I3D in space and time: {video.name}")
    return plot_volume(found[0], chosen, heading=heading)


def _seen(
    config: RunConfig, video: Path, layer: str, features: Sequence[int] | None, count: int, windows: Sequence[int]
) -> tuple[list[WindowMaps], list[int]]:
    found = motion_maps(config, motion_of(config, video, windows), [layer])[layer]
    whole = np.concatenate([window.maps for window in found])
    chosen = list(features) if features else liveliest(whole, count)
    check_channels(chosen, whole, layer)
    return found, chosen


def _source(file: Path, face: Face) -> str:
    return file.name if file.suffix.lower() in STILL_PICTURES else f"{file.name}, {face.time_s:.1f} s"


def _middle_face(config: RunConfig, file: Path) -> Face:
    faces = faces_of(config, file)
    return faces[len(faces) // 2]

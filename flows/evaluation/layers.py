"""Statistics of both networks' layers on clips of a store: faces come from the store, pixels from the videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from extractors.faces.track import FaceTrack
from extractors.optical_flow.computer import OpticalFlowComputer, loop_to, scale_for_i3d
from extractors.pictures.activations import LayerActivations, activation_statistics
from extractors.preparation.preparer import FaceCrop, Motion, Request
from flows.archive.families import families_of
from flows.archive.reader import VideoReader
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError
from flows.visualize.clip import motion_network, prepared, static_network
from storage.shards.store import FeatureStore


def layer_activations(config: RunConfig, videos: Sequence[VideoFile], clips: int) -> dict[str, list[LayerActivations]]:
    """Run both networks on some clips, on all face crops and the first window of motion of each.

    Args:
        config: which store and features; weights settled.
        clips: how many, spread evenly over those whose faces are in the store.

    Returns:
        "static" and "dynamic": the activations of each layer that ends in a ReLU.

    Raises:
        UserError: no video of the folder has its faces in the store, or one can no longer be read.
    """
    digests = {video.video_id: video.sha256 for video in videos}
    store, faces = FeatureStore(config.store.path), families_of(config).faces
    known = sorted(store.has(faces, digests))
    if not known:
        raise UserError(f"no video of {config.videos} has its faces in the store; run `traitline extract` first")
    chosen = [known[at] for at in np.unique(np.linspace(0, len(known) - 1, min(clips, len(known))).round().astype(int))]
    paths = {video.video_id: video.path for video in videos}
    crops, windows = [], []
    with console.stage("Layers", len(chosen) + 2) as stage:
        with VideoReader(config) as reader:
            for row in store.read(faces, chosen):
                found = _inputs(config, reader, paths[row.video_id], FaceTrack.from_rows(row.vectors))
                crops.append(found[0])
                windows.append(found[1])
                stage.advance()
        statistics = {"static": activation_statistics(static_network(config).model, map(prepared, crops))}
        stage.advance()
        statistics["dynamic"] = activation_statistics(motion_network(config).model, windows)
        stage.advance()
    return statistics


def _inputs(config: RunConfig, reader: VideoReader, path: Path, track: FaceTrack) -> tuple[np.ndarray, np.ndarray]:
    """Return face crops, uint8 [n, 224, 224, 3], and one window, float32 [1, fields, 224, 224, 2]."""
    parts = reader.parts(Request(path, track, static=True, dynamic=True, windows=frozenset([0])))
    crops = np.stack([part.pixels for part in parts if isinstance(part, FaceCrop)])
    (grey,) = (part.fields for part in parts if isinstance(part, Motion))
    settings = config.optical_flow
    fields = OpticalFlowComputer.from_settings(settings).compute(grey)
    window = loop_to(scale_for_i3d(fields, bound_px=settings.bound_px), config.crops.window_fields)
    return crops, window[None]

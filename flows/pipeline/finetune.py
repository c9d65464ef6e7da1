"""Fine-tuning of the static network on the face crops of a videos folder, in one process and without Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version as installed_version

import numpy as np

from extractors import static
from extractors.assets.own import OwnAsset, find_own, save_own
from extractors.faces.track import FaceTrack
from extractors.static.extractor import StaticFeatureExtractor
from extractors.static.finetune import fine_tune
from flows.archive.families import asset_folder, check_resnet50, families_of, static_weights
from flows.archive.labels import nothing_labelled
from flows.archive.reader import VideoReader
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError
from fusion.labels.matching import match_labels
from fusion.labels.read import read_labels
from fusion.labels.split import split_by_subject
from storage.shards.store import FeatureStore


def finetune(config: RunConfig, videos: Sequence[VideoFile]) -> OwnAsset:
    """Train the unfrozen layers of ResNet-50 on all labelled videos whose faces are in the store, and keep the result.

    Face crops are cut from the videos each time they are needed, and never stored.

    Args:
        config: with labels; its weights are settled.

    Raises:
        UserError: another network than resnet50; no labels, no labelled video with faces, or labels of fewer than two
            people; or no improvement by training, and nothing is kept.
        fusion.errors.LabelError: the labels cannot be read.
    """
    if config.labels is None:
        raise UserError("fine-tuning needs labels; give them with --labels FILE")
    check_resnet50(config.static, "fine-tuning")
    labels = read_labels(config.labels)
    matched = match_labels(labels, [video.video_id for video in videos])
    faces = _Faces(config, videos)
    rows = [row for row, video_id in enumerate(matched.video_ids) if video_id in faces.tracks]
    if not rows:
        raise nothing_labelled(config, families_of(config), videos, labels, matched)
    subjects = [matched.subjects[row] for row in rows]
    training, validation = split_by_subject(subjects, config.finetune.validation_fraction, config.finetune.seed)
    if not len(validation):
        raise UserError("fine-tuning needs labels of at least two people, one of them for validation")
    names = [matched.video_ids[row] for row in rows]
    with console.console.status("Building the network"):
        network = StaticFeatureExtractor(
            static_weights(config),
            frozen_layers=config.static.frozen_layers,
            seed=config.seed,
            asset_folder=asset_folder(config.assets, config.static.weights or static.ASSET),
        )
    steps = len(rows) * (1 + config.finetune.epochs)
    with VideoReader(config) as reader, console.stage("Fine-tune", steps) as stage:
        report = fine_tune(
            network.model,
            lambda video: faces.read(reader, names[video]),
            matched.values[rows],
            training.tolist(),
            validation.tolist(),
            config.finetune,
            lambda state: stage.advance(title=f"Fine-tune  {state}"),
        )
    baselines = f"constant mean {report.constant_error:.5f}, before fine-tuning {report.frozen_error:.5f}"
    if not report.best_epoch:
        raise UserError(
            f"fine-tuning did not lower the validation error ({baselines}); nothing is kept. More videos, a lower "
            "finetune.learning_rate or a higher static.frozen_layers may help"
        )
    console.say(f"Fine-tune: validation error {report.best_error:.5f} after epoch {report.best_epoch} ({baselines})")
    made_from = find_own(config.static.weights, config.assets) if config.static.weights is not None else None
    training_details = {
        "report": asdict(report),
        "settings": config.finetune.model_dump(mode="json"),
        "frozen_layers": config.static.frozen_layers,
        "crops": families_of(config).static.settings,
        "labels": str(config.labels),
        "training_videos": [names[video] for video in training],
        "validation_videos": [names[video] for video in validation],
        "subjects_known": labels.subjects_known,
        "traitline": installed_version("traitline"),
        "keras": installed_version("keras"),
        "made_from": made_from.name if made_from is not None else config.weights,
    }
    return save_own(config.finetune.name, config.weights, training_details, network.model.save_weights, config.assets)


class _Faces:
    """The face crops of videos whose face tracks are in the store."""

    def __init__(self, config: RunConfig, videos: Sequence[VideoFile]) -> None:
        self._files = {video.video_id: video for video in videos}
        digests = {video.video_id: video.sha256 for video in videos}
        self.tracks = {
            row.video_id: FaceTrack.from_rows(row.vectors)
            for row in FeatureStore(config.store.path).read(families_of(config).faces, digests)
            if row.video_sha256 == digests[row.video_id]
        }

    def read(self, reader: VideoReader, video_id: str) -> np.ndarray:
        """Cut the same crops that static tokens are made from, uint8 RGB [n, 224, 224, 3].

        Raises:
            UserError: the video can no longer be used.
        """
        try:
            return reader.crops(self._files[video_id].path, self.tracks[video_id])
        except UserError as error:
            raise UserError(f"{error}; take {video_id} out of the labels") from error

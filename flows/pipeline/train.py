"""The flow `train`: a model from cached features and labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from flows.archive.clips import StoredClips, ready_videos
from flows.archive.families import Families, families_of
from flows.archive.labels import digest_of, labels_of, nothing_labelled, report_unmatched
from flows.archive.models import ModelReference
from flows.archive.uncertainty import uncertainty_of
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.pipeline.announce import Pages
from flows.pipeline.steps import step
from flows.session import console
from fusion.labels.matching import LabelledVideos, match_labels
from fusion.settings import WITHOUT_EFFECT
from fusion.uncertainty.intervals import Uncertainty, hold_out_for_calibration, least_people
from storage.files.paths import StorePath
from storage.models.serializer import ModelSerializer

if TYPE_CHECKING:
    from fusion.training.loop import EpochReport


@step("train")
def train(config: RunConfig, videos: Archive) -> ModelReference:
    """Train on all labelled videos that have features, unless the latest model was made from exactly that.

    Raises:
        flows.session.errors.UserError: no labels given, or none belongs to a video with features.
        fusion.errors.LabelError, fusion.errors.TrainingError: the labels do not suffice.
    """
    path, labels = labels_of(config)
    families = families_of(config)
    matched = match_labels(labels, [video.video_id for video in videos])
    digests = {video.video_id: video.sha256 for video in videos}
    wanted = {video_id: digests[video_id] for video_id in matched.video_ids}
    ready = set(ready_videos(config.store.path, families, wanted))
    rows = [row for row, video_id in enumerate(matched.video_ids) if video_id in ready]
    if not rows:
        raise nothing_labelled(config, families, videos, labels, matched)
    recipe = _recipe(config, families, matched, rows, digests)
    serializer = ModelSerializer(config.store.path)
    name = config.train_as
    for known in reversed(serializer.versions(name)):
        if serializer.metadata(name, known).get("recipe") == recipe:
            console.say(f"Train: {name}/{known} has the same features, labels and settings; nothing to train")
            return ModelReference(name, known)
    from fusion.training import train as training  # Keras takes seconds to import

    kept, kept_out = hold_out_for_calibration(
        [matched.subjects[row] for row in rows], config.uncertainty, config.train.seed
    )
    fit = [rows[place] for place in kept]
    held_out = [rows[place] for place in kept_out]
    folder = _work_folder(config.store.path, recipe)
    checkpoint = folder / training.CHECKPOINT
    if checkpoint.exists():
        console.say(f"Train: resuming from {checkpoint}")
    with console.stage("Train", config.train.epochs, Pages().progress("Train")) as stage:
        trained = training.train(
            StoredClips(config.store.path, families, [matched.video_ids[row] for row in fit]),
            matched.values[fit],
            [matched.subjects[row] for row in fit],
            config.train,
            on_epoch=lambda report: stage.at(report.epoch, title=_title(report)),
            folder=folder,
        )
    uncertainty = uncertainty_of(
        config,
        families,
        trained.model,
        [matched.video_ids[row] for row in held_out],
        matched.values[held_out],
        [matched.subjects[row] for row in held_out],
        matched.values[fit].mean(axis=0),
    )
    metadata = {
        **trained.metadata,
        "recipe": recipe,
        "static_key": families.static.key,
        "dynamic_key": families.dynamic.key,
        "weights": config.weights,
        "labels": path.name,
        "labels_sha256": digest_of(path),
        "subjects_known": labels.subjects_known,
        "neuroticism_inverted": labels.neuroticism_inverted,
        "uncertainty": uncertainty.model_dump(mode="json"),
    }
    model = ModelReference(name, serializer.save(trained.model, name, metadata, trained.history))
    checkpoint.unlink()
    console.say(f"Train: {model} from {console.counted(len(fit), 'clip')}, {_verdict(metadata)}")
    console.say(f"Train: {_calibrated(uncertainty)}")
    report_unmatched("Train", matched)
    if not labels.subjects_known:
        console.say(
            "Train: the label file has no subject column, so clips of one person may be in both training and "
            "validation, which flatters the model",
            style="yellow",
        )
    for warning in metadata["warnings"]:
        console.say(f"Train: {warning}", style="yellow")
    return model


def _work_folder(root: StorePath, recipe: str) -> Path:
    """Return the folder of a training's checkpoint and TensorBoard logs, in a local store or else in the user's cache.

    Its name has the recipe, so that only the same training resumes there.
    """
    runs = root / "runs" if isinstance(root, Path) else platformdirs.user_cache_path("traitline") / "runs"
    return runs / f"training-{recipe[:16]}"


def _title(report: EpochReport) -> str:
    validation = "" if report.validation_loss is None else f", validation {report.validation_loss:.4f}"
    return f"Train  loss {report.loss:.4f}{validation}"


def _recipe(
    config: RunConfig, families: Families, matched: LabelledVideos, rows: Sequence[int], digests: Mapping[str, str]
) -> str:
    """Return the SHA-256 of everything that a model depends on, by which a second run finds the model."""
    clips = [
        (matched.video_ids[row], digests[matched.video_ids[row]], matched.subjects[row], matched.values[row].tolist())
        for row in rows
    ]
    made_from = [
        installed_version("traitline"),
        families.features,
        config.train.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)),
        config.uncertainty.model_dump(mode="json"),
        clips,
    ]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _calibrated(uncertainty: Uncertainty) -> str:
    confidence, found = uncertainty.settings.confidence, uncertainty.calibration
    if found is None:
        return (
            f"no {confidence:.0%} intervals: the labels have too few people to hold out "
            f"{least_people(confidence)} of them"
        )
    clips, people = console.counted(found.clips, "clip"), console.counted(found.subjects, "person", "people")
    return f"{confidence:.0%} intervals calibrated on {clips} of {people} held out from training"


def _verdict(metadata: Mapping[str, Any]) -> str:
    if metadata["validation_loss"] is None:
        return "without validation"
    loss = metadata["settings"]["loss"]
    clips = console.counted(metadata["validation_clips"], "clip")
    which = "of unseen people" if metadata["subjects_known"] else "held out from training"
    return (
        f"validation {loss} {metadata['validation_loss']:.4f} on {clips} {which} "
        f"(constant mean: {metadata['baseline_loss']:.4f})"
    )

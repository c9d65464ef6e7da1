"""The flow `train`: a model from cached features and labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from flows.archive.clips import StoredClips, ready_videos
from flows.archive.families import Families, families_of
from flows.archive.labels import digest_of, labels_of, nothing_labelled, say_unmatched
from flows.archive.models import ModelReference
from flows.archive.model_quality import doubts, gain_in_words, verdict
from flows.archive.uncertainty import read_quality, uncertainty_of
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.pipeline import announce
from flows.pipeline.steps import step
from flows.session import console
from fusion.errors import TrainingError
from fusion.evaluation.unseen import measure_unseen
from fusion.labels.matching import LabelledVideos, match_labels
from fusion.settings import WITHOUT_EFFECT
from fusion.uncertainty.intervals import Uncertainty, hold_out_for_calibration, least_people
from storage.files.paths import store_path
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
    ready = set(ready_videos(config, families, {video_id: digests[video_id] for video_id in matched.video_ids}))
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

    subjects = [matched.subjects[row] for row in rows]
    kept, kept_out = np.arange(len(rows)), np.zeros(0, int)
    if config.train.kind == "specified":
        kept, kept_out = hold_out_for_calibration(subjects, config.uncertainty, config.train.seed)
    fit = [rows[place] for place in kept]
    folder = _work_folder(config, recipe)
    checkpoint = folder / training.CHECKPOINT
    if checkpoint.exists():
        console.say(f"Train: resuming from {checkpoint}")
    steps = config.train.epochs if config.train.kind == "specified" else 1
    with console.stage("Train", steps, announce.progress("Train")) as stage:
        trained = training.train(
            StoredClips(config, families, [matched.video_ids[row] for row in fit]),
            matched.values[fit],
            [matched.subjects[row] for row in fit],
            config.train,
            on_epoch=lambda report: stage.at(report.epoch, title=_title(report)),
            folder=folder,
        )
    centre = matched.values[fit].mean(axis=0)
    asked = kept if trained.out_of_fold is not None else kept_out
    names, labels_asked = [matched.video_ids[rows[place]] for place in asked], matched.values[[rows[p] for p in asked]]
    people = [subjects[place] for place in asked]
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
        "unseen": None,
    }

    def save(uncertainty: Uncertainty) -> ModelReference:
        facts = {**metadata, "uncertainty": uncertainty.model_dump(mode="json")}
        return ModelReference(name, serializer.save(trained.model, name, facts, trained.history))

    uncertainty = Uncertainty(settings=config.uncertainty, calibration=None)
    try:
        if len(set(people)) > 1:
            out_of_fold = trained.out_of_fold
            quality, scores = read_quality(config, families, names, trained.model if out_of_fold is None else None)
            mean, folds = np.tile(centre, (len(asked), 1)), np.zeros(len(asked), int)
            if out_of_fold is not None:
                scores, mean, folds = out_of_fold.scores, out_of_fold.mean, out_of_fold.folds
            unseen = measure_unseen(scores, labels_asked, people, mean=mean, folds=folds)
            metadata["unseen"] = unseen
            uncertainty = uncertainty.model_copy(update={"useless": unseen["better_than_mean"] is False})
            if uncertainty.useless and not config.train.keep_useless:
                raise _refusal(unseen)
            uncertainty = uncertainty_of(
                config, scores, labels_asked, people, quality, centre=centre, useless=uncertainty.useless
            )
    except TrainingError:
        raise
    except Exception:
        model = save(uncertainty)  # a trained model is not lost to an error in what is said of it
        console.say(f"Train: {model} is kept without intervals, because of the error below", style="yellow")
        raise
    model = save(uncertainty)
    checkpoint.unlink(missing_ok=True)
    console.say(f"Train: {model} from {console.counted(len(fit), 'clip')}, {verdict(metadata)}")
    console.say(f"Train: {_calibrated(uncertainty)}")
    say_unmatched("Train", matched)
    if not labels.subjects_known:
        console.say(
            "Train: the label file has no subject column, so clips of one person may be in both training and "
            "validation, which flatters the model",
            style="yellow",
        )
    for warning in (*metadata["warnings"], *doubts(metadata["unseen"])):
        console.say(f"Train: {warning}", style="yellow")
    return model


def _refusal(unseen: Mapping[str, Any]) -> TrainingError:
    return TrainingError(
        f"the model is no better than always saying the mean of the labels: {gain_in_words(unseen)}; nothing is kept. "
        "More labelled people or other features may help; train.keep_useless=true keeps such a model, and everything "
        "made with it says so"
    )


def _work_folder(config: RunConfig, recipe: str) -> Path:
    """Return the folder of a training's checkpoint and TensorBoard logs: in a local store, else in the user's cache.

    The recipe is in the name, so only the same training resumes there; any other has a folder of its own.
    """
    store = store_path(config.store.path)
    runs = store / "runs" if isinstance(store, Path) else platformdirs.user_cache_path("traitline") / "runs"
    return runs / f"training-{recipe[:16]}"


def _title(report: EpochReport) -> str:
    validation = "" if report.validation_loss is None else f", validation {report.validation_loss:.4f}"
    return f"Train  loss {report.loss:.4f}{validation}"


def _recipe(
    config: RunConfig, families: Families, matched: LabelledVideos, rows: Sequence[int], digests: Mapping[str, str]
) -> str:
    """Compute the SHA-256 of everything that a model depends on, so that a second run has nothing to train."""
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
            f"no {confidence:.0%} intervals: the labels show too few people to score "
            f"{least_people(confidence)} of them unseen"
        )
    clips, people = console.counted(found.clips, "clip"), console.counted(found.subjects, "person", "people")
    return f"{confidence:.0%} intervals calibrated on {clips} of {people} whom the scoring model had not seen"

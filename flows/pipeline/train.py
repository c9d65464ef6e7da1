"""The flow `train`: a model from cached features and labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from flows.archive.clips import StoredClips, ready_videos
from flows.archive.families import Families, families_of, networks_of
from flows.archive.labels import digest_of, labels_of, nothing_labelled, report_unmatched
from flows.archive.model_quality import REFERENCES, doubts, intervals_in_words, search_in_words, verdict
from flows.archive.models import ModelReference
from flows.archive.uncertainty import read_quality, uncertainty_of
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.pipeline.announce import Pages
from flows.pipeline.steps import step
from flows.session import console
from fusion.errors import TrainingError
from fusion.evaluation.unseen import measure_unseen, sample_of
from fusion.labels.matching import LabelledVideos, match_labels
from fusion.uncertainty.intervals import Uncertainty, hold_out_for_calibration
from storage.files.paths import StorePath
from storage.leases.leases import at_work
from storage.models.provenance import clip_marks
from storage.models.serializer import ModelSerializer

if TYPE_CHECKING:
    from fusion.training.train import EpochReport, Trained


NO_BETTER_IN_VALIDATION = "in validation, the model is no better than always predicting the mean of the labels"


@step("train")
def train(config: RunConfig, videos: Archive) -> ModelReference:
    """Train on all labelled videos that have features, unless the latest model was made from exactly that.

    Raises:
        flows.session.errors.UserError: no labels given, or none belongs to a video with features.
        fusion.errors.LabelError, fusion.errors.TrainingError: the labels do not suffice.
    """
    with at_work(config.store.path, "train"):
        return _train(config, videos)


def _train(config: RunConfig, videos: Archive) -> ModelReference:
    path, labels = labels_of(config)
    families = families_of(config)
    matched = match_labels(labels, [video.video_id for video in videos])
    digests = {video.video_id: video.sha256 for video in videos}
    wanted = {video_id: digests[video_id] for video_id in matched.video_ids}
    ready = set(ready_videos(config.store.path, families, wanted))
    rows = [row for row, video_id in enumerate(matched.video_ids) if video_id in ready]
    if not rows:
        raise nothing_labelled(config, families, videos, labels, matched)
    material = _material(families, matched, rows, digests)
    recipe = _recipe(config, material)
    serializer = ModelSerializer(config.store.path)
    name = config.train_as
    for known in reversed(serializer.versions(name)):
        if serializer.metadata(name, known).get("recipe") == recipe:
            console.say(f"Train: {name}/{known} has the same features, labels and settings; nothing to train")
            return ModelReference(name, known)
    from fusion.training import train as training  # Keras takes seconds to import

    searched = None
    if config.search.trials is not None:
        from flows.pipeline.search import search_settings

        clips, subjects = ([known[row] for row in rows] for known in (matched.video_ids, matched.subjects))
        shown = Pages().progress("Search")
        searched = search_settings(config, families, clips, matched.values[rows], subjects, _digest(material), shown)
        console.say(f"Search: {search_in_words(searched.facts)}")
    settings = config.train if searched is None else searched.settings
    fit, held_out = _parts(config, matched, rows)
    folder = _work_folder(config.store.path, recipe)
    checkpoint = folder / training.CHECKPOINT
    if checkpoint.exists():
        console.say(f"Train: resuming from {checkpoint}")
    with console.stage("Train", settings.steps, Pages().progress("Train"), may_end_early=True) as stage:
        trained = training.train(
            StoredClips(config.store.path, families, [matched.video_ids[row] for row in fit]),
            matched.values[fit],
            [matched.subjects[row] for row in fit],
            settings,
            on_epoch=lambda report: stage.at(report.epoch, title=_title(report)),
            folder=folder,
        )
        if settings.kind == "bilinear":
            stage.at(settings.steps)
    if searched is not None:
        trained = replace(
            trained, out_of_fold=searched.out_of_fold, metadata={**trained.metadata, "search": searched.facts}
        )
    facts = {
        **trained.metadata,
        "recipe": recipe,
        "clip_marks": " ".join(sorted(clip_marks(recipe, (matched.video_ids[row] for row in rows)))),
        "static_key": families.static.key,
        "dynamic_key": families.dynamic.key,
        "networks": networks_of(config),
        "weights": config.weights,
        "labels": path.name,
        "labels_sha256": digest_of(path),
        "subjects_known": labels.subjects_known,
        "neuroticism_inverted": labels.neuroticism_inverted,
    }

    def save(unseen: Mapping[str, Any] | None, uncertainty: Uncertainty) -> ModelReference:
        facts.update(unseen=unseen, uncertainty=uncertainty.model_dump(mode="json"))
        return ModelReference(name, serializer.save(trained.model, name, facts, trained.history))

    try:
        unseen, uncertainty = _judge(config, families, matched, trained, fit, held_out)
    except Exception:
        model = save(None, Uncertainty(settings=config.uncertainty, calibration=None))
        console.say(f"Train: {model} is kept, but an error ended the measurement of its quality", style="yellow")
        raise
    if unseen is None and _is_worse_than_mean(trained.metadata):
        uncertainty = uncertainty.model_copy(update={"useless": True})
    if uncertainty.useless and not config.train.keep_useless:
        why = NO_BETTER_IN_VALIDATION if unseen is None else doubts({**facts, "unseen": unseen})[0]
        raise TrainingError(
            f"{why}; nothing is kept. More labelled people or other features may help; "
            "train.keep_useless=true keeps such a model, and everything made with it says so"
        )
    model = save(unseen, uncertainty)
    checkpoint.unlink(missing_ok=True)
    console.say(f"Train: {model} from {console.counted(len(fit), 'clip')}, {verdict(facts)}")
    if unseen is not None:
        console.say(f"Train: {REFERENCES}")
    console.say(f"Train: {intervals_in_words(facts)}")
    report_unmatched("Train", matched)
    for warning in (*facts["warnings"], *doubts(facts)):
        console.say(f"Train: {warning}", style="yellow")
    return model


def _is_worse_than_mean(metadata: Mapping[str, Any]) -> bool:
    """Return whether no epoch was better on the validation clips than always predicting the mean of the labels."""
    loss, baseline = metadata["validation_loss"], metadata["baseline_loss"]
    return loss is not None and baseline is not None and loss >= baseline


def _parts(config: RunConfig, matched: LabelledVideos, rows: list[int]) -> tuple[list[int], list[int]]:
    """Return the rows to train on and to hold out: none if a search or a bilinear model holds out folds itself."""
    if config.search.trials is not None or config.train.kind == "bilinear":
        return rows, []
    subjects = [matched.subjects[row] for row in rows]
    fit, held_out = hold_out_for_calibration(subjects, config.uncertainty, config.train.seed)
    return [rows[place] for place in fit], [rows[place] for place in held_out]


def _judge(
    config: RunConfig,
    families: Families,
    matched: LabelledVideos,
    trained: Trained,
    fit: list[int],
    held_out: list[int],
) -> tuple[dict[str, Any] | None, Uncertainty]:
    """Measure a model on unseen people, and calibrate it on them; without any, return None and no calibration."""
    own = trained.out_of_fold
    rows = held_out if own is None else fit
    subjects, labels = [matched.subjects[row] for row in rows], matched.values[rows]
    if len(set(subjects)) < 2:
        return None, Uncertainty(settings=config.uncertainty, calibration=None)
    centre = matched.values[fit].mean(axis=0)
    videos = [matched.video_ids[row] for row in rows]
    if own is None:
        quality, scores = read_quality(config.store.path, families, videos, trained.model)
        mean = np.tile(centre, (len(rows), 1))
    else:
        quality, _ = read_quality(config.store.path, families, videos)
        scores, mean = own.scores, own.mean
    folds = None if own is None else own.folds
    measured = measure_unseen(scores, labels, subjects, mean=mean, folds=folds)
    unseen = {**measured, "sample": sample_of(scores, labels)}
    useless = unseen["better_than_mean"] is False
    return unseen, uncertainty_of(config, scores, labels, subjects, quality, centre=centre, useless=useless)


def _work_folder(root: StorePath, recipe: str) -> Path:
    """Return the folder of a training's checkpoint and TensorBoard logs: in a local store, else in the user's cache.

    Its name has the recipe, so that only the same training resumes there.
    """
    runs = root / "runs" if isinstance(root, Path) else platformdirs.user_cache_path("traitline") / "runs"
    return runs / f"training-{recipe[:16]}"


def _title(report: EpochReport) -> str:
    validation = "" if report.validation_loss is None else f", validation {report.validation_loss:.4f}"
    return f"Train  loss {report.loss:.4f}{validation}"


def _material(
    families: Families, matched: LabelledVideos, rows: Sequence[int], digests: Mapping[str, str]
) -> list[Any]:
    """Return what a model is made of, apart from settings, as JSON values."""
    clips = [
        (matched.video_ids[row], digests[matched.video_ids[row]], matched.subjects[row], matched.values[row].tolist())
        for row in rows
    ]
    return [installed_version("traitline"), families.features, clips]


def _recipe(config: RunConfig, material: list[Any]) -> str:
    """Return the SHA-256 of everything that a model depends on, by which a second run finds the model."""
    made_from = [
        material,
        config.train.effective,
        config.uncertainty.model_dump(mode="json"),
        config.search.model_dump(mode="json") if config.search.trials is not None else None,
    ]
    return _digest(made_from)


def _digest(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

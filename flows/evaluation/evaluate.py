"""Evaluation of the model beside baselines, from cached features and labels to a report; without Prefect."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from flows.archive.clips import read_clips, ready_videos
from flows.archive.families import Families, families_of
from flows.archive.labels import digest_of, labels_of, nothing_labelled, report_unmatched
from flows.archive.uncertainty import quality_of
from flows.archive.videos import known_videos
from flows.config.settings import RunConfig
from flows.engine.choice import open_engine
from flows.engine.engine import Course, LocalEngine, Work
from flows.evaluation.kept import KeptPredictions
from flows.session import console
from flows.session.environment import restrict_access, settle_environment
from flows.session.errors import UserError
from fusion.evaluation.folds import Fold, official_split, shared_subjects, subject_folds
from fusion.evaluation.predictors import LabelledClips, Predictor, all_predictors, chosen_predictors, timed_prediction
from fusion.evaluation.protocol import Partition, Predict, evaluate_protocols, runs
from fusion.labels.groups import read_groups
from fusion.labels.matching import match_labels
from fusion.labels.read import Labels
from fusion.settings import WITHOUT_EFFECT
from storage.files.commit import commit_file
from storage.files.paths import StorePath, matching

SCHEMA = 3
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "keras", "tensorflow")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished evaluation: the contents of its JSON file, and its path."""

    results: dict[str, Any]
    path: StorePath


@dataclass(frozen=True, slots=True, eq=False)
class _Material:
    """The data of an evaluation; features and recipe (see `_recipe`) only if features are used."""

    labels_path: Path
    video_ids: tuple[str, ...]
    clips: LabelledClips
    label_facts: dict[str, Any]
    features: dict[str, str] | None = None
    recipe: str = ""


def evaluate_clips(config: RunConfig, groups: Path | None, *, labels_only: bool) -> Evaluation:
    """Evaluate on the official split, if the labels state one, and on subject-disjoint folds; keep the results.

    The predictions of each training are kept as well, see `flows.evaluation.kept`: the same call continues an
    interrupted evaluation.

    Args:
        config: which labels, store, features and settings; weights settled.
        groups: a table of groups to report separately, see `fusion.labels.groups.read_groups`.
        labels_only: evaluate what needs no features, on all labels.

    Returns:
        JSON in STORE/reports/evaluation-<time>.json: "schema", "created_utc", "versions", "seconds" (of this call; each
        predictor has those of its trainings, whenever they were), "labels_only";
        "labels" (name, digest, clips, subjects, whether subjects are known and neuroticism inverted), "features" (keys,
        weights; null for labels only), "settings", "shared_subjects" (of official parts), and "protocols": "official"
        and "subject_folds", as from `fusion.evaluation.protocol.evaluate_protocols`.

    Raises:
        UserError: no labels, none that belong to a video with features, or an empty protocol.
        fusion.errors.LabelError, fusion.errors.TrainingError: labels, groups or settings that cannot be used.
    """
    started = datetime.now(UTC)
    material = _labels_alone(config) if labels_only else _cached(config)
    path, clips = material.labels_path, material.clips
    if groups is not None:
        clips = replace(clips, groups=read_groups(groups, material.video_ids, clips.subjects))
    protocols, predictors = _planned(config, clips, with_tokens=not labels_only)
    seeds = config.evaluate.seeds
    predict: Predict = timed_prediction
    if not labels_only:
        predict = _trained(config, material, _trainings(protocols, predictors, seeds))
    measured = evaluate_protocols(clips, protocols, predictors, seeds, lambda _: None, predict)
    results = {
        "schema": SCHEMA,
        "created_utc": started.isoformat(timespec="seconds"),
        "versions": _versions(),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        "labels_only": labels_only,
        "labels": {
            "name": path.name,
            "sha256": digest_of(path),
            "clips": len(clips.labels),
            "subjects": len(set(clips.subjects)),
            **material.label_facts,
        },
        "features": material.features,
        "groups": None if groups is None else groups.name,
        "settings": config.model_dump(mode="json", include={"evaluate", "uncertainty", "train"}),
        "shared_subjects": shared_subjects(clips.parts, clips.subjects),
        "protocols": measured,
    }
    target = config.store.path / "reports" / f"evaluation-{started.strftime('%Y%m%dT%H%M%S%f')}.json"
    with commit_file(target) as temporary:
        temporary.write_text(json.dumps(results, indent=1, allow_nan=False), encoding="utf-8")
    return Evaluation(results, target)


def latest_evaluation(root: StorePath) -> dict[str, Any] | None:
    """Return the results of the store's last evaluation with features, see `evaluate_clips`; None if there are none.

    Raises:
        UserError: an evaluation's file is damaged.
    """
    for path in reversed(matching(root / "reports", "evaluation-*.json")):
        try:
            results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if results["schema"] == SCHEMA and not results["labels_only"]:
                return results
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path} is damaged; remove it, and run `traitline evaluate` again") from error
    return None


def _labels_alone(config: RunConfig) -> _Material:
    path, labels = labels_of(config)
    parts = labels.parts if labels.parts is not None else (None,) * len(labels)
    clips = LabelledClips(labels.values, labels.subjects, parts, {})
    return _Material(path, labels.names, clips, _label_facts(labels))


def _cached(config: RunConfig) -> _Material:
    """Load all labelled clips that have features: about 150 KB each with the usual 16 + 6 tokens."""
    path, labels = labels_of(config)
    families = families_of(config)
    videos = known_videos(config.store.path, families)
    matched = match_labels(labels, [video.video_id for video in videos])
    digests = {video.video_id: video.sha256 for video in videos}
    ready = ready_videos(config.store.path, families, {video_id: digests[video_id] for video_id in matched.video_ids})
    if not ready:
        cause = nothing_labelled(config, families, videos, labels, matched)
        raise UserError(f"{cause}; --labels-only evaluates what needs no features") from cause
    report_unmatched("Evaluate", matched)
    cached = {clip.tokens.video_id: clip for clip in read_clips(config.store.path, families, ready)}
    rows = [row for row, video_id in enumerate(matched.video_ids) if video_id in cached]
    in_order = [cached[matched.video_ids[row]] for row in rows]
    clips = LabelledClips(
        labels=matched.values[rows],
        subjects=tuple(matched.subjects[row] for row in rows),
        parts=tuple(matched.parts[row] for row in rows),
        groups={},
        tokens=[clip.tokens for clip in in_order],
        quality=quality_of([clip.facts for clip in in_order]),
    )
    video_ids = tuple(matched.video_ids[row] for row in rows)
    return _Material(
        path,
        video_ids,
        clips,
        _label_facts(labels),
        {"static": families.static.key, "dynamic": families.dynamic.key, "weights": config.weights},
        _recipe(config, families, [(video_id, digests[video_id]) for video_id in video_ids], clips),
    )


def _label_facts(labels: Labels) -> dict[str, Any]:
    return {"subjects_known": labels.subjects_known, "neuroticism_inverted": labels.neuroticism_inverted}


def _recipe(config: RunConfig, families: Families, videos: Sequence[tuple[str, str]], clips: LabelledClips) -> str:
    """Return the SHA-256 of all that a prediction depends on, except the predictor, the fold and the seed."""
    made_from = [
        SCHEMA,
        _versions(),
        families.features,
        config.train.model_dump(mode="json", exclude={*WITHOUT_EFFECT, "seed"}),
        config.uncertainty.model_dump(mode="json"),
        videos,
        clips.subjects,
        clips.labels.tolist(),
    ]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _planned(
    config: RunConfig, clips: LabelledClips, *, with_tokens: bool
) -> tuple[dict[str, list[Partition]], list[Predictor]]:
    """Return the partitions of each protocol, and the predictors to compare on them."""
    official = official_split(clips.parts)
    protocols: dict[str, list[Partition]] = {} if official is None else {"official": [[official]]}
    seeds = range(config.evaluate.seeds)
    protocols["subject_folds"] = [subject_folds(clips.subjects, config.evaluate.folds, seed) for seed in seeds]
    known = all_predictors(config.train, config.uncertainty)
    return protocols, chosen_predictors(known, config.evaluate.only, with_tokens=with_tokens)


Training = tuple[Predictor, Fold, int]


def _trainings(protocols: dict[str, list[Partition]], predictors: Sequence[Predictor], seeds: int) -> list[Training]:
    return [training for partitions in protocols.values() for training in runs(partitions, predictors, seeds)]


def _trained(config: RunConfig, material: _Material, trainings: Sequence[Training]) -> Predict:
    """Have the engine make all predictions that are not kept yet, and return what reads them."""
    kept = _kept(config, material)
    missing = [number for number, training in enumerate(trainings) if not kept.has(*training)]
    if done := len(trainings) - len(missing):
        console.say(
            f"Evaluate: {done:,} of {console.counted(len(trainings), 'training')} are done already, in {kept.folder}"
        )
    if missing:
        with open_engine(config) as engine, console.stage("Evaluate", len(missing)) as stage:
            if isinstance(engine, LocalEngine):  # the clips are in memory already

                def open_work() -> AbstractContextManager[Work[int, None]]:
                    return nullcontext(_predicting(config, material, trainings))
            else:
                open_work = partial(_open_trainings, config)
            engine.run(
                open_work, missing, lambda number, _: stage.advance(title=f"Evaluate  {trainings[number][0].name}")
            )
    return _kept(config, material).predict


def _kept(config: RunConfig, material: _Material) -> KeptPredictions:
    return KeptPredictions(config.store.path / "runs" / f"evaluation-{material.recipe[:16]}")


@contextmanager
def _open_trainings(config: RunConfig) -> Iterator[Work[int, None]]:
    """Open the work on a training in another process, which reads all clips first."""
    settle_environment()
    restrict_access(config.store.path)
    material = _cached(config)
    protocols, predictors = _planned(config, material.clips, with_tokens=True)
    yield _predicting(config, material, _trainings(protocols, predictors, config.evaluate.seeds))


def _predicting(config: RunConfig, material: _Material, trainings: Sequence[Training]) -> Work[int, None]:
    kept = _kept(config, material)

    def predict(number: int, _: Course) -> None:
        predictor, fold, seed = trainings[number]
        kept.predict(predictor, material.clips, fold, seed)

    return predict


def _versions() -> dict[str, str]:
    libraries = {name: installed_version(name) for name in ("traitline", *_LIBRARIES)}
    return {"python": platform.python_version(), **libraries}

"""Evaluation of cached features: how well they tell people apart, and how their dimensions and layers behave."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from flows.archive.families import Families, families_of
from flows.archive.labels import labels_of, nothing_labelled, report_unmatched
from flows.archive.videos import known_videos
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError
from flows.visualize.files import finish, heading_of
from fusion.features.dimensions import Components, DimensionMeter, Dimensions
from fusion.features.identity import Identity, IdentityMeter
from fusion.labels.matching import match_labels
from fusion.pictures.features import plot_components, plot_dimensions, plot_identity
from storage.files.commit import commit_file
from storage.files.paths import StorePath
from storage.shards.store import FeatureStore

SCHEMA = 1
AXES = 10
TITLES = {"static": "static features (faces)", "dynamic": "dynamic features (motion)"}
Kind = Literal["static", "dynamic"]


@dataclass(frozen=True, slots=True)
class FamilyEvaluation:
    """One family of features.

    Attributes:
        identity: None if the labels do not say who is in a clip.
    """

    clips: int
    identity: Identity | None
    dimensions: Dimensions
    components: Components
    sample: np.ndarray
    people: list[str]


def evaluate_families(config: RunConfig) -> dict[Kind, FamilyEvaluation]:
    """Read all labelled features of a store once, a video at a time, and measure them.

    Args:
        config: which labels, store and features; weights settled.

    Raises:
        UserError: no labels, or none that belong to a video with features.
        fusion.errors.LabelError: the labels cannot be read.
    """
    path, labels = labels_of(config)
    families = families_of(config)
    videos = known_videos(config.store.path, families)
    matched = match_labels(labels, [video.video_id for video in videos])
    if not labels.subjects_known:
        console.say(f"Evaluate features: {path} does not say who is in a clip, so people are not compared")
    person_of = dict(zip(matched.video_ids, matched.subjects, strict=True))
    people = Counter(person_of.values())
    if labels.subjects_known and (len(people) == 1 or max(people.values(), default=0) < 2):
        console.say("Evaluate features: people are not compared, which takes two people, one of them in two clips")
    store = FeatureStore(config.store.path)
    kinds: tuple[Kind, ...] = ("static", "dynamic")
    wanted = {kind: [video for video in store.done(getattr(families, kind)) if video in person_of] for kind in kinds}
    if not all(wanted.values()):
        raise nothing_labelled(config, families, videos, labels, matched)
    report_unmatched("Evaluate features", matched)
    with console.stage("Evaluate features", sum(map(len, wanted.values()))) as stage:
        return {
            kind: _evaluate(config, families, kind, wanted[kind], person_of, labels.subjects_known, stage)
            for kind in kinds
        }


def _evaluate(
    config: RunConfig,
    families: Families,
    kind: Kind,
    videos: list[str],
    person_of: dict[str, str],
    people_known: bool,
    stage: console.Stage,
) -> FamilyEvaluation:
    family = getattr(families, kind)
    identity = IdentityMeter(Counter(person_of[video] for video in videos), seed=config.seed)
    meter = DimensionMeter(family.dim, seed=config.seed)
    for clip in FeatureStore(config.store.path).read(family, videos):
        person = person_of[clip.video_id]
        if people_known:
            identity.add(person, clip.vectors)
        meter.add(clip.vectors, person)
        stage.advance(title=f"Evaluate features  {kind}")
    sample, people = meter.sample()
    if len(sample) < 2:
        raise UserError(f"one {kind} token is too few to evaluate; give labels of more clips")
    found = identity.result() if people_known else None
    return FamilyEvaluation(len(videos), found, meter.dimensions(), meter.components(AXES), sample, people)


def results_of(config: RunConfig, evaluated: dict[Kind, FamilyEvaluation], layers: dict[Kind, Any]) -> dict[str, Any]:
    """Return all numbers in a form that JSON can hold, without the sample and its pairs."""
    families = families_of(config)
    return {
        "schema": SCHEMA,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "labels": str(config.labels),
        "weights": config.weights,
        "seed": config.seed,
        "families": {
            kind: {
                "key": getattr(families, kind).key,
                "clips": one.clips,
                "identity": None if one.identity is None else _identity(one.identity),
                "dimensions": _plain(one.dimensions),
                "components": {
                    "variance_ratio": one.components.ratio.tolist(),
                    "axes_for_90_percent": one.components.needed(0.9),
                },
                "layers": layers.get(kind),
            }
            for kind, one in evaluated.items()
        },
    }


def keep(root: StorePath, results: dict[str, Any], figures: dict[str, Figure], suffix: str) -> StorePath:
    """Write results and pictures into a new folder STORE/reports/features-<time>, and return it."""
    folder = root / "reports" / f"features-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%f')}"
    for name, figure in figures.items():
        with commit_file(folder / f"{name}.{suffix}") as temporary:
            finish(figure)
            figure.savefig(temporary, format=suffix)
    with commit_file(folder / "features.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1, allow_nan=False), encoding="utf-8")
    return folder


def figures_of(weights: str, evaluated: dict[Kind, FamilyEvaluation]) -> Iterator[tuple[str, Figure]]:
    """Yield all pictures with their names."""
    for kind, one in evaluated.items():
        title = heading_of(weights, TITLES[kind][0].upper() + TITLES[kind][1:])
        if one.identity is not None and one.identity.auc is not None:
            yield f"{kind}-identity", plot_identity(one.identity, title)
        people = one.people if one.identity is not None else [""] * len(one.people)
        yield f"{kind}-components", plot_components(one.components, one.sample, people, title)
        yield f"{kind}-dimensions", plot_dimensions(one.dimensions, title)


def _identity(identity: Identity) -> dict[str, Any]:
    pairs = {"same_pairs": len(identity.same), "different_pairs": len(identity.different)}
    names = [name for name in identity.__slots__ if name not in ("same", "different")]
    return {name: getattr(identity, name) for name in names} | pairs


def _plain(dimensions: Dimensions) -> dict[str, Any]:
    values = {name: getattr(dimensions, name) for name in dimensions.__slots__}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}

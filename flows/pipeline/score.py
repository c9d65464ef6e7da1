"""The flows `score` and `rescore`: trait scores for all cached features that a model has not scored yet."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.compute as pc

from flows.archive.clips import CachedClip, read_clips, ready_videos
from flows.archive.drift import Drift, drifts_of
from flows.archive.families import Families, families_of, networks_of, stored_families
from flows.archive.models import ModelReference, check_features, load_model
from flows.archive.outcomes import without_features
from flows.archive.uncertainty import quality_of, stored_uncertainty
from flows.archive.videos import Archive, known_videos
from flows.config.settings import RunConfig
from flows.pipeline.announce import Pages
from flows.pipeline.steps import step
from flows.session import console
from fusion.uncertainty.intervals import Judged
from storage.models.serializer import ModelSerializer
from storage.tables.scores import Score, ScoreStore

log = logging.getLogger(__name__)

CLIPS_PER_COMMIT = 4096


@dataclass(frozen=True, slots=True)
class RescoreReport:
    """The result of scoring an archive again: the number of new scores, and how they compare with earlier ones."""

    model: ModelReference
    scored_now: int
    drifts: list[Drift]


@step("score")
def score(config: RunConfig, videos: Archive, model: ModelReference) -> int:
    """Score the videos that have features, except those that this model version has scored from these features.

    Returns:
        Number of videos scored now.

    Raises:
        UserError: the model was trained on other features.
    """
    families = families_of(config)
    metadata = ModelSerializer(config.store.path).metadata(model.name, model.version)
    check_features(model, metadata, families, networks_of(config))
    return _score(config, families, config.weights, videos, model)


@step("rescore")
def rescore(config: RunConfig, model: ModelReference) -> RescoreReport:
    """Score everything in the store that this model version has not scored, from the features that it was trained on.

    Needs neither videos nor extractors' weights, and ignores the settings of extraction. Scores of other versions stay.

    Raises:
        UserError: the store has no such features.
    """
    metadata = ModelSerializer(config.store.path).metadata(model.name, model.version)
    families = stored_families(config.store.path, metadata)
    count = _score(config, families, metadata["weights"], known_videos(config.store.path, families), model)
    return RescoreReport(model, count, drifts_of(config.store.path, model))


def _score(config: RunConfig, families: Families, weights: str, videos: Archive, model: ModelReference) -> int:
    started = datetime.now(UTC)
    scores = ScoreStore(config.store.path)
    known = _scored(scores, model, families)
    wanted = {video.video_id: video.sha256 for video in videos if known.get(video.video_id) != video.sha256}
    ready = ready_videos(config.store.path, families, wanted)
    if not ready:
        if any(known.get(video.video_id) == video.sha256 for video in videos):
            console.say(f"Score: {model} has already scored all videos with features; nothing to score")
        else:
            console.say(
                f"Score: nothing to score: {without_features(config.store.path, families, videos)}", style="yellow"
            )
        return 0
    from fusion.model.scoring import predict  # Keras takes seconds to import

    network, metadata = load_model(config.store.path, str(model))
    uncertainty = stored_uncertainty(config.uncertainty, metadata)
    count = 0
    clips = read_clips(config.store.path, families, ready)
    with console.stage("Score", len(ready), Pages().progress("Score")) as stage:
        while some := list(islice(clips, CLIPS_PER_COMMIT)):
            traits = predict(network, (clip.tokens for clip in some))
            judged = uncertainty.judge(traits, quality_of(some))
            scores.write(model.name, model.version, _rows(some, traits, judged, families, weights, started))
            count += len(some)
            stage.at(count)
    log.info("Score: %s scored with %s", console.counted(count, "video"), model)
    return count


def _scored(scores: ScoreStore, model: ModelReference, families: Families) -> dict[str, str]:
    """Return the videos that a model has scored from these features: video_id -> SHA-256 of the file."""
    known: dict[str, str] = {}
    for rows in scores.read_columns(
        model.name, model.version, ["video_id", "video_sha256", "static_key", "dynamic_key"]
    ):
        same = [pc.equal(rows[f"{family.name}_key"], family.key) for family in (families.static, families.dynamic)]
        rows = rows.filter(pc.and_(*same))
        known.update(zip(rows["video_id"].to_pylist(), rows["video_sha256"].to_pylist(), strict=True))
    return known


def _rows(
    clips: list[CachedClip], traits: np.ndarray, judged: Judged, families: Families, weights: str, started: datetime
) -> Iterator[Score]:
    for row, (clip, values) in enumerate(zip(clips, traits, strict=True)):
        quality: Mapping[str, Any] = clip.quality  # counts too are floats there; `Score` converts them
        yield Score(
            video_id=clip.tokens.video_id,
            video_sha256=clip.sha256,
            traits=tuple(values.tolist()),
            static_tokens=len(clip.tokens.static),
            dynamic_tokens=len(clip.tokens.dynamic),
            static_key=families.static.key,
            dynamic_key=families.dynamic.key,
            weights=weights,
            scored_at=started,
            abstain=judged.abstain[row],
            low=None if judged.low is None else tuple(judged.low[row].tolist()),
            high=None if judged.high is None else tuple(judged.high[row].tolist()),
            **quality,
        )

"""Calibration of a fresh model on people kept from its training, and what its scores carry of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from flows.archive.clips import VIDEOS_AT_A_TIME, CachedClip, read_clips
from flows.archive.families import Families
from flows.config.settings import RunConfig
from flows.session.errors import UserError
from fusion.uncertainty.intervals import ClipQuality, Uncertainty, calibrate
from fusion.uncertainty.reliability import check_reliability

if TYPE_CHECKING:
    from fusion.model.model import CompletePersonalityModel


def quality_of(clips: Sequence[CachedClip]) -> ClipQuality:
    """What clips were made from, as arrays."""
    return ClipQuality(
        np.array([clip.face_coverage for clip in clips]),
        np.array([len(clip.tokens.static) for clip in clips]),
        np.array([len(clip.tokens.dynamic) for clip in clips]),
    )


def uncertainty_of(
    config: RunConfig,
    families: Families,
    model: CompletePersonalityModel,
    held_out: Sequence[str],
    labels: np.ndarray,
    subjects: Sequence[str],
    centre: np.ndarray,
) -> Uncertainty:
    """What is stored with a model: thresholds, its calibration on videos of people whom it has not seen, and whether
    what it says of these came true.

    Args:
        config: thresholds and the seed.
        families: features that the model was trained on.
        model: the model.
        held_out: N videos kept from training; none: there will be no intervals.
        labels: float32 [N, 5].
        subjects: the person in each.
        centre: float [5], mean of the training labels.
    """
    if not held_out:
        return Uncertainty(settings=config.uncertainty, calibration=None)
    row_of = {video_id: row for row, video_id in enumerate(held_out)}
    scores = np.empty(labels.shape)
    quality = ClipQuality(*(np.empty(len(held_out)) for _ in range(3)))
    for clips, some_scores in _scored(read_clips(config, families, held_out), model):
        rows = [row_of[clip.tokens.video_id] for clip in clips]
        scores[rows] = some_scores
        found = quality_of(clips)
        for name in ("face_coverage", "static_tokens", "dynamic_tokens"):
            getattr(quality, name)[rows] = getattr(found, name)
    calibration = calibrate(
        scores,
        labels,
        subjects,
        quality,
        centre=centre,
        confidence=config.uncertainty.confidence,
        seed=config.train.seed,
    )
    reliability = check_reliability(scores, labels, subjects, quality, centre=centre, seed=config.train.seed)
    return Uncertainty(settings=config.uncertainty, calibration=calibration, reliability=reliability)


def stored_uncertainty(config: RunConfig, metadata: dict[str, Any]) -> Uncertainty:
    """What a model's metadata holds of this; of a model that was saved without, the thresholds of the settings."""
    if "uncertainty" not in metadata:
        return Uncertainty(settings=config.uncertainty, calibration=None)
    try:
        return Uncertainty.model_validate(metadata["uncertainty"])
    except ValidationError as error:
        raise UserError("the calibration in the model's metadata.json is none; train that model anew") from error


def _scored(
    clips: Iterator[CachedClip], model: CompletePersonalityModel
) -> Iterator[tuple[list[CachedClip], np.ndarray]]:
    from fusion.model.scoring import predict  # Keras takes seconds to import

    while some := list(islice(clips, VIDEOS_AT_A_TIME)):
        yield some, predict(model, (clip.tokens for clip in some))

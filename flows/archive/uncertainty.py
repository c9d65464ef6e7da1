"""Calibration of a new model on people who were held out from its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from flows.archive.clips import VIDEOS_AT_A_TIME, CachedClip, read_clips
from flows.archive.families import Families
from flows.config.settings import RunConfig
from flows.session.errors import UserError
from fusion.settings import UncertaintySettings
from fusion.uncertainty.intervals import ClipQuality, Uncertainty, calibrate
from fusion.uncertainty.reliability import check_reliability

if TYPE_CHECKING:
    from fusion.model.model import CompletePersonalityModel


def quality_of(clips: Sequence[CachedClip]) -> ClipQuality:
    """Return the quality of clips as arrays."""
    return ClipQuality(
        np.array([clip.quality["face_coverage"] for clip in clips]),
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
    """Calibrate a model on videos of people whom it has not seen, and check its reliability on them.

    Args:
        config: thresholds and the seed.
        families: features that the model was trained on.
        held_out: N videos held out from training; without any, there are no intervals.
        labels: float32 [N, 5].
        subjects: the person in each.
        centre: float [5], mean of the training labels.
    """
    if not held_out:
        return Uncertainty(settings=config.uncertainty, calibration=None)
    row_of = {video_id: row for row, video_id in enumerate(held_out)}
    scores = np.empty(labels.shape)
    quality = ClipQuality(*(np.empty(len(held_out)) for _ in range(3)))
    for clips, some_scores in _scored(read_clips(config.store.path, families, held_out), model):
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


def stored_uncertainty(settings: UncertaintySettings, metadata: Mapping[str, Any]) -> Uncertainty:
    """Read the uncertainty from a model's metadata, or use the thresholds of the settings if it has none."""
    if "uncertainty" not in metadata:
        return Uncertainty(settings=settings, calibration=None)
    try:
        return Uncertainty.model_validate(metadata["uncertainty"])
    except ValidationError as error:
        raise UserError("the calibration in the model's metadata.json is damaged; train the model again") from error


def _scored(
    clips: Iterator[CachedClip], model: CompletePersonalityModel
) -> Iterator[tuple[list[CachedClip], np.ndarray]]:
    from fusion.model.scoring import predict  # Keras takes seconds to import

    while some := list(islice(clips, VIDEOS_AT_A_TIME)):
        yield some, predict(model, (clip.tokens for clip in some))

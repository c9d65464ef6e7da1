"""Calibration of a new model on unseen people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from flows.archive.clips import VIDEOS_AT_A_TIME, ClipFacts, read_clips
from flows.archive.families import Families
from flows.config.settings import RunConfig
from flows.session.errors import UserError
from fusion.settings import UncertaintySettings
from fusion.traits import TRAITS
from fusion.uncertainty.intervals import ClipQuality, Uncertainty, calibrate, least_people
from fusion.uncertainty.reliability import check_reliability
from storage.files.paths import StorePath

if TYPE_CHECKING:
    from fusion.model.kinds import PersonalityModel


def quality_of(clips: Sequence[ClipFacts]) -> ClipQuality:
    """Return the quality of clips as arrays."""
    return ClipQuality(
        np.array([clip.quality["face_coverage"] for clip in clips]),
        np.array([clip.static_tokens for clip in clips]),
        np.array([clip.dynamic_tokens for clip in clips]),
    )


def read_quality(
    root: StorePath, families: Families, videos: Sequence[str], model: PersonalityModel | None = None
) -> tuple[ClipQuality, np.ndarray]:
    """Read the quality of N videos, and score them.

    Returns:
        The quality, and scores float64 [N, 5], NaN without a model; both in the order of the videos.
    """
    row_of = {video_id: row for row, video_id in enumerate(videos)}
    scores = np.full((len(videos), len(TRAITS)), np.nan)
    quality = ClipQuality(*(np.empty(len(videos)) for _ in range(3)))
    clips = read_clips(root, families, videos)
    while some := list(islice(clips, VIDEOS_AT_A_TIME)):
        rows = [row_of[clip.facts.video_id] for clip in some]
        found = quality_of([clip.facts for clip in some])
        for name in ("face_coverage", "static_tokens", "dynamic_tokens"):
            getattr(quality, name)[rows] = getattr(found, name)
        if model is not None:
            from fusion.model.scoring import predict  # Keras takes seconds to import

            scores[rows] = predict(model, (clip.tokens for clip in some))
    return quality, scores


def uncertainty_of(
    config: RunConfig,
    scores: np.ndarray,
    labels: np.ndarray,
    subjects: Sequence[str],
    quality: ClipQuality,
    *,
    centre: np.ndarray,
    useless: bool,
) -> Uncertainty:
    """Calibrate a model on scores of unseen people, and check its reliability on them.

    Args:
        config: thresholds and the seed.
        scores: float64 [N, 5].
        labels: float32 [N, 5].
        subjects: the person in each clip; too few of them give no intervals.
        quality: of the same clips.
        centre: float [5], mean of the training labels.
        useless: whether the model is no better than the mean.
    """
    uncertainty = Uncertainty(settings=config.uncertainty, calibration=None, useless=useless)
    if len(set(subjects)) < least_people(config.uncertainty.confidence):
        return uncertainty
    confidence, seed = config.uncertainty.confidence, config.train.seed
    calibration = calibrate(scores, labels, subjects, quality, centre=centre, confidence=confidence, seed=seed)
    reliability = check_reliability(scores, labels, subjects, quality, centre=centre, seed=seed)
    return uncertainty.model_copy(update={"calibration": calibration, "reliability": reliability})


def stored_uncertainty(settings: UncertaintySettings, metadata: Mapping[str, Any]) -> Uncertainty:
    """Read the uncertainty from a model's metadata, or use the thresholds of the settings if it has none."""
    if "uncertainty" not in metadata:
        return Uncertainty(settings=settings, calibration=None)
    try:
        return Uncertainty.model_validate(metadata["uncertainty"])
    except ValidationError as error:
        raise UserError("the calibration in the model's metadata.json is damaged; train the model again") from error

"""Settings of evaluation and uncertainty, separate from code that takes a second to import."""

from __future__ import annotations

from pydantic import BaseModel, Field


class UncertaintySettings(BaseModel, frozen=True, extra="forbid"):
    """The confidence of stated intervals, and the limits beyond which a score is flagged as unusable."""

    confidence: float = Field(0.9, gt=0, lt=1, description="Share of clips whose label the intervals should contain.")
    calibration_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the clips held out from training, by whole subjects, to calibrate intervals; none are "
        "held out if they would show too few people for the confidence (9 for 0.9).",
    )
    min_face_coverage: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Abstain below this share of frames with the main person's face: tokens then represent less than "
        "half of the clip.",
    )
    min_static_tokens: int = Field(
        8,
        ge=1,
        description="Abstain below this number of face tokens: half of the usual 16, whose mean is 1.4 times as noisy.",
    )
    min_dynamic_tokens: int = Field(
        2, ge=1, description="Abstain below this number of motion tokens: one covers 2.6 s, or a shorter clip, looped."
    )
    max_width_ratio: float = Field(
        1.0,
        gt=0,
        description="Abstain if the interval is wider than this many times the one around the mean of the labels, "
        "which needs no video (average over traits): the video then adds no information.",
    )


class EvaluateSettings(BaseModel, frozen=True, extra="forbid"):
    """How `traitline evaluate` compares the model with baselines, ablations and controls."""

    seeds: int = Field(5, ge=1, description="Trainings of each random predictor, with seeds 0, 1, ... (count).")
    folds: int = Field(5, ge=2, description="Subject-disjoint folds (count).")
    draws: int = Field(1000, ge=100, description="Bootstrap samples of the subjects behind each interval (count).")
    only: tuple[str, ...] = Field(
        (), description="Names of the predictors to evaluate, such as ridge_both or token_form; empty: all of them."
    )

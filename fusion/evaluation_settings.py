"""What a user may choose about evaluation and uncertainty; apart from code that takes a second to import."""

from __future__ import annotations

from pydantic import BaseModel, Field


class UncertaintySettings(BaseModel, frozen=True, extra="forbid"):
    """How sure a score is stated to be, and when it is flagged as not to be used."""

    confidence: float = Field(0.9, gt=0, lt=1, description="Share of clips whose label the intervals are to hold.")
    calibration_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the clips kept from training, by whole subjects, to calibrate intervals on; none are "
        "kept where they would show too few people for the confidence (9 for 0.9).",
    )
    min_face_coverage: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Abstain below this share of frames with the main person's face: tokens then stand for less than "
        "half of the clip.",
    )
    min_static_tokens: int = Field(
        8,
        ge=1,
        description="Abstain below so many face tokens: half of the usual 16, whose mean is 1.4 times as noisy.",
    )
    min_dynamic_tokens: int = Field(
        2, ge=1, description="Abstain below so many motion tokens: one is 2.6 s at most, or a shorter clip looped."
    )
    max_width_ratio: float = Field(
        1.0,
        gt=0,
        description="Abstain where the interval is wider than so many times the one that needs no video, around the "
        "mean of the labels (average over traits): the video has then told nothing.",
    )


class EvaluateSettings(BaseModel, frozen=True, extra="forbid"):
    """How `traitline evaluate` compares the model with baselines, ablations and controls."""

    seeds: int = Field(5, ge=1, description="Trainings of all that depends on chance, with seeds 0, 1, ... (count).")
    folds: int = Field(5, ge=2, description="Subject-disjoint folds (count).")
    draws: int = Field(1000, ge=100, description="Bootstrap samples of the subjects behind each interval (count).")
    only: tuple[str, ...] = Field(
        (), description="Names of the predictors to evaluate, such as ridge_both or token_form; empty: all of them."
    )

"""Which detections count as a face, and how faces are cut out of a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from extractors.video.settings import Share

REVISION = 3  # part of the cache key: raise it if the faces or the crops of the same pictures change


class FaceSettings(BaseModel, frozen=True, extra="forbid"):
    """Which detections count as a face, and how much of a video must show the main person's."""

    model: Literal["short", "full", "auto"] = Field(
        "auto",
        description="BlazeFace's network: short, for faces up to two metres away; full, for faces up to five metres "
        "away, several times as slow; auto, full only for pictures in which short is sure of nobody or sees a crowd.",
    )
    candidate_score: Share = Field(
        0.2, description="Detector's score (0 to 1) above which a candidate gets a second look."
    )
    sure_score: Share = Field(
        0.8, description="Detector's score (0 to 1) from which a face of sufficient size needs no second look."
    )
    min_score: Share = Field(0.7, description="Detector's score (0 to 1) from which a detection counts as a face.")
    detect_every: int = Field(
        1,
        ge=1,
        le=5,
        description="Detect faces in every so many frames. Between two detections that agree, faces are interpolated; "
        "between others, they are detected as well. 1 detects faces in every frame.",
    )
    min_coverage: Share = Field(
        0.3, description="Share of grid frames that must show the main person's face; otherwise the video is rejected."
    )
    max_gap_s: float = Field(
        1.0,
        ge=0,
        description="Seconds up to which a gap between two detections of the main person is filled by interpolation.",
    )
    smoothing_s: float = Field(
        0.2,
        ge=0,
        description="Seconds over which the main person's box is smoothed; 0 leaves the detector's boxes as they are.",
    )
    min_confirmed_share: Share = Field(
        0.25,
        description="Share of the main person's pictures that a second, independent detector must confirm as a "
        "face; otherwise the video is rejected (false_face). 0 accepts all.",
    )
    max_others_share: Share = Field(
        1.0,
        description="Share of grid frames that may show somebody else's face as well; above it, the video is rejected "
        "(several_people). 1 accepts all.",
    )
    max_gaps: int | None = Field(
        None,
        ge=0,
        description="How often the main person's face may be lost; more often, the video is rejected (many_gaps). "
        "null: no limit.",
    )
    max_absence_s: float | None = Field(
        None,
        gt=0,
        description="Seconds for which the main person's face may be out of sight at a time; for longer, the video is "
        "rejected (long_gap). null: no limit.",
    )

    @property
    def numerics(self) -> dict[str, Any]:
        """All settings that change which faces are found, for a cache key; JSON-able."""
        values = self.model_dump(mode="json")
        if self.detect_every == 1:
            del values["detect_every"]  # so that older stores stay valid
        return {**values, "revision": REVISION}


@dataclass(frozen=True)
class FaceModels:
    """Files of the networks that find faces, check them, and recognise people after a cut.

    Args:
        short_range: BlazeFace short range, `face_detection_short_range.tflite`.
        full_range: BlazeFace full range, `face_detection_full_range.tflite`; None if settings.model is "short".
        check: YuNet, `face_detection_yunet_2023mar_int8bq.onnx`.
        recognizer: SFace, `face_recognition_sface_2021dec_int8bq.onnx`.
    """

    short_range: Path
    full_range: Path | None
    check: Path
    recognizer: Path


class CropSettings(BaseModel, frozen=True, extra="forbid"):
    """How face crops are cut, and how a video is divided into windows of motion and single pictures."""

    margin: float = Field(
        1.5,
        ge=1,
        le=4,
        description="Side of the crop as a multiple of the detector's face box, which ends at the brows and the chin.",
    )
    window_fields: int = Field(
        64, ge=2, le=1024, description="Optical-flow fields in one window (one field lies between two frames)."
    )
    min_fields: int = Field(
        16, ge=1, le=1024, description="Fewest optical-flow fields in the last window of a stretch."
    )
    static_tokens: int = Field(
        16, ge=1, le=4096, description="Face crops per video for the static features, spread evenly."
    )

"""Face tracks with made-up boxes."""

from __future__ import annotations

import numpy as np

from extractors.faces.quality import Quality
from extractors.faces.track import FaceTrack


def track_of(
    boxes: np.ndarray,
    *,
    scores: np.ndarray | None = None,
    shots: np.ndarray | None = None,
    facts: Quality | None = None,
) -> FaceTrack:
    """Build a track from [F, 4] boxes: detected in all frames with a box and of a single shot by default."""
    boxes = np.asarray(boxes, np.float32)
    scores = ~np.isnan(boxes[:, 0]) if scores is None else scores
    shots = np.zeros(len(boxes)) if shots is None else shots
    eyes = np.full((len(boxes), 4), np.nan, np.float32)
    return FaceTrack(boxes, scores.astype(np.float32), eyes, shots.astype(np.int32), facts)

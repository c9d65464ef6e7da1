"""Scoring clips with a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fusion.clips.batches import ahead
from fusion.clips.tokens import ClipTokens
from fusion.errors import InputError
from fusion.model.kinds import PersonalityModel
from fusion.model.scoring_graph import compiled, lay_out
from fusion.traits import TRAITS

# Tokens of each kind in a batch, including padding, and clips. Larger products come closer to the processor's limit;
# beyond this size there was no further gain, and memory is bounded however long the videos are.
BATCH_TOKENS = 2048
BATCH_CLIPS = 1024


def predict(model: PersonalityModel, clips: Iterable[ClipTokens], batch_size: int = BATCH_CLIPS) -> np.ndarray:
    """Score clips in batches; a few batches are in memory at a time if `clips` is a generator, which a separate thread
    runs.

    A clip's scores do not depend on its neighbours in the batch or on the padding that they cause, except for the
    rounding of float32 sums: measured under 2e-7 with a trained model of full size, and 3e-6 with an untrained one,
    whose scores spread five times as wide.

    Args:
        clips: any number of clips, including none.
        batch_size: largest number of clips in a batch; long clips make smaller batches.

    Returns:
        float32 [N, 5] in the order of the clips and of TRAITS, as the model computes them: linear outputs on the scale
        of the labels, not clipped to [0, 1].

    Raises:
        ValueError: batch_size is not positive.
        InputError: the length of the tokens differs from the model's, or a clip is something else.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    scores = [np.zeros((0, len(TRAITS)), np.float32)]
    score = compiled(model)
    for batch in ahead(lay_out(some, model) for some in _batches(clips, batch_size)):
        scores.append(score(batch).numpy().astype(np.float32))
    return np.concatenate(scores)


def _batches(clips: Iterable[ClipTokens], batch_size: int) -> Iterator[list[ClipTokens]]:
    batch: list[ClipTokens] = []
    longest = 0
    for clip in clips:
        if not isinstance(clip, ClipTokens):
            raise InputError(f"clips must be ClipTokens, got {type(clip).__name__}")
        longest = max(longest, len(clip.static), len(clip.dynamic))
        if batch and (len(batch) == batch_size or (len(batch) + 1) * longest > BATCH_TOKENS):
            yield batch
            batch, longest = [], max(len(clip.static), len(clip.dynamic))
        batch.append(clip)
    if batch:
        yield batch

"""Clips as tokens, and padding."""

import numpy as np
import pytest

from fusion.clips.tokens import ClipTokens, pad_batch


def clip(static_count, dynamic_count, *, value=1.0, static_dim=3, video_id="a.mp4"):
    return ClipTokens(
        video_id,
        np.full((static_count, static_dim), value, np.float32),
        np.arange(static_count, dtype=np.float32),
        np.full((dynamic_count, 2), -value, np.float32),
        10 + np.arange(dynamic_count, dtype=np.float32),
    )


def test_a_batch_holds_each_clip_in_front_and_zeros_behind():
    batch = pad_batch([clip(2, 1, value=5), clip(1, 3, value=7)])
    assert batch["static"].tolist() == [[[5] * 3, [5] * 3], [[7] * 3, [0] * 3]]
    assert batch["static_mask"].tolist() == [[True, True], [True, False]]
    assert batch["static_time_s"].tolist() == [[0, 1], [0, 0]]
    assert batch["dynamic"].tolist() == [[[-5] * 2, [0] * 2, [0] * 2], [[-7] * 2] * 3]
    assert batch["dynamic_mask"].tolist() == [[True, False, False], [True, True, True]]
    assert batch["dynamic_time_s"].tolist() == [[10, 0, 0], [10, 11, 12]]
    assert {name: array.dtype for name, array in batch.items()} == {
        "static": np.float32,
        "static_mask": bool,
        "static_time_s": np.float32,
        "dynamic": np.float32,
        "dynamic_mask": bool,
        "dynamic_time_s": np.float32,
    }


def test_clips_of_other_dimensions_cannot_share_a_batch():
    with pytest.raises(ValueError, match=r"b\.mp4: static .*\b4\b.*\b3\b"):
        pad_batch([clip(1, 1), clip(1, 1, static_dim=4, video_id="b.mp4")])


def test_a_clip_without_motion_tokens_is_refused_by_name():
    with pytest.raises(ValueError, match=r"a\.mp4: dynamic .*\(0, "):
        clip(1, 0)


def test_a_number_that_is_not_finite_is_refused_by_name():
    with pytest.raises(ValueError, match=r"a\.mp4: static "):
        clip(1, 1, value=np.inf)


def test_times_must_be_as_many_as_tokens():
    with pytest.raises(ValueError, match=r"static times .*\[2\].*\(3,\)"):
        ClipTokens("a.mp4", np.ones((2, 3)), np.zeros(3), np.ones((1, 2)), np.zeros(1))

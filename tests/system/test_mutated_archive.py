"""Damaged videos through the whole of `traitline extract`: each has features, or a row with its reason."""

from __future__ import annotations

import pytest
from video_mutants import MUTATIONS, write_mutants

from flows.archive.families import families_of
from flows.config.load import load_config
from storage import FailureLog, FeatureStore


@pytest.mark.slow
def test_every_mutant_has_features_or_a_reason_and_good_videos_are_not_harmed(rendered, tmp_path, traitline):
    videos, store = tmp_path / "videos", tmp_path / "store"
    videos.mkdir()
    clips = sorted(rendered.videos.glob("*.mp4"))[:3]
    names = {path.name for path, _, _ in write_mutants(clips, videos, len(MUTATIONS) * len(clips), seed=1)}
    for clip in clips:
        (videos / clip.name).write_bytes(clip.read_bytes())
    command = [
        *("extract", "--videos", videos, "--store", store, "--weights", "random"),
        *("--set", "optical_flow.preset=fast", "--set", "extract.max_failed_fraction=1"),
        *("--set", "extract.stall_s=30", "--set", "limits.frames=2000"),
    ]
    result = traitline(*command)
    assert result.returncode == 0, result.stderr
    flags = {"weights": "random", "store.path": store, "optical_flow.preset": "fast"}
    families = families_of(load_config(flags=flags))
    done = set(FeatureStore(store).done(families.static)) & set(FeatureStore(store).done(families.dynamic))
    refused = {failure.video_id: failure for failure in FailureLog(store).current()}
    assert done | set(refused) == names | {clip.name for clip in clips}
    assert not done & set(refused)
    assert {clip.name for clip in clips} <= done
    assert all(failure.reason and failure.message for failure in refused.values())
    assert len(refused) > len(names) / 4
    assert "Traceback" not in result.stdout + result.stderr
    print(f"{len(names)} mutants: {len(done) - len(clips)} with features, {len(refused)} refused")
    again = traitline(*command)
    assert again.returncode == 0
    assert len(FailureLog(store).attempts_in_order()) == len(refused)  # nothing is tried again unasked

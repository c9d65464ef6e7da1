"""Ablations and controls change what they say they change, and nothing learns from noise."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.clips.tokens import ClipTokens
from fusion.errors import TrainingError
from fusion.evaluation.folds import subject_folds
from fusion.evaluation.predictors import LabelledClips, _blanked, _shuffled, all_predictors, chosen_predictors
from fusion.evaluation.protocol import evaluate_protocols, runs
from fusion.settings import TrainSettings, UncertaintySettings
from fusion.uncertainty.intervals import ClipQuality


def drawn_clips(count, *, seed=0):
    """Clips of 1 to 5 tokens, whose numbers and times tell which clip they are of."""
    rng = np.random.default_rng(seed)
    clips = []
    for clip in range(count):
        parts = []
        for dim in (6, 4):
            tokens = rng.integers(1, 6)
            parts += [
                rng.normal(clip, 0.1, (tokens, dim)).astype(np.float32),
                np.arange(tokens, dtype=np.float32) + clip,
            ]
        clips.append(ClipTokens(f"{clip}.mp4", *parts))
    return clips


@pytest.mark.parametrize(("kind", "other"), [("static", "dynamic"), ("dynamic", "static")])
def test_a_shuffled_clip_has_another_clips_tokens_of_one_kind_and_its_own_of_the_other(kind, other):
    clips = drawn_clips(20)
    changed = _shuffled(kind, clips, seed=3)
    owners = [round(getattr(clip, f"{kind}_time_s")[0]) for clip in changed]
    assert sorted(owners) == list(range(20))
    assert all(owner != clip for clip, owner in enumerate(owners))
    for clip, owner in enumerate(owners):
        assert getattr(changed[clip], kind) is getattr(clips[owner], kind)
        assert getattr(changed[clip], other) is getattr(clips[clip], other)
        assert changed[clip].video_id == clips[clip].video_id


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_blanked_kind_is_the_same_in_every_clip(kind):
    changed = _blanked(kind, drawn_clips(5), seed=0)
    for clip in changed:
        assert len(getattr(clip, kind)) == 1
        assert not getattr(clip, kind).any()
        assert not getattr(clip, f"{kind}_time_s").any()


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        (TrainSettings(), "bilinear"),
        (TrainSettings(kind="specified"), "token_form"),
        (TrainSettings(kind="specified", form="vector"), "vector_form"),
    ],
)
def test_what_the_settings_train_is_the_model_and_the_others_are_ablations(settings, model):
    known = all_predictors(settings, UncertaintySettings())
    assert [predictor.name for predictor in known if predictor.kind == "model"] == [model]
    assert len({predictor.name for predictor in known}) == len(known) == 17


def test_unknown_predictors_are_refused_by_name():
    known = all_predictors(TrainSettings(), UncertaintySettings())
    with pytest.raises(TrainingError, match=r"oracle.*ridge_both"):
        chosen_predictors(known, ("mean", "oracle"), with_tokens=True)
    assert [predictor.name for predictor in chosen_predictors(known, ("mean",), with_tokens=True)] == ["mean"]


@pytest.mark.slow
def test_on_pure_noise_no_predictor_shows_skill():
    rng = np.random.default_rng(0)
    count = 400
    tokens = [
        ClipTokens(
            f"{clip}.mp4",
            rng.normal(size=(4, 16)).astype(np.float32),
            np.arange(4, dtype=np.float32),
            rng.normal(size=(3, 8)).astype(np.float32),
            np.arange(3, dtype=np.float32),
        )
        for clip in range(count)
    ]
    labels = rng.normal(0.5, 0.1, (count, 5)).clip(0, 1).astype(np.float32)
    quality = ClipQuality(np.ones(count), np.full(count, 4), np.full(count, 3))
    subjects = tuple(f"p{clip // 2}" for clip in range(count))
    clips = LabelledClips(labels, subjects, (None,) * count, {}, tokens, quality)
    known = all_predictors(TrainSettings(kind="specified", epochs=15), UncertaintySettings())
    predictors = chosen_predictors(known, ("ridge_both", "mlp_both", "token_form", "vector_form"), with_tokens=True)
    partitions, seen = [subject_folds(subjects, 2, seed) for seed in range(5)], []
    results = evaluate_protocols(clips, {"folds": partitions}, predictors, 5, seen.append)["folds"]
    assert seen == [predictor.name for predictor, _, _ in runs(partitions, predictors, 5)]
    shares = {row["name"]: row["fitted_share"] for row in results["predictors"]}
    assert shares["ridge_both"] == shares["mlp_both"] == 1
    assert shares["token_form"] == shares["vector_form"] == pytest.approx(0.9 * 0.8, abs=0.03)
    for row in results["predictors"]:
        ccc, r2 = (row["metrics"][metric]["mean"] for metric in ("ccc", "r2"))
        print(f"\n{row['name']}: CCC {ccc['value']:.3f} [{ccc['low']:.3f}, {ccc['high']:.3f}], R2 {r2['value']:.3f}")
        assert ccc["low"] <= 0 <= ccc["high"]
        assert r2["value"] < 0.02
    # ten people with two clips each are calibrated on: the widest of 20 errors, which 20 of 21 stay within
    assert results["coverage"][0]["traits"]["mean"]["value"] == pytest.approx(20 / 21, abs=0.03)

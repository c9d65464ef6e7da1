"""Intervals that hold as many labels as they say, on people never seen, and a flag that says when not to trust."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fusion.evaluation.intervals import person_means
from fusion.settings import UncertaintySettings
from fusion.uncertainty.intervals import ClipQuality, Uncertainty, calibrate, hold_out_for_calibration, least_people

SETTINGS = UncertaintySettings()
CENTRE = np.full(5, 0.5)


def people_with_clips(rng, people, *, hard=None):
    """Scores, labels, subjects and quality; a person's clips share most of their error, and number 1 to 6.

    Args:
        hard: bool [people], whose errors are three times as large.
    """
    clips = rng.integers(1, 7, people)
    person = np.repeat(np.arange(people), clips)
    # who is shown more often is easier to judge: counting clips instead of people would give too narrow intervals
    scale = 0.05 + 0.1 / clips[person]
    if hard is not None:
        scale = np.where(hard[person], 0.15, 0.05)
    error = scale[:, None] * (0.8 * rng.normal(size=(people, 5))[person] + 0.6 * rng.normal(size=(len(person), 5)))
    labels = rng.uniform(0.2, 0.8, (len(person), 5))
    quality = ClipQuality(
        rng.uniform(0.4, 1, len(person)), rng.integers(6, 17, len(person)), rng.integers(1, 7, len(person))
    )
    return labels + error, labels, [f"p{number}" for number in person], quality


def coverage_of(uncertainty, scores, labels, subjects, quality):
    """Share of labels inside their intervals, every person counting once: [5]."""
    judged = uncertainty.judge(scores, quality)
    inside = (judged.low <= labels) & (labels <= judged.high)
    return person_means(inside, subjects).mean(axis=0)


def calibrated(scores, labels, subjects, quality, confidence=0.9):
    settings = UncertaintySettings(confidence=confidence)
    found = calibrate(scores, labels, subjects, quality, centre=CENTRE, confidence=confidence)
    return Uncertainty(settings=settings, calibration=found)


@pytest.mark.parametrize("people", [50, 150], ids=["all clips alike", "with difficulty"])
def test_coverage_on_unseen_people_is_between_88_and_92_percent_over_many_data_sets(people):
    rng = np.random.default_rng(people)
    covered = []
    for _ in range(60):
        uncertainty = calibrated(*people_with_clips(rng, people))
        covered.append(coverage_of(uncertainty, *people_with_clips(rng, 200)))
    mean = np.mean(covered, axis=0)
    print(f"\n{people} people: 90% intervals held {mean.round(4)} of the labels of unseen people, by trait")
    assert (mean > 0.88).all()
    assert (mean < 0.92).all()


def test_noise_that_differs_by_group_is_covered_in_all_but_not_in_each_group():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(50):
        uncertainty = calibrated(*people_with_clips(rng, 200, hard=rng.random(200) < 0.5))
        hard = rng.random(300) < 0.5
        scores, labels, subjects, quality = people_with_clips(rng, 300, hard=hard)
        in_hard = hard[[int(name[1:]) for name in subjects]]
        row = []
        for rows in (np.arange(len(scores)), np.flatnonzero(in_hard), np.flatnonzero(~in_hard)):
            some = (scores[rows], labels[rows], [subjects[r] for r in rows], quality.take(rows))
            row.append(coverage_of(uncertainty, *some).mean())
        covered.append(row)
    everybody, hard, easy = np.mean(covered, axis=0)
    print(f"\neverybody {everybody:.3f}, group with three times the noise {hard:.3f}, the other group {easy:.3f}")
    assert 0.88 < everybody < 0.92
    assert hard < 0.85
    assert easy > 0.97


def test_with_one_clip_a_person_the_width_is_the_textbook_quantile():
    rng = np.random.default_rng(0)
    errors = np.abs(rng.normal(size=(19, 5)))
    quality = ClipQuality(np.ones(19), np.full(19, 16), np.full(19, 6))
    found = calibrate(
        CENTRE + errors, np.tile(CENTRE, (19, 1)), list("abcdefghijklmnopqrs"), quality, centre=CENTRE, confidence=0.9
    )
    # the ceil((19 + 1) * 0.9) = 18th smallest of 19
    assert found.half_width == pytest.approx(np.sort(errors, axis=0)[17])


def test_a_person_with_many_clips_counts_once():
    rng = np.random.default_rng(0)
    errors = np.concatenate([np.full((500, 5), 9.0), rng.uniform(0, 1, (30, 5))])
    subjects = ["often"] * 500 + [f"p{number}" for number in range(30)]
    quality = ClipQuality(np.ones(530), np.full(530, 16), np.full(530, 6))
    found = calibrate(CENTRE + errors, np.tile(CENTRE, (530, 1)), subjects, quality, centre=CENTRE, confidence=0.9)
    assert max(found.half_width) < 1


def test_clips_that_are_harder_get_wider_intervals():
    rng = np.random.default_rng(0)
    _, labels, subjects, quality = people_with_clips(rng, 300)
    scores = labels + rng.normal(size=labels.shape) * (0.02 + 0.3 * (1 - quality.face_coverage))[:, None]
    uncertainty = calibrated(scores, labels, subjects, quality)
    judged = uncertainty.judge(scores, quality)
    width = (judged.high - judged.low).mean(axis=1)
    assert np.corrcoef(width, quality.face_coverage)[0, 1] < -0.8
    assert width.max() / width.min() > 2


def test_too_few_people_are_not_held_out_and_cannot_be_calibrated_on():
    assert [least_people(level) for level in (0.5, 0.9, 0.95)] == [1, 9, 19]
    few = [f"p{clip // 2}" for clip in range(160)]  # a tenth of 80 people are 8
    fit, held_out = hold_out_for_calibration(few, SETTINGS, seed=0)
    assert (len(fit), len(held_out)) == (160, 0)
    many = [f"p{clip // 2}" for clip in range(400)]
    fit, held_out = hold_out_for_calibration(many, SETTINGS, seed=0)
    assert len(held_out) == 40
    assert not {many[row] for row in fit} & {many[row] for row in held_out}
    some = people_with_clips(np.random.default_rng(0), 8)
    with pytest.raises(ValueError, match=r"\b9\b.*\b8$"):
        calibrated(*some)


def test_why_to_abstain_is_told_by_face_tokens_and_width():
    rng = np.random.default_rng(0)
    uncertainty = calibrated(*people_with_clips(rng, 30))
    quality = ClipQuality(np.array([1, 0.49, 1, 1, 0.2]), np.array([16, 16, 7, 16, 16]), np.array([6, 6, 6, 1, 1]))
    scores = np.full((5, 5), 0.5)
    judged = uncertainty.judge(scores, quality)
    assert judged.abstain == ["", "face_coverage", "few_tokens", "few_tokens", "face_coverage few_tokens"]
    assert judged.low == pytest.approx(scores - uncertainty.calibration.half_width)
    # scores that know less than the mean of the labels does
    labels = rng.uniform(0.4, 0.6, (40, 5))
    names = [f"p{clip}" for clip in range(40)]
    alike = ClipQuality(np.ones(40), np.full(40, 16), np.full(40, 6))
    worse = calibrated(labels + rng.normal(0, 0.2, labels.shape), labels, names, alike)
    assert set(worse.judge(labels, alike).abstain) == {"wide_interval"}
    without = Uncertainty(settings=SETTINGS, calibration=None).judge(scores, quality)
    assert without.low is None
    assert without.abstain == judged.abstain


def test_what_is_stored_with_a_model_comes_back_as_it_was():
    uncertainty = calibrated(*people_with_clips(np.random.default_rng(0), 100))
    assert Uncertainty.model_validate(json.loads(json.dumps(uncertainty.model_dump(mode="json")))) == uncertainty


@pytest.mark.parametrize(("people", "times"), [(9, 200), (30, 100), (100, 40)])
def test_coverage_of_one_clip_of_one_more_person_is_88_to_92_percent(people, times):
    rng = np.random.default_rng(people)
    inside = []
    for _ in range(times):
        own = people_with_clips(rng, people + 60)
        new = np.array([int(name[1:]) >= people for name in own[2]])
        first = np.flatnonzero(new & ~np.array([False, *(np.array(own[2][1:]) == np.array(own[2][:-1]))]))
        known, asked = (
            (own[0][rows], own[1][rows], [own[2][row] for row in rows], own[3].take(rows))
            for rows in (np.flatnonzero(~new), first)
        )
        judged = calibrated(*known).judge(asked[0], asked[3])
        inside.append(((judged.low <= asked[1]) & (asked[1] <= judged.high)).mean())
    print(f"\n{people} people: {np.mean(inside):.4f}")
    assert 0.88 < np.mean(inside) < 0.92


def test_hosts_with_most_of_the_clips_can_be_calibrated_on_whatever_the_seed():
    rng = np.random.default_rng(0)
    subjects = [f"host{clip // 150}" for clip in range(750)] + [f"guest{clip}" for clip in range(80)]
    labels = rng.uniform(0.2, 0.8, (len(subjects), 5))
    quality = ClipQuality(rng.uniform(0.4, 1, 830), rng.integers(6, 17, 830), rng.integers(1, 7, 830))
    for seed in range(20):
        found = calibrate(labels, labels, subjects, quality, centre=CENTRE, confidence=0.9, seed=seed)
        assert found.subjects == 85


def test_few_people_do_not_make_abstention_a_matter_of_all_or_none():
    """Errors as large as without the video, but for clips of which more is seen."""
    rng = np.random.default_rng(0)
    labels = rng.normal(0.5, 0.1, (120, 5))
    coverage = rng.uniform(0.5, 1, 120)
    quality = ClipQuality(coverage, np.full(120, 16), np.full(120, 6))
    scores = labels + rng.normal(size=labels.shape) * (0.16 * (1.4 - coverage))[:, None]
    uncertainty = calibrated(scores, labels, [f"p{clip // 3}" for clip in range(120)], quality)
    wide = np.array([reason == "wide_interval" for reason in uncertainty.judge(scores, quality).abstain])
    assert 0.1 < wide.mean() < 0.9
    assert coverage[wide].mean() < coverage[~wide].mean() - 0.1

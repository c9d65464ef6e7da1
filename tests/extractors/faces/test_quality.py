"""What a video's quality is, worked out by hand, and what falls under which threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from extractors.errors import VideoError
from extractors.faces.quality import Quality, check_quality, quality_of
from extractors.faces.settings import FaceSettings

GOOD = Quality(1.0, 0, 0.0, 1, 0.0, 0, 1.0, 1.0, 0.0)


def measure(
    seen: str, faces: str | None = None, by_person: tuple[int, ...] = (1,), confirmed: tuple[bool, ...] = (True,)
) -> Quality:
    """One letter for each frame: "x" if the main person is visible; number of all faces."""
    scores = np.array([0.9 * (letter == "x") for letter in seen], np.float32)
    counts = [int(letter == "x") for letter in seen] if faces is None else [int(digit) for digit in faces]
    return quality_of(
        *(scores, np.array(counts), confirmed),
        fps=5.0,
        frames_by_person=by_person,
        cuts=2,
        decoded_share=1.0,
        repeated_share=0.0,
    )


@pytest.mark.parametrize(
    ("seen", "coverage", "gaps", "longest_s"),
    [
        ("xxxxx", 1.0, 0, 0.0),
        ("xx.xx", 0.8, 1, 0.2),
        (".x...xx..x", 0.4, 3, 0.6),
        ("x.........", 0.1, 1, 1.8),
        (".........x", 0.1, 1, 1.8),
        ("..", 0.0, 1, 0.4),
    ],
)
def test_gaps_are_runs_of_frames_without_the_face_at_either_end_too(seen, coverage, gaps, longest_s):
    found = measure(seen)
    assert (found.face_coverage, found.face_gaps) == (pytest.approx(coverage), gaps)
    assert found.longest_gap_s == pytest.approx(longest_s)


@pytest.mark.parametrize(
    ("seen", "faces", "others"),
    [
        ("x" * 20, "1" * 20, 0.0),
        ("x" * 20, "2" * 20, 1.0),
        ("x" * 20, "1" * 19 + "4", 0.05),
        ("x" * 10 + "." * 10, "1" * 20, 0.5),  # somebody else takes over
        ("x" * 10 + "." * 10, "3" * 5 + "1" * 5 + "0" * 10, 0.25),
    ],
)
def test_others_are_those_beside_or_instead_of_the_main_person(seen, faces, others):
    found = measure(seen, faces)
    assert found.others_share == pytest.approx(others)
    assert found.cuts == 2


@pytest.mark.parametrize(
    ("by_person", "people"),
    [
        ((40,), 1),
        ((20, 20), 2),  # one after the other, or together: both are people
        ((40, 40, 3), 3),
        ((40, 2, 1), 2),  # 5% of the frames and less: a passer-by
        ((1,), 1),
    ],
)
def test_people_are_those_who_are_seen_in_a_twentieth_of_the_frames(by_person, people):
    assert measure("x" * 40, by_person=by_person).people == people


def test_what_could_not_be_looked_at_is_not_confirmed():
    assert measure("xx", confirmed=(True, False, False, False)).confirmed_share == 0.25
    assert measure("xx", confirmed=()).confirmed_share == 0.0


@pytest.mark.parametrize(
    ("worse", "limits", "reason"),
    [
        ({"face_coverage": 0.29}, {}, "low_coverage"),
        ({"confirmed_share": 0.24}, {}, "false_face"),
        ({"face_gaps": 4}, {"max_gaps": 3}, "many_gaps"),
        ({"longest_gap_s": 2.1}, {"max_absence_s": 2}, "long_gap"),
        ({"others_share": 0.11}, {"max_others_share": 0.1}, "several_people"),
    ],
)
def test_what_falls_under_a_threshold_is_refused_with_its_reason(worse, limits, reason):
    settings = FaceSettings(**limits)
    check_quality(GOOD, settings)
    with pytest.raises(VideoError) as caught:
        check_quality(replace(GOOD, **worse), settings)
    assert (caught.value.stage, caught.value.reason) == ("faces", reason)


def test_gaps_and_other_people_are_told_and_refused_only_where_the_user_says_so():
    check_quality(replace(GOOD, face_gaps=99, longest_gap_s=600, people=9, others_share=1.0), FaceSettings())

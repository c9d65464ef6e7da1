"""A search finds better settings, keeps what it has done, and its figures are not those of the luckiest trial."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.clips.sources import ClipsInMemory
from fusion.clips.tokens import ClipTokens
from fusion.errors import TrainingError
from fusion.settings import TrainSettings
from fusion.training.search import Found, TrialReport, search
from fusion.training.space import SPACE, Choice, Range, SearchSettings
from fusion.training.train import OutOfFold

FACES, DIM = 6, 6


class Memory(dict):
    """Keeps arrays by name, and breaks off after a number of trainings."""

    def __init__(self, most: int = 10**6) -> None:
        super().__init__()
        self.most, self.made = most, 0

    def __call__(self, name, make):
        if name not in self:
            if self.made == self.most:
                raise KeyboardInterrupt
            self[name] = make()
            self.made += 1
        return self[name]


def drawn(people: int, *, signal: bool, seed: int = 0, each: int = 2):
    """Clips, labels and people; labels follow from the product of the weakest numbers of face and motion, or nothing.

    Numbers fall in spread from the first to the last, so that a model with few components does not see the last.
    """
    rng = np.random.default_rng(seed)
    count = people * each
    spread = np.linspace(2, 1, DIM).astype(np.float32)
    face, motion = (rng.normal(size=(count, FACES, DIM)).astype(np.float32) * spread for _ in range(2))
    time_s = np.arange(FACES, dtype=np.float32)
    clips = [ClipTokens(f"{row}.mp4", face[row], time_s, motion[row], time_s) for row in range(count)]
    told = (face * motion)[..., -1].mean(axis=1, keepdims=True) if signal else np.zeros((count, 1))
    labels = 0.5 + 0.1 * told + 0.02 * rng.normal(size=(count, 5))
    return clips, labels.astype(np.float32), [f"person {row // each}" for row in range(count)]


def searched(clips, labels, subjects, settings: TrainSettings, options: SearchSettings, keep=None, told=None) -> Found:
    def select(rows):
        return ClipsInMemory([clips[row] for row in rows])

    return search(select, labels, subjects, settings, options, Memory() if keep is None else keep, told)


def gain(own: OutOfFold, labels: np.ndarray) -> float:
    """Share of the mean's squared error that scores save, mean over traits."""
    errors = [np.square(labels - expected).sum(axis=0) for expected in (own.scores, own.mean)]
    return float(1 - np.mean(errors[0] / errors[1]))


def test_a_search_finds_the_components_that_labels_follow_from():
    clips, labels, subjects = drawn(60, signal=True)
    given = TrainSettings(components=2, ridge_components=2, folds=2)
    found = searched(clips, labels, subjects, given, SearchSettings(trials=4, folds=2))
    print(found.settings.components, gain(found.searched, labels), gain(found.given, labels))
    assert found.settings.components >= DIM
    assert all(settings.components >= DIM for settings in found.of_folds)
    assert gain(found.searched, labels) > gain(found.given, labels) + 0.15


def test_of_noise_the_best_trial_looks_useful_and_the_search_does_not():
    given, options = TrainSettings(folds=2, components=3, ridge_components=3), SearchSettings(trials=4, folds=2)
    best, nested = [], []
    for seed in range(3):
        clips, labels, subjects = drawn(24, signal=False, seed=seed, each=1)
        reports: list[TrialReport] = []
        found = searched(clips, labels, subjects, given, options, told=reports.append)
        best.append(max(report.best for report in reports if report.search == 1))
        nested.append(gain(found.searched, labels))
    print("best trials", np.round(best, 3), "nested", np.round(nested, 3))
    assert np.mean(nested) < 0.02
    assert np.mean(best) > np.mean(nested) + 0.03


@pytest.mark.parametrize(
    ("train", "search", "people", "message"),
    [
        ({"kind": "specified"}, {"trials": 5, "only": ("width",)}, 99, r"only 4 settings to try: give --search 4"),
        ({"components": 64}, {"trials": 99, "only": ("ridge_components",)}, 99, "only 29 settings"),
        ({}, {"trials": 2}, 19, "at least 20 people .* there are 19"),
        ({}, {"trials": 2, "folds": 16}, 30, "search.folds is 16, which leaves parts of fewer than two of 30 people"),
        ({"folds": 8}, {"trials": 2}, 20, "train.folds is 8, .* two of 13 people"),
        ({"kind": "specified"}, {"trials": 2, "inner_folds": 7}, 20, "search.inner_folds is 7, .* two of 13 people"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_before_anything_is_trained(train, search, people, message):
    clips, labels, subjects = drawn(people, signal=False, each=1)
    memory = Memory()
    with pytest.raises(TrainingError, match=message):
        searched(clips, labels, subjects, TrainSettings(**train), SearchSettings(**search), memory)
    assert memory.made == 0


def test_an_interrupted_search_continues_with_the_same_trials():
    clips, labels, subjects = drawn(20, signal=True)
    given, options = TrainSettings(folds=2, components=2), SearchSettings(trials=3, folds=2)
    whole, broken = Memory(), Memory(most=5)
    expected = searched(clips, labels, subjects, given, options, whole)
    with pytest.raises(KeyboardInterrupt):
        searched(clips, labels, subjects, given, options, broken)
    broken.most = 10**6
    found = searched(clips, labels, subjects, given, options, broken)
    assert broken.made == whole.made <= options.most_trainings("bilinear")
    assert sorted(broken) == sorted(whole)
    assert (found.settings, found.of_folds) == (expected.settings, expected.of_folds)
    np.testing.assert_array_equal(found.searched.scores, expected.searched.scores)
    more = SearchSettings(trials=4, folds=2)
    searched(clips, labels, subjects, given, more, broken)
    assert broken.made > whole.made
    assert set(whole) <= set(broken)  # more trials continue the same search


@pytest.mark.slow  # eleven trainings of a network; the search is the one of the tests before
def test_a_specified_model_is_tried_on_inner_folds_and_a_step_size_that_diverges_is_never_chosen(monkeypatch):
    monkeypatch.setitem(SPACE["specified"], "learning_rate", Choice((1e-3, 1e30)))
    clips, labels, subjects = drawn(20, signal=False)
    given = TrainSettings(kind="specified", form="vector", epochs=2, warmup_epochs=0)
    memory = Memory()
    options = SearchSettings(trials=4, folds=2, inner_folds=2, only=("learning_rate",))
    found = searched(clips, labels, subjects, given, options, memory)
    diverged = [name for name, values in memory.items() if not np.isfinite(values).all()]
    assert diverged
    assert all(name.endswith("-0") for name in diverged)  # no further fold was tried
    assert found.settings == given
    assert found.of_folds == [given, given]
    np.testing.assert_array_equal(found.searched.scores, found.given.scores)
    assert np.isfinite(found.searched.scores).all()


def test_values_given_widen_the_space():
    space = SearchSettings().space(TrainSettings(kind="specified", learning_rate=0.5, width=96))
    assert list(space) == list(SPACE["specified"])
    assert space["learning_rate"] == Range(1e-4, 0.5)
    assert space["width"] == Choice((32, 64, 96, 128, 256))
    assert SearchSettings(only=("components",)).space(TrainSettings(components=100)) == {"components": Range(8, 100)}


@pytest.mark.parametrize(
    ("settings", "only", "said"),
    [
        ({"form": "vector"}, (), "vector form leaves nothing to search"),
        ({}, ("dropout_rate",), "bilinear model: it has components, ridge_components"),
        ({"kind": "specified"}, ("width", "components"), "search.only names components"),
    ],
)
def test_a_search_with_nothing_to_choose_is_refused(settings, only, said):
    with pytest.raises(TrainingError, match=said):
        SearchSettings(only=only).space(TrainSettings(**settings))


def test_too_few_people_are_refused():
    clips, labels, subjects = drawn(19, signal=True)
    with pytest.raises(TrainingError, match="at least 20 people to tell settings apart, there are 19"):
        searched(clips, labels, subjects, TrainSettings(), SearchSettings(trials=2))

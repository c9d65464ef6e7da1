"""Choosing settings by people whom a training has not seen, and measuring the choice on people who had no part in it.

The best of many trials looks better than it is, for chance helped to make it the best. So the whole search is repeated
without the people of each outer fold, and a model with the settings that it chooses scores them. These scores tell what
the search is worth; the settings to keep come from a search among everyone. In each search, inner folds of its people
measure a trial, and a tree-structured Parzen estimator draws the next one.

Sources:
    Varma and Simon 2006, "Bias in error estimation when using cross-validation for model selection", BMC
    Bioinformatics 7.
    Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", NeurIPS.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import optuna

from fusion.clips.sources import ClipSource, clips_of
from fusion.errors import TrainingError
from fusion.labels.split import folds_by_subject
from fusion.model.scoring import predict
from fusion.settings import TrainSettings
from fusion.training.space import Choice, Range, SearchSettings
from fusion.training.train import OutOfFold, Trained, train
from fusion.traits import TRAITS

UNPRUNED_TRIALS = 5  # whose median later trials have to reach after each inner fold

Select = Callable[[np.ndarray], ClipSource]
"""Returns some of N clips, by their numbers, as a source that numbers them from 0."""

Keep = Callable[[str, Callable[[], np.ndarray]], np.ndarray]
"""Returns the array kept under a name, or else makes it, which takes one training, and keeps it."""


@dataclass(frozen=True, slots=True)
class TrialReport:
    """The argument of `on_trial`: search and trial, from 1; and the gain of the best trial before, at first -inf."""

    search: int
    trial: int
    best: float


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search has found.

    Attributes:
        settings: the best trial among everyone.
        of_folds: the best trial without the people of each outer fold.
        searched: scores of each outer fold by a model with the settings chosen without it.
        given: scores of each outer fold by a model with the settings given.
    """

    settings: TrainSettings
    of_folds: list[TrainSettings]
    searched: OutOfFold
    given: OutOfFold


def search(
    select: Select,
    labels: np.ndarray,
    subjects: Sequence[str],
    settings: TrainSettings,
    options: SearchSettings,
    keep: Keep,
    on_trial: Callable[[TrialReport], None] | None = None,
) -> Found:
    """Search among everyone, and without each outer fold of people.

    The same arguments give the same result on the same machine, however much of it is kept already: each draw depends
    on the seed and the trials before it.

    Args:
        select: of N clips.
        labels: float32 [N, 5], trait order.
        subjects: the person in each clip.
        settings: those given: the first trial of every search, which only a better one replaces.
        options: of the search, with a number of trials.
        keep: for these clips, labels, subjects, settings and options, but for the number of trials.

    Raises:
        TrainingError: see `SearchSettings.check`; or the given settings cannot be trained.
    """
    best = search_one(select, labels, subjects, settings, options, keep, 0, on_trial)[0]
    folds = folds_by_subject(subjects, options.folds, settings.seed)
    of_folds = []
    searched, given, mean = (np.empty(labels.shape) for _ in range(3))
    for fold in range(folds.max() + 1):
        held_out = folds == fold
        chosen, *own = search_one(select, labels, subjects, settings, options, keep, fold + 1, on_trial)
        of_folds.append(chosen)
        searched[held_out], given[held_out] = own
        mean[held_out] = labels[~held_out].mean(axis=0)
    return Found(best, of_folds, OutOfFold(searched, mean, folds), OutOfFold(given, mean, folds))


def search_one(
    select: Select,
    labels: np.ndarray,
    subjects: Sequence[str],
    settings: TrainSettings,
    options: SearchSettings,
    keep: Keep,
    number: int,
    on_trial: Callable[[TrialReport], None] | None = None,
) -> tuple[TrainSettings, *tuple[np.ndarray, ...]]:
    """Do one of the searches that `search` consists of, which do not depend on each other.

    Args:
        number: 0: among everyone; n up to `options.folds`: without fold n - 1 of people.

    Returns:
        The settings chosen; and, of a fold, scores of its clips with these and with the settings given.

    Raises:
        TrainingError: see `search`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options.check(settings, len(set(subjects)))
    everyone = _Clips(select, labels, subjects, np.arange(len(labels)))
    searches = _Searches(settings, options, options.space(settings), keep, on_trial)
    if number == 0:
        return (searches.best(everyone, 0),)
    held_out = folds_by_subject(subjects, options.folds, settings.seed) == number - 1
    chosen = searches.best(everyone.part(~held_out), number)
    scores = [
        keep(f"scores-{number}-{_digest(tried)}", partial(everyone.scores_out_of_fold, held_out, tried))
        for tried in (chosen, settings)
    ]
    return chosen, *scores


class _Clips:
    """Some of all clips, with their labels and people."""

    def __init__(self, select: Select, labels: np.ndarray, subjects: Sequence[str], rows: np.ndarray) -> None:
        self._select, self._all_labels, self._all_subjects, self._rows = select, labels, subjects, rows
        self.labels = labels[rows]
        self.subjects = [subjects[row] for row in rows.tolist()]

    def part(self, chosen: np.ndarray) -> _Clips:
        """Return the chosen ones, bool [n]."""
        return _Clips(self._select, self._all_labels, self._all_subjects, self._rows[chosen])

    def train(self, settings: TrainSettings) -> Trained:
        """Train a model on them."""
        return train(self._select(self._rows), self.labels, self.subjects, settings)

    def scores_out_of_fold(self, held_out: np.ndarray, settings: TrainSettings) -> np.ndarray:
        """Return scores of those held out, bool [n], by a model of the others: float32 [held out, 5]."""
        model = self.part(~held_out).train(settings).model
        source = self._select(self._rows[held_out])
        scores = np.empty((len(source), len(TRAITS)), np.float32)
        scores[np.concatenate(source.groups())] = predict(model, (clip for _, clip in clips_of(source)))
        return scores

    def errors(self, settings: TrainSettings, held_out: np.ndarray | None) -> np.ndarray:
        """Return the summed squared errors of scores and of the mean label, float64 [2, 5], by trait.

        They are those of the clips held out; None: of all clips, by a bilinear model's own folds.
        """
        if held_out is not None:
            scores, labels = self.scores_out_of_fold(held_out, settings), self.labels[held_out]
            mean = self.labels[~held_out].mean(axis=0)
        else:
            labels, own = self.labels, self.train(settings).out_of_fold
            if own is None:
                raise TrainingError("too few people for scores out of fold")
            scores, mean = own.scores, own.mean
        return np.stack([np.square(labels - expected).sum(axis=0, dtype=np.float64) for expected in (scores, mean)])


@dataclass(frozen=True, slots=True)
class _Searches:
    """Searches of the same kind among different people."""

    settings: TrainSettings
    options: SearchSettings
    space: Mapping[str, Range | Choice]
    keep: Keep
    on_trial: Callable[[TrialReport], None] | None

    def best(self, clips: _Clips, number: int) -> TrainSettings:
        """Return the best settings for some clips; `number`, from 0, tells one search from another."""
        distributions = {name: _distribution(values) for name, values in self.space.items()}
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS))
        study.enqueue_trial({name: getattr(self.settings, name) for name in self.space})
        chosen, best = self.settings, -math.inf
        for done in range(self.options.trials or 0):
            if self.on_trial is not None:
                self.on_trial(TrialReport(number + 1, done + 1, best))
            # a seed for each trial, so that a search draws the same whether its trials were kept or not
            seed = np.random.SeedSequence((self.settings.seed, number, done)).generate_state(1)[0]
            study.sampler = optuna.samplers.TPESampler(seed=int(seed))
            trial = study.ask(distributions)
            tried = self._with(trial.params)
            gain = self._gain(clips, tried, f"search-{number}-{_digest(tried)}", trial)
            if gain is None:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
            study.tell(trial, gain)
            if gain > best:
                chosen, best = tried, gain
        return chosen

    def _with(self, drawn: Mapping[str, float]) -> TrainSettings:
        """Return the given settings with drawn ones, which two digits describe; a given value stays as it is."""
        rounded = {name: float(f"{value:.2g}") if isinstance(value, float) else value for name, value in drawn.items()}
        kept = {name for name, value in drawn.items() if value == getattr(self.settings, name)}
        return self.settings.model_copy(update={name: rounded[name] for name in drawn if name not in kept})

    def _gain(self, clips: _Clips, tried: TrainSettings, name: str, trial: optuna.Trial) -> float | None:
        """Return the share of the mean's squared error that settings save out of fold, mean over traits.

        None if they cannot be trained, or are worse on the first folds than half of the earlier trials.
        """
        parts = self.options.parts(tried.kind)
        folds = folds_by_subject(clips.subjects, parts, tried.seed) if parts > 1 else None
        error, error_of_mean = np.zeros((2, len(TRAITS)))
        for part in range(parts):
            make = partial(self._errors, clips, tried, None if folds is None else folds == part)
            own, own_of_mean = self.keep(f"{name}-{part}", make)
            error, error_of_mean = error + own, error_of_mean + own_of_mean
            gain = 1 - float(np.mean(error / np.maximum(error_of_mean, 1e-12)))
            if not math.isfinite(gain):
                return None
            trial.report(gain, part)
            if part < parts - 1 and trial.should_prune():
                return None
        return gain

    def _errors(self, clips: _Clips, tried: TrainSettings, held_out: np.ndarray | None) -> np.ndarray:
        try:
            return clips.errors(tried, held_out)
        except TrainingError:
            if tried == self.settings:
                raise
            return np.full((2, len(TRAITS)), math.nan)  # such as a step size at which the loss is no longer finite


def _distribution(values: Range | Choice) -> optuna.distributions.BaseDistribution:
    if isinstance(values, Choice):
        return optuna.distributions.CategoricalDistribution(values)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return optuna.distributions.IntDistribution(values.low, values.high, log=values.log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)


def _digest(settings: TrainSettings) -> str:
    return hashlib.sha256(json.dumps(settings.effective).encode()).hexdigest()[:16]

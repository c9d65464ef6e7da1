"""The settings that `traitline train --search` chooses, apart from the search, which needs Keras."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, Field

from fusion.errors import TrainingError
from fusion.settings import Kind, TrainSettings

LEAST_PEOPLE = 20  # fewer do not tell one setting from another


class Range(NamedTuple):
    """Values from `low` to `high`, both included; whole numbers if both are."""

    low: float
    high: float
    log: bool = True

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    @property
    def number(self) -> float:
        """Number of values."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return self.high - self.low + 1 if whole else math.inf


class Choice(tuple[float, ...]):
    """A few values, ascending."""

    def __str__(self) -> str:
        return f"{', '.join(f'{value:g}' for value in self[:-1])} or {self[-1]:g}"

    @property
    def number(self) -> float:
        """Number of values."""
        return len(self)


SPACE: Mapping[Kind, Mapping[str, Range | Choice]] = {
    "bilinear": {"components": Range(8, 64), "ridge_components": Range(4, 32)},
    "specified": {
        "learning_rate": Range(1e-4, 1e-2),
        "weight_decay": Choice((0, 1e-3, 1e-2, 1e-1)),
        "dropout_rate": Range(0.0, 0.6, log=False),
        "width": Choice((32, 64, 128, 256)),
    },
}
"""The settings of each kind of model that a search chooses, with their values."""

_SPACE_IN_WORDS = "; ".join(
    f"{kind}: {', '.join(f'{name} ({values})' for name, values in space.items())}" for kind, space in SPACE.items()
)


class SearchSettings(BaseModel, frozen=True, extra="forbid"):
    """How a training chooses its own settings."""

    trials: int | None = Field(
        None,
        ge=2,
        description="Settings to try before a model is trained, the given ones first (count); null: none, the model is "
        "trained with the given ones.",
    )
    only: tuple[str, ...] = Field(
        (), description=f"Names of the settings to choose; empty: all of the model's kind. {_SPACE_IN_WORDS}."
    )
    folds: int = Field(
        3,
        ge=2,
        description="Parts of the people that measure the search; each is scored with the settings that a search among "
        "the other people has chosen (count).",
    )
    inner_folds: int = Field(
        3,
        ge=2,
        description="Parts of the people on which a specified model is tried in turn (count). One training of a "
        "bilinear model tries it on train.folds parts.",
    )

    def parts(self, kind: Kind) -> int:
        """Return the number of trainings that try one setting."""
        return self.inner_folds if kind == "specified" else 1

    def most_trainings(self, kind: Kind) -> int:
        """Return the number of trainings of a search in which no trial ends early and none is drawn twice."""
        trials = 0 if self.trials is None else self.trials
        return (1 + self.folds) * trials * self.parts(kind) + 2 * self.folds

    def space(self, train: TrainSettings) -> dict[str, Range | Choice]:
        """Return the settings to choose, with their values and those given. Raises TrainingError if there are none."""
        if train.kind == "bilinear" and train.form == "vector":
            raise TrainingError(
                "a bilinear model in vector form leaves nothing to search: train without --search, or set "
                "train.form=sequence or train.kind=specified"
            )
        known = SPACE[train.kind]
        if foreign := [name for name in self.only if name not in known]:
            raise TrainingError(
                f"search.only names {', '.join(foreign)}, which leaves nothing to search in a {train.kind} model: it "
                f"has {', '.join(known)}"
            )
        return {name: _with(known[name], getattr(train, name)) for name in (self.only if self.only else known)}

    def check(self, train: TrainSettings, people: int) -> None:
        """Check, before anything is trained, that a search makes sense.

        Args:
            train: the settings given.
            people: in the labelled clips.

        Raises:
            TrainingError: there is nothing to choose, there are more trials than settings, or too few people.
        """
        ways = math.prod(values.number for values in self.space(train).values())
        if self.trials is not None and self.trials > ways:
            raise TrainingError(
                f"there are only {ways} settings to try: give --search {ways} or fewer, or more names in search.only"
            )
        if people < LEAST_PEOPLE:
            raise TrainingError(
                f"a search needs labelled clips of at least {LEAST_PEOPLE} people to tell settings apart, there are "
                f"{people}: add labels or videos, or train without --search"
            )
        # a fold of one person says nothing about people
        inner = ("search.inner_folds", self.inner_folds) if train.kind == "specified" else ("train.folds", train.folds)
        for name, folds, of in (
            ("search.folds", self.folds, people),
            (*inner, people * (self.folds - 1) // self.folds),
        ):
            if of < 2 * folds:
                raise TrainingError(f"{name} is {folds}, which leaves parts of fewer than two of {of} people: lower it")


def _with(values: Range | Choice, given: float) -> Range | Choice:
    if isinstance(values, Range):
        return values._replace(low=min(values.low, given), high=max(values.high, given))
    return Choice(sorted({*values, given}))

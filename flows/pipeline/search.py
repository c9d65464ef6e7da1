"""The search for training settings, `traitline train --search`: its trainings are kept, and its choice is judged."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.archive.clips import StoredClips
from flows.archive.families import Families
from flows.archive.model_quality import MEASURES
from flows.config.settings import RunConfig
from flows.engine.choice import open_engine
from flows.engine.engine import Course, Work
from flows.session import console
from flows.session.environment import restrict_access, settle_environment
from fusion.clips.sources import ClipsInMemory, ClipSource, KeptClips, clips_of
from fusion.evaluation.unseen import measure_unseen
from fusion.settings import TrainSettings
from storage.files.commit import commit_file
from storage.files.paths import StorePath

if TYPE_CHECKING:
    from fusion.training.search import Found, TrialReport
    from fusion.training.train import OutOfFold

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """The result of a search.

    Attributes:
        settings: to train with: those found, or those given if these are not worse beyond chance.
        out_of_fold: scores of all clips by models whose settings were chosen in the same way, without these people.
        facts: JSON values for the model's metadata, see `search_settings`.
    """

    settings: TrainSettings
    out_of_fold: OutOfFold
    facts: dict[str, Any]


def search_settings(
    config: RunConfig,
    families: Families,
    videos: Sequence[str],
    labels: np.ndarray,
    subjects: Sequence[str],
    identity: str,
    on_change: Callable[[int, int, int], None] | None,
) -> Searched:
    """Search for settings; every training is kept in STORE/runs, so that an interrupted search continues.

    Args:
        config: settings, of which `search` and `train` count.
        videos: N videos with features.
        labels: float32 [N, 5].
        subjects: the person in each.
        identity: SHA-256 of videos, features and labels.
        on_change: see `flows.session.console.stage`.

    Returns:
        What to train with. Its facts are "trials", "folds", "trainings" (the most that it could take), "space" (values
        in words by setting), "found", "given" and "of_folds" (values by setting), "kept" ("found" or "given"),
        "unseen" (mean over traits of each of MEASURES with its interval, for "found" and "given") and "gain" (the share
        of the squared error with the given settings that the choices of the search save, with a 90% interval).

    Raises:
        fusion.errors.TrainingError: see `fusion.training.search.search`.
        StoreError: the results cannot be kept.
    """
    from fusion.training.search import search  # Keras takes seconds to import

    options, train = config.search, config.train
    options.check(train, len(set(subjects)))
    trainings = options.most_trainings(train.kind)
    folder = config.store.path / "runs" / f"search-{_key(config, identity)[:16]}"
    there = _listed(folder)
    before = len(there)
    each = f" x {options.inner_folds} inner folds" if options.parts(train.kind) > 1 else ""
    console.say(
        f"Search: {options.trials} trials{each} x {1 + options.folds} searches, among everyone and without each of "
        f"{options.folds} folds of people: at most {trainings} trainings of up to "
        f"{console.counted(len(videos), 'clip')}{f', of which {folder} has {before}' if there else ''}"
    )
    with console.stage("Search", max(trainings - before, 1), on_change, may_end_early=True) as stage:
        keep = _Kept(folder, there, trainings, stage)

        def show(report: TrialReport) -> None:
            best = f", best {report.best:.3f}" if np.isfinite(report.best) else ""
            stage.at(
                len(keep.there) - before,
                title=f"Search {report.search} of {1 + options.folds}, trial {report.trial}{best}",
            )

        if config.runner == "dask":
            searching = partial(_open_searching, config, families, videos, labels, subjects, folder)
            with open_engine(config) as engine:
                engine.run(searching, range(1 + options.folds), lambda *_: None, on_progress=lambda *_: stage.advance())
            keep = _Kept(folder, _listed(folder), trainings, stage)
        found = search(_selection(config, families, videos), labels, subjects, train, options, keep, show)
    return _judged(config, found, labels, subjects)


def _key(config: RunConfig, identity: str) -> str:
    """Return the SHA-256 of everything that a search depends on, except its length: a longer one continues it."""
    facts = [
        identity,
        config.train.effective,
        config.search.model_dump(mode="json", exclude={"trials"}),
        {name: str(values) for name, values in config.search.space(config.train).items()},
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@contextmanager
def _open_searching(
    config: RunConfig,
    families: Families,
    videos: Sequence[str],
    labels: np.ndarray,
    subjects: Sequence[str],
    folder: StorePath,
) -> Iterator[Work[int, None]]:
    """Open the work on one search of several, in another process: its trainings are kept, and nothing is returned."""
    settle_environment()
    restrict_access(config.store.path)
    from fusion.training.search import search_one

    select = _selection(config, families, videos)

    def search_with(number: int, course: Course) -> None:
        keep = _Kept(folder, _listed(folder), 0, None)

        def make_and_tell(name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
            course.check()
            made, kept = keep.made, keep(name, make)
            if keep.made > made:
                course.progress(keep.made, 0)
            return kept

        search_one(select, labels, subjects, config.train, config.search, make_and_tell, number)

    yield search_with


def _listed(folder: StorePath) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name[0] != "."} if folder.is_dir() else set()


class _Kept:
    """Arrays in a folder, each of which takes a training to make.

    Attributes:
        there: names of those that are kept.
        made: how many of them this object has made.
    """

    def __init__(self, folder: StorePath, there: set[str], trainings: int, stage: console.Stage | None) -> None:
        self._folder, self.there, self._trainings, self._stage = folder, there, trainings, stage
        self.made = 0

    def __call__(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        path = self._folder / f"{name}.npy"
        if path.name in self.there and (kept := _read(path)) is not None:
            return kept
        started_s = time.monotonic()
        made = make()
        with commit_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, made)
        self.made += 1
        if self._stage is not None:
            self._stage.advance()
        if self.made == 1 and self._trainings:
            left_s = (time.monotonic() - started_s) * (self._trainings - len(self.there) - 1)
            console.say(f"Search: about {console.span(left_s)} left, by the first training")
        self.there.add(path.name)
        return made


def _read(path: StorePath) -> np.ndarray | None:
    """Return a kept array; None, with a line in the log, if it is damaged."""
    try:
        with path.open("rb") as file:
            kept: np.ndarray = np.load(file, allow_pickle=False)
            return kept
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s is damaged and is computed again: %s", path, error)
        return None


def _selection(config: RunConfig, families: Families, videos: Sequence[str]) -> Callable[[np.ndarray], ClipSource]:
    """Return a function that selects clips, from memory if all of them fit."""
    stored = StoredClips(config.store.path, families, videos)
    kept = KeptClips(config.train.memory_mb * 2**20)
    for _ in kept.pass_on(clips_of(stored)):
        pass
    source = kept.instead_of(stored)
    if source is stored:
        return lambda rows: StoredClips(config.store.path, families, [videos[row] for row in rows])
    return lambda rows: ClipsInMemory(source.read(rows))


def _judged(config: RunConfig, found: Found, labels: np.ndarray, subjects: Sequence[str]) -> Searched:
    """Decide between the settings found and those given."""
    options, space = config.search, config.search.space(config.train)
    folds = found.given.folds
    gain = measure_unseen(found.searched.scores, labels, subjects, mean=found.given.scores, folds=folds)["gain"]
    better = gain["low"] is not None and gain["low"] > 0 and found.settings != config.train
    unseen = {
        which: measure_unseen(own.scores, labels, subjects, mean=own.mean, folds=own.folds)
        for which, own in (("found", found.searched), ("given", found.given))
    }

    def values(settings: TrainSettings) -> dict[str, float]:
        return {name: getattr(settings, name) for name in space}

    facts = {
        "trials": options.trials,
        "folds": options.folds,
        "trainings": options.most_trainings(config.train.kind),
        "space": {name: str(setting) for name, setting in space.items()},
        "found": values(found.settings),
        "given": values(config.train),
        "of_folds": [values(settings) for settings in found.of_folds],
        "kept": "found" if better else "given",
        "unseen": {which: {name: own[name]["mean"] for name in MEASURES} for which, own in unseen.items()},
        "gain": gain,
    }
    if better:
        return Searched(found.settings, found.searched, facts)
    return Searched(config.train, found.given, facts)

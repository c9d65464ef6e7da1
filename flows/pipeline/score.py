"""The flows `score` and `rescore`: trait scores for all cached features that a model has not scored yet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from flows.archive.drift import Drift, drifts_of
from flows.archive.families import Families, families_of, networks_of, stored_families
from flows.archive.models import ModelReference, check_features
from flows.archive.outcomes import without_features
from flows.archive.videos import Archive, known_videos
from flows.config.settings import RunConfig
from flows.engine.choice import open_engine
from flows.engine.engine import RETRIES, Engine, OpenWork
from flows.pipeline.announce import Pages
from flows.pipeline.steps import step
from flows.scoring import worklist
from flows.scoring.worker import open_scoring
from flows.session import console
from storage.leases.leases import Leases
from storage.models.serializer import ModelSerializer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RescoreReport:
    """The result of scoring an archive again: the number of new scores, and how they compare with earlier ones."""

    model: ModelReference
    scored_now: int
    drifts: list[Drift]


@step("score")
def score(config: RunConfig, videos: Archive, model: ModelReference) -> int:
    """Score the videos that have features, except those that this model version has scored from these features.

    Returns:
        Number of videos scored now.

    Raises:
        UserError: the model was trained on other features.
    """
    families = families_of(config)
    metadata = ModelSerializer(config.store.path).metadata(model.name, model.version)
    check_features(model, metadata, families, networks_of(config))
    return _score(config, families, config.weights, videos, model)


@step("rescore")
def rescore(config: RunConfig, model: ModelReference) -> RescoreReport:
    """Score everything in the store that this model version has not scored, from the features that it was trained on.

    Needs neither videos nor extractors' weights, and ignores the settings of extraction. Scores of other versions stay.

    Raises:
        UserError: the store has no such features.
    """
    metadata = ModelSerializer(config.store.path).metadata(model.name, model.version)
    families = stored_families(config.store.path, metadata)
    count = _score(config, families, metadata["weights"], known_videos(config.store.path, families), model)
    return RescoreReport(model, count, drifts_of(config.store.path, model))


def _score(config: RunConfig, families: Families, weights: str, videos: Archive, model: ModelReference) -> int:
    started = datetime.now(UTC)
    root = config.store.path
    unscored = worklist.Unscored(root, families, videos, model)
    if not unscored.left:
        if unscored.some_scored:
            console.say(f"Score: {model} has already scored all videos with features; nothing to score")
        else:
            console.say(f"Score: nothing to score: {without_features(root, families, videos)}", style="yellow")
        return 0
    with (
        open_engine(config) as engine,
        Leases(root, f"score-{model.name}-{model.version}") as leases,
        console.stage("Score", unscored.left, Pages().progress("Score")) as stage,
    ):
        count = score_unscored(
            unscored, leases, stage, engine, partial(open_scoring, config, families, weights, model, started)
        )
    log.info("Score: %s scored with %s", console.counted(count, "video"), model)
    return count


def score_unscored(
    unscored: worklist.Unscored,
    leases: Leases,
    stage: console.Stage,
    engine: Engine,
    open_work: OpenWork[tuple[str, ...], int],
) -> int:
    """Claim stretch after stretch of videos, and have them scored, until all are, by this run or others.

    Args:
        leases: open.
        open_work: opens the work on the videos of one commit.

    Returns:
        The number of videos that this run has scored.
    """
    total, count = unscored.left, 0
    at_work: set[tuple[str, ...]] = set()

    def commits() -> Iterator[tuple[str, ...] | None]:
        waiting = False
        while True:
            stretch = list(leases.claim(partial(unscored.choose, engine.workers)))
            show()
            if not unscored.left:
                return
            if not stretch and not waiting:
                console.say("Score: waiting for videos that other runs are scoring")
            waiting = not stretch
            for first in range(0, len(stretch), worklist.CLIPS_PER_COMMIT):
                some = tuple(stretch[first : first + worklist.CLIPS_PER_COMMIT])
                at_work.add(some)
                yield some
            while at_work:
                yield None
            leases.release()
            if waiting:
                yield None

    def show() -> None:
        stage.at(total - unscored.left)

    def on_result(some: tuple[str, ...], scored: int) -> None:
        nonlocal count
        count += scored
        if scored:
            unscored.committed()
        on_failure(some)
        show()

    def on_failure(some: tuple[str, ...]) -> None:
        at_work.remove(some)
        unscored.remove(some)

    engine.run(open_work, commits(), on_result, on_failure=on_failure, retries=RETRIES)
    return count

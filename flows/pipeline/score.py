"""The flows `score` and `rescore`: trait scores for all cached features that a model has not scored yet."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extractors.faces.quality import QUALITY
from flows.archive.clips import ClipFacts, joined_clips, ready_rows
from flows.archive.drift import Drift, drifts_of
from flows.archive.families import Families, families_of, networks_of, stored_families
from flows.archive.models import ModelReference, check_features, load_model
from flows.archive.outcomes import without_features
from flows.archive.uncertainty import quality_of, stored_uncertainty
from flows.archive.videos import Archive, known_videos
from flows.config.settings import RunConfig
from flows.engine.engine import RETRIES, Course, Engine, OpenWork, Work, open_engine
from flows.pipeline.announce import Pages
from flows.pipeline.steps import step
from flows.session import console
from flows.session.environment import restrict_access
from fusion.clips.tokens import ClipTokens
from fusion.uncertainty.intervals import Judged
from storage.files.paths import StorePath
from storage.leases.leases import Leases
from storage.models.serializer import ModelSerializer
from storage.shards.store import FeatureStore
from storage.tables.in_step import VIDEOS, InStep, have_digests
from storage.tables.scores import SCORE_SCHEMA, ScoreStore

log = logging.getLogger(__name__)

CLIPS_PER_COMMIT = 4096


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
    unscored = Unscored(root, families, videos, model)
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
            unscored, leases, stage, engine, partial(_open_scoring, config, families, weights, model, started)
        )
    log.info("Score: %s scored with %s", console.counted(count, "video"), model)
    return count


class Unscored:
    """The videos that a version of a model has not scored from their present features, by any run.

    Attributes:
        some_scored: whether others have been scored.
    """

    def __init__(self, root: StorePath, families: Families, videos: Archive, model: ModelReference) -> None:
        self._table = ScoreStore(root).table(model.name, model.version)
        self._keys = {"static_key": families.static.key, "dynamic_key": families.dynamic.key}
        self._videos = videos
        store = FeatureStore(root)
        self._version, scored = self._table.version(), self._scored()
        self.some_scored = bool(scored.any())
        rows, shards, first = [], [], 0
        for batch, ready in zip(videos.columns, ready_rows(root, families, videos), strict=True):
            chosen = np.flatnonzero(ready & ~scored[first : first + len(batch)])
            rows.append(first + chosen)
            names = batch["video_id"].to_pylist()
            shards.append(store.shard_numbers(families.static, [str(names[row]) for row in chosen]))
            first += len(batch)
        order = np.concatenate(shards)
        # Rows of the archive in the order of the videos' shards, and which of them are left.
        self._rows = np.concatenate(rows)[np.argsort(order, kind="stable")[np.count_nonzero(order < 0) :]]
        self._is_left = np.ones(len(self._rows), bool)
        self._places: dict[str, int] = {}  # in `_rows`, of the videos of the last stretch

    @property
    def left(self) -> int:
        """Return the number of videos that are left."""
        return int(self._is_left.sum())

    def choose(self, workers: int, claimed: Set[str]) -> dict[str, int]:
        """Choose the next stretch of videos that no run has claimed: a quarter of what is left, within bounds.

        A stretch has a commit for each worker at least, and 16 at most.
        """
        if self._table.version() != self._version:  # another run has committed scores
            self._version = self._table.version()
            self._is_left &= ~self._scored()[self._rows]
        commits = min(16 * workers, max(workers, -(-self.left // (4 * CLIPS_PER_COMMIT))))
        places = np.flatnonzero(self._is_left)
        parts = np.split(places, range(CLIPS_PER_COMMIT, len(places), CLIPS_PER_COMMIT))
        named = (zip(self._videos.ids(self._rows[part]), part.tolist(), strict=True) for part in parts)
        free = (video for video in chain.from_iterable(named) if video[0] not in claimed)
        self._places = dict(islice(free, commits * CLIPS_PER_COMMIT))
        return self._places

    def remove(self, videos: Iterable[str]) -> None:
        """Note that some videos of the last stretch have been scored, or given up."""
        self._is_left[[self._places[video_id] for video_id in videos]] = False

    def committed(self) -> None:
        """Note a commit of this run."""
        self._version += 1

    def _scored(self) -> np.ndarray:
        """Read which videos of the archive have a score from these features of their present files, bool [N]."""
        of_keys = (
            rows.filter(pc.and_(*(pc.equal(rows[name], pa.scalar(key)) for name, key in self._keys.items())))
            for rows in self._table.newest(columns=[*VIDEOS.names, *self._keys])
        )
        scored = InStep((rows.select(VIDEOS.names) for rows in of_keys), VIDEOS)
        parts = [have_digests(batch, scored.up_to(batch["video_id"][-1])) for batch in self._videos.columns]
        return np.concatenate(parts)


def score_unscored(
    unscored: Unscored,
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
            for first in range(0, len(stretch), CLIPS_PER_COMMIT):
                some = tuple(stretch[first : first + CLIPS_PER_COMMIT])
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


@contextmanager
def _open_scoring(
    config: RunConfig, families: Families, weights: str, model: ModelReference, started: datetime
) -> Iterator[Work[tuple[str, ...], int]]:
    """Open the work on some videos: score them in one commit, and return how many still had features."""
    from fusion.model.scoring import predict  # Keras takes seconds to import

    restrict_access(config.store.path)
    store, scores = FeatureStore(config.store.path), ScoreStore(config.store.path)
    network, metadata = load_model(config.store.path, str(model))
    uncertainty = stored_uncertainty(config.uncertainty, metadata)

    def score_some(videos: tuple[str, ...], _: Course) -> int:
        facts: list[ClipFacts] = []

        def tokens() -> Iterator[ClipTokens]:
            for clip in joined_clips(store, families, videos):
                facts.append(clip.facts)
                yield clip.tokens

        traits = predict(network, tokens())
        if facts:
            judged = uncertainty.judge(traits, quality_of(facts))
            scores.write_table(
                model.name, model.version, _score_table(facts, traits, judged, families, weights, started)
            )
        return len(facts)

    yield score_some


def _score_table(
    facts: Sequence[ClipFacts], traits: np.ndarray, judged: Judged, families: Families, weights: str, started: datetime
) -> pa.Table:
    """Return the scores of clips as columns; row by row, this would take as long as reading the tokens."""
    known = {name: np.array([clip.quality.get(name, np.nan) for clip in facts]) for name in QUALITY}
    columns: dict[str, Any] = {
        "video_id": [clip.video_id for clip in facts],
        "video_sha256": [clip.sha256 for clip in facts],
        "traits": list(traits),
        "static_tokens": [clip.static_tokens for clip in facts],
        "dynamic_tokens": [clip.dynamic_tokens for clip in facts],
        "static_key": [families.static.key] * len(facts),
        "dynamic_key": [families.dynamic.key] * len(facts),
        "weights": [weights] * len(facts),
        "abstain": judged.abstain,
        "low": None if judged.low is None else list(judged.low.astype(np.float32)),
        "high": None if judged.high is None else list(judged.high.astype(np.float32)),
        "scored_at": [started.replace(microsecond=0)] * len(facts),
        **known,
    }
    for column in SCORE_SCHEMA:
        if columns[column.name] is None:
            columns[column.name] = pa.nulls(len(facts), column.type)
        elif column.name in known:  # counts too are floats in features; NaN is unknown
            values = known[column.name]
            whole = np.trunc(values) if pa.types.is_integer(column.type) else values
            columns[column.name] = pa.array(whole, from_pandas=True).cast(column.type)
    return pa.table(columns, schema=SCORE_SCHEMA)

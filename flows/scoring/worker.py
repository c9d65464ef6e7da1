"""The work on the videos of one commit, wherever it is done: score them from their features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from extractors.faces.quality import QUALITY
from flows.archive.clips import ClipFacts, joined_clips
from flows.archive.families import Families
from flows.archive.models import ModelReference, load_model
from flows.archive.uncertainty import quality_of, stored_uncertainty
from flows.config.settings import RunConfig
from flows.engine.engine import Course, Work
from flows.session.environment import restrict_access
from fusion.clips.tokens import ClipTokens
from fusion.uncertainty.intervals import Judged
from storage.shards.store import FeatureStore
from storage.tables.scores import SCORE_SCHEMA, ScoreStore


@contextmanager
def open_scoring(
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

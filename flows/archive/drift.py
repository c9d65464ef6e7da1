"""How scores have changed since the previous model version and since earlier runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from flows.archive.models import ModelReference
from flows.session.console import counted
from fusion.evaluation.drift import PSI_SHIFT, TraitDrift, measure_drift, psi_by_chance
from fusion.traits import TRAITS
from storage.files.paths import StorePath
from storage.models.serializer import ModelSerializer
from storage.tables.scores import ScoreStore


@dataclass(frozen=True, slots=True)
class Drift:
    """Two populations of scores.

    Args:
        previous: the earlier population in words: a model, or the videos of earlier runs.
        current: the later population.
        previous_videos, videos: number of scores in each.
    """

    previous: str
    current: str
    previous_videos: int
    videos: int
    traits: list[TraitDrift]


def drifts_of(root: str | StorePath, model: ModelReference) -> list[Drift]:
    """Compare a model's scores with those of the previous version that has any, and its last run's with earlier runs'.

    Returns:
        At most one comparison of each kind, in this order.
    """
    store = ScoreStore(root)
    scores = _population(store, model.name, model.version)
    if not len(scores.traits):
        return []
    drifts = []
    earlier = _scores_before(store, root, model)
    if earlier is not None:
        drifts.append(_compare(f"{model.name}/{earlier[0]}", earlier[1], str(model), scores))
    newest = scores.scored_at.max()
    last = scores.scored_at == newest
    if not last.all():
        time = datetime.fromtimestamp(int(newest), UTC)
        drifts.append(
            _compare(
                "videos of earlier runs",
                scores.subset(~last),
                f"those scored at {time:%Y-%m-%d %H:%M} UTC",
                scores.subset(last),
            )
        )
    return drifts


def drift_table(drift: Drift) -> Table:
    """Format a comparison as a table, with a row for each trait."""
    table = Table("trait", title=f"{drift.current} beside {drift.previous}")
    for heading in ("mean before", "mean now", "sd before", "sd now", "PSI", "KS", "rank correlation"):
        table.add_column(heading, justify="right")
    for row in drift.traits:
        rank = "-" if row.rank_correlation is None else f"{row.rank_correlation:.3f}"
        numbers = (row.previous_mean, row.mean, row.previous_sd, row.sd, row.psi, row.ks)
        table.add_row(row.trait, *(f"{number:.3f}" for number in numbers), rank)
    table.caption = (
        f"{counted(drift.previous_videos, 'video')} before, {drift.videos:,} now, {drift.traits[0].videos:,} in both. "
        "PSI: under 0.1 no shift, over 0.25 a large one."
    )
    chance = psi_by_chance(drift.previous_videos, drift.videos)
    if chance >= PSI_SHIFT:
        table.caption += f" With so few videos chance alone gives about {chance:.1f}: look at the means and at KS."
    return table


@dataclass(frozen=True, eq=False)
class _Population:
    """Scores of one model, kept compactly because archives have millions.

    Args:
        videos: int64 [N], a hash of each video's id and the digest of its bytes.
        traits: float32 [N, 5].
        scored_at: int64 [N], seconds since 1970; 0 if it was not recorded.
    """

    videos: np.ndarray
    traits: np.ndarray
    scored_at: np.ndarray

    def subset(self, chosen: np.ndarray) -> _Population:
        return _Population(self.videos[chosen], self.traits[chosen], self.scored_at[chosen])


def _population(store: ScoreStore, name: str, version: str) -> _Population:
    videos = [np.zeros(0, np.int64)]
    traits = [np.zeros((0, len(TRAITS)), np.float32)]
    times = [np.zeros(0, np.int64)]
    for rows in store.read_columns(name, version, ["video_id", "video_sha256", "traits", "scored_at"]):
        which = zip(rows["video_id"].to_pylist(), rows["video_sha256"].to_pylist(), strict=True)
        videos.append(np.fromiter(map(hash, which), np.int64, len(rows)))
        traits.append(pc.list_flatten(rows["traits"]).to_numpy().reshape(-1, len(TRAITS)))
        microseconds = rows["scored_at"].cast(pa.int64()).fill_null(pa.scalar(0)).to_numpy()
        times.append(microseconds // 10**6)
    return _Population(np.concatenate(videos), np.concatenate(traits), np.concatenate(times))


def _scores_before(store: ScoreStore, root: str | StorePath, model: ModelReference) -> tuple[str, _Population] | None:
    versions = ModelSerializer(root).versions(model.name)
    for version in reversed(versions[: versions.index(model.version)]):
        scores = _population(store, model.name, version)
        if len(scores.traits):
            return version, scores
    return None


def _compare(previous: str, before: _Population, current: str, now: _Population) -> Drift:
    _, *pairs = np.intersect1d(before.videos, now.videos, return_indices=True)
    traits = measure_drift(before.traits, now.traits, np.stack(pairs, axis=1))
    return Drift(previous, current, len(before.traits), len(now.traits), traits)

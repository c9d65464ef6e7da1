"""Scores by video, with the keys of the features behind them: a table in STORE/scores/<model>/<version>/."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.files.paths import StorePath, folders
from storage.layout import open_store, path_name
from storage.tables.table import Table

FOLDER = "scores"
TRAIT_COUNT = 5
_FIVE = pa.list_(pa.field("element", pa.float32(), nullable=False))  # Delta Lake has no lists of a fixed length


@dataclass(frozen=True, slots=True)
class Fact:
    """What a quality fact of a score means: its description, its unit, and its bounds, None for no bound."""

    description: str
    unit: str
    minimum: float = 0
    maximum: float | None = None


def _optional(fact: Fact) -> Any:
    """Declare a fact that older scores lack."""
    return field(default=None, metadata={"fact": fact})


@dataclass(frozen=True, slots=True)
class Score:
    """A model's prediction for one video.

    Each field with a `Fact` is a quality fact, which states its own meaning; shares and seconds are stored as float32.
    All but `face_coverage` are None if unknown.

    Args:
        video_id: POSIX path of the file relative to the videos folder, with its extension.
        video_sha256: SHA-256 of the file's bytes, in hex.
        traits: five finite numbers in the trait order; stored as float32.
        static_tokens: number of static tokens that the model saw.
        dynamic_tokens: number of dynamic tokens that the model saw.
        static_key: key of the static features' family.
        dynamic_key: key of the dynamic features' family.
        weights: the extractors' weights, "pretrained" or "random".
        abstain: space-separated codes of the reasons not to use the score; empty if there are none.
        low: lower bounds of the traits' intervals, stored as float32; None if the model has no calibration.
        high: upper bounds, likewise.
        scored_at: start of the run that computed the score, stored to the second; None in scores older than this field.

    Raises:
        ValueError: the number of traits or bounds is not five, only one bound is given, or a number is not finite.
    """

    video_id: str
    video_sha256: str
    traits: tuple[float, ...]
    face_coverage: float = field(
        metadata={"fact": Fact("Share of frames in which the main person's face was detected", "1", maximum=1)}
    )
    static_tokens: int
    dynamic_tokens: int
    static_key: str
    dynamic_key: str
    weights: str
    abstain: str = ""
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    scored_at: datetime | None = None
    face_gaps: int | None = _optional(
        Fact("Runs of frames without the main person's face, including those at either end", "count")
    )
    longest_gap_s: float | None = _optional(
        Fact("Duration of the longest run of frames without the main person's face", "s")
    )
    people: int | None = _optional(
        Fact(
            "People whose face was detected in at least 5% of the frames, together or one after the other",
            "count",
            minimum=1,
        )
    )
    others_share: float | None = _optional(
        Fact("Share of frames in which somebody else's face was detected", "1", maximum=1)
    )
    cuts: int | None = _optional(Fact("Changes from one shot to the next: hard cuts, jump cuts and dissolves", "count"))
    confirmed_share: float | None = _optional(
        Fact(
            "Share of up to 16 pictures of the main person's face that a second, independent detector also recognised "
            "as a face",
            "1",
            maximum=1,
        )
    )
    decoded_share: float | None = _optional(
        Fact(
            "Decoded share of the frames that the file promises, or of its duration; empty if it promises neither; "
            "frames before the first key frame do not count",
            "1",
            maximum=1,
        )
    )
    repeated_share: float | None = _optional(
        Fact(
            "Share of frames that repeat the one before because the file has no newer one: about 1 - frames per second "
            "/ 25 for slow sources, more if pictures are held; motion then comes in jumps",
            "1",
            maximum=1,
        )
    )

    @property
    def features(self) -> str:
        """Keys of the features that the score came from."""
        return f"static:{self.static_key} dynamic:{self.dynamic_key}"

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.video_id}: an interval needs both bounds")
        for name in _COUNTS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, int(value))
        if self.scored_at is not None:
            object.__setattr__(self, "scored_at", self.scored_at.astimezone(UTC).replace(microsecond=0))
        for name in (*_FLOATS, *_FIVES):
            if (value := getattr(self, name)) is None:
                continue
            # Rounded here rather than by the file, so that a score read back equals the score written.
            numbers = array("f", value if name in _FIVES else [value]).tolist()
            if name in _FIVES and len(numbers) != TRAIT_COUNT:
                raise ValueError(f"{self.video_id}: a score has {TRAIT_COUNT} traits, not {len(numbers)} ({name})")
            if not all(map(math.isfinite, numbers)):
                raise ValueError(f"{self.video_id}: scores, bounds and quality facts must be finite numbers")
            object.__setattr__(self, name, tuple(numbers) if name in _FIVES else numbers[0])


_ARROW_TYPES: dict[Any, pa.DataType] = {
    "str": pa.string(),
    "int": pa.int32(),
    "float": pa.float32(),
    "tuple[float, ...]": _FIVE,
    "datetime": pa.timestamp("us", tz="UTC"),
}


def _column(name: str, kind: str) -> pa.Field[Any]:
    return pa.field(name, _ARROW_TYPES[kind.removesuffix(" | None")], nullable=kind.endswith(" | None"))


SCORE_SCHEMA = pa.schema([_column(part.name, str(part.type)) for part in fields(Score)])
_COUNTS = [column.name for column in SCORE_SCHEMA if column.type == pa.int32()]
_FLOATS = [column.name for column in SCORE_SCHEMA if column.type == pa.float32()]
_FIVES = [column.name for column in SCORE_SCHEMA if column.type == _FIVE]
QUALITY_FACTS: dict[str, Fact] = {part.name: part.metadata["fact"] for part in fields(Score) if part.metadata}
"""The quality facts of a score, by name, in the order of the columns of an export."""


class ScoreStore:
    """All scores of a store.

    All methods raise StoreError if the folder is not a store, a table is damaged, or the operating system refuses, and
    ValueError if the name of a model or version cannot be a folder's.
    """

    def __init__(self, root: str | StorePath) -> None:
        self._scores = open_store(root) / FOLDER

    def write(self, model: str, version: str, rows: Iterable[Score]) -> None:
        """Commit scores, all or none. If a video has several scores, the latest one counts."""
        latest = list({row.video_id: row for row in rows}.values())
        columns = [pa.array(map(attrgetter(column.name), latest), column.type) for column in SCORE_SCHEMA]
        self.write_table(model, version, pa.Table.from_arrays(columns, schema=SCORE_SCHEMA))

    def write_table(self, model: str, version: str, scores: pa.Table) -> None:
        """Commit scores as columns, all or none; each video occurs once.

        Args:
            scores: with the schema `SCORE_SCHEMA`.

        Raises:
            ValueError: also if a number is not finite.
        """
        for name in (*_FLOATS, *_FIVES):
            numbers = pc.list_flatten(scores[name]) if name in _FIVES else scores[name]
            if not pc.all(pc.is_finite(numbers), min_count=0).as_py():
                raise ValueError(f"{name}: scores, bounds and quality facts must be finite numbers")
        self.table(model, version).append(scores)

    def read(self, model: str, version: str) -> Iterator[Score]:
        """Read the latest score of each video, sorted by video_id, with a part of them in memory at a time."""
        for rows in self.read_columns(model, version, SCORE_SCHEMA.names):
            for batch in rows.to_batches(max_chunksize=1024):
                yield from map(Score, *(column.to_pylist() for column in batch.columns))

    def read_columns(self, model: str, version: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read some columns of the same scores in the same order, in parts; names and types are those of `Score`."""
        return self.table(model, version).newest(columns=columns)

    def feature_keys(self) -> set[str]:
        """Return the keys of all features that any score was computed from."""
        keys: set[str] = set()
        for table in self.tables():
            for rows in table.scan(columns=["static_key", "dynamic_key"]):
                keys.update(str(key) for column in rows.columns for key in column.unique().to_pylist())
        return keys

    def tables(self) -> list[Table]:
        """Return the tables of all versions of all models."""
        return [_table(folder) for folder in folders(self._scores, "*/*")]

    def table(self, model: str, version: str) -> Table:
        """Return the table of one version of a model."""
        return _table(self._scores / path_name("model name", model) / path_name("model version", version))


def _table(folder: StorePath) -> Table:
    return Table(folder, SCORE_SCHEMA)

"""The columns of exports: name, type, meaning and range of each; and the rows of scores, one for each video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import pyarrow as pa

from storage.tables.scores import QUALITY_FACTS, SCORE_SCHEMA, TRAIT_COUNT, Fact, Score

R = TypeVar("R")

TIME = pa.timestamp("s", tz="UTC")
ROWS_AT_A_TIME = 512
_SCALE = "label scale, 0 to 1 for First Impressions"
_ADDED = "; empty in scores older than this column"


@dataclass(frozen=True, slots=True)
class Unscored:
    """A video without a score.

    Args:
        video_id: POSIX path of the file relative to the videos folder, with its extension.
        video_sha256: SHA-256 of the file's bytes, in hex; empty if they could not be read.
        reason: why there is no score, as a code in snake_case.
        features: keys of the features that a score would have come from.
    """

    video_id: str
    video_sha256: str
    reason: str
    features: str


Row = Score | Unscored


def in_order_once(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows again. Raises ValueError unless they ascend by video_id, with each video once."""
    previous = None
    for row in rows:
        if previous is not None and row.video_id <= previous:
            raise ValueError(f"rows must be in order of video_id, each once: {row.video_id!r} after {previous!r}")
        previous = row.video_id
        yield row


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """One column of an export.

    Args:
        name: in the header.
        type: string, float32, float64, int32 or `TIME`.
        value: returns a row's value, None for an empty cell; or the values of all rows that come from one object.
        description: for people.
        unit: of the numbers.
        minimum, maximum: bounds of the numbers; None if there is no bound.
        values: all possible values, if there are few.
        filled: whether every row has a value.
    """

    name: str
    type: pa.DataType
    value: Callable[[R], Any]
    description: str
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] | None = None
    filled: bool = False


def schema_of(columns: Sequence[Column[R]]) -> pa.Schema:
    """Return the schema of a table with these columns, with their descriptions."""
    return pa.schema(
        [pa.field(column.name, column.type, metadata={"description": column.description}) for column in columns]
    )


def trait_tables(rows: Iterable[Row], columns: Sequence[Column[Row]]) -> Iterator[pa.Table]:
    """Yield the rows as tables of at most `ROWS_AT_A_TIME` rows. Raises ValueError as `in_order_once`."""
    schema, waiting = schema_of(columns), in_order_once(rows)
    while some := list(islice(waiting, ROWS_AT_A_TIME)):
        arrays = [pa.array([column.value(row) for row in some], column.type) for column in columns]
        yield pa.table(arrays, schema=schema)


def trait_columns(trait_names: Sequence[str], model: str = "") -> tuple[Column[Row], ...]:
    """Return all columns in their order.

    Args:
        trait_names: names of the columns for the traits, in the trait order.
        model: that the scores come from, NAME/VERSION; not needed by callers that write no rows.

    Raises:
        ValueError: the number of names differs from that of the traits.
    """
    if len(trait_names) != TRAIT_COUNT:
        raise ValueError(f"there are {TRAIT_COUNT} traits for {len(trait_names)} columns")
    traits = [
        Column(
            name,
            pa.float32(),
            _part("traits", place),
            f"Apparent {name}: what viewers ascribe to the speaker, on the scale of the labels, not clipped to its "
            "range; empty without a score",
            _SCALE,
        )
        for place, name in enumerate(trait_names)
    ]
    bounds = [
        Column(
            f"{name}_{bound}",
            pa.float32(),
            _part(bound, place),
            f"{word} bound of the interval for {name}; empty if the model has no calibration",
            _SCALE,
        )
        for place, name in enumerate(trait_names)
        for bound, word in (("low", "Lower"), ("high", "Upper"))
    ]
    return (
        _text("video_id", lambda row: row.video_id, "Path relative to the videos folder", filled=True),
        *traits,
        *_MATERIAL,
        _text(
            "status",
            lambda row: "failed" if isinstance(row, Unscored) else "scored",
            "Whether there is a score",
            values=("scored", "failed"),
            filled=True,
        ),
        _text("reason", lambda row: getattr(row, "reason", ""), "Why there is no score, as a code; empty with a score"),
        _text("model", lambda _: model, "Model that made the score, NAME/VERSION", filled=True),
        _text("features", lambda row: row.features, "Keys of the features that the score came from"),
        _text(
            "weights",
            _of_score("weights"),
            "Weights of the feature networks; scores from random ones mean nothing",
            values=("pretrained", "random"),
        ),
        _text(
            "abstain",
            _of_score("abstain"),
            "Why the score should not be used, as codes separated by spaces; empty if there is no reason",
        ),
        *bounds,
        _text("video_sha256", lambda row: row.video_sha256, "SHA-256 of the video file's bytes, in hex"),
        Column("scored_at", TIME, _of_score("scored_at"), f"When the run that made the score began, in UTC{_ADDED}"),
    )


def _text(name: str, value: Callable[[Row], Any], description: str, **rest: Any) -> Column[Row]:
    return Column(name, pa.string(), value, description, **rest)


def _of_score(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row, name) if isinstance(row, Score) else None


def _part(name: str, place: int) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        values = getattr(row, name) if isinstance(row, Score) else None
        return None if values is None else values[place]

    return value


def _number(name: str, fact: Fact) -> Column[Row]:
    """Describe a number that a score holds under the same name."""
    field = SCORE_SCHEMA.field(name)
    description = f"{fact.description}{_ADDED}" if field.nullable else fact.description
    return Column(name, field.type, _of_score(name), description, fact.unit, fact.minimum, fact.maximum)


_MATERIAL = (
    *(_number(name, fact) for name, fact in QUALITY_FACTS.items()),
    _number("static_tokens", Fact("Face crops that the model saw", "count")),
    _number("dynamic_tokens", Fact("Windows of motion that the model saw", "count")),
)

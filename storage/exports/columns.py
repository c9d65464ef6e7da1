"""The columns of an export: name, type, meaning and range of each, stated once for CSV, Parquet and data dictionary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from storage.exports.rows import Row, Unscored
from storage.tables.scores import SCORE_SCHEMA, TRAIT_COUNT, Score

TIME = pa.timestamp("s", tz="UTC")
_SCALE = "label scale, 0 to 1 for First Impressions"
_ADDED = "; empty in scores older than this column"


@dataclass(frozen=True, slots=True)
class TraitColumn:
    """One column of an export.

    Args:
        name: in the header.
        type: string, float32, int32 or `TIME`.
        value: returns a row's value; None for an empty cell.
        description: what it means, for people.
        unit: of the numbers.
        minimum, maximum: bounds of the numbers; None if there is no bound.
        values: all possible values, if there are few.
        filled: whether every row has a value.
    """

    name: str
    type: pa.DataType
    value: Callable[[Row], Any]
    description: str
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] | None = None
    filled: bool = False


def trait_columns(trait_names: Sequence[str], model: str = "") -> tuple[TraitColumn, ...]:
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
        TraitColumn(
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
        TraitColumn(
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
        _text("status", _status, "Whether there is a score", values=("scored", "failed"), filled=True),
        _text("reason", _reason, "Why there is no score, as a code; empty with a score"),
        _text("model", lambda _: model, "Model that made the score, NAME/VERSION", filled=True),
        _text("features", lambda row: row.features, "Keys of the features that the score came from"),
        _text(
            "weights",
            _of_score("weights"),
            "Weights of the feature networks; scores from random ones mean nothing",
            values=("pretrained", "random"),
        ),
        _text(
            "face_check",
            _of_score("face_check"),
            f"Second detector, which gave confirmed_share: landmarks is less certain than yunet{_ADDED}",
            values=("yunet", "landmarks"),
        ),
        _text(
            "abstain",
            _of_score("abstain"),
            "Why the score should not be used, as codes separated by spaces; empty if nothing speaks against it",
        ),
        *bounds,
        _text("video_sha256", lambda row: row.video_sha256, "SHA-256 of the video file's bytes, in hex"),
        TraitColumn(
            "scored_at", TIME, _of_score("scored_at"), f"When the run that made the score began, in UTC{_ADDED}"
        ),
    )


def _text(name: str, value: Callable[[Row], Any], description: str, **rest: Any) -> TraitColumn:
    return TraitColumn(name, pa.string(), value, description, **rest)


def _status(row: Row) -> str:
    return "failed" if isinstance(row, Unscored) else "scored"


def _reason(row: Row) -> str:
    return row.reason if isinstance(row, Unscored) else ""


def _of_score(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row, name) if isinstance(row, Score) else None


def _part(name: str, place: int) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        values = getattr(row, name) if isinstance(row, Score) else None
        return None if values is None else values[place]

    return value


def _number(name: str, description: str, unit: str, minimum: float, maximum: float | None = None) -> TraitColumn:
    """Describe a number that a score holds under the same name."""
    return TraitColumn(name, SCORE_SCHEMA.field(name).type, _of_score(name), description, unit, minimum, maximum)


_MATERIAL = (
    _number("face_coverage", "Share of frames in which the main person's face was detected", "1", 0, 1),
    _number("face_gaps", f"Runs of frames without it, including those at either end{_ADDED}", "count", 0),
    _number("longest_gap_s", f"Duration of the longest of these runs{_ADDED}", "s", 0),
    _number(
        "people",
        "Faces that are seen together in at least 5 % of the frames; people who are seen one after the other count as "
        f"one{_ADDED}",
        "count",
        1,
    ),
    _number("others_share", f"Share of frames in which somebody else's face was detected{_ADDED}", "1", 0, 1),
    _number(
        "confirmed_share",
        "Share of up to 16 pictures of the main person's face that a second, independent detector also recognised as a "
        f"face{_ADDED}",
        "1",
        0,
        1,
    ),
    _number(
        "decoded_share",
        "Frames that could be decoded over those that the file promises, or the same for its duration; empty if it "
        f"promises nothing; what comes before the first key frame is not counted{_ADDED}",
        "1",
        0,
        1,
    ),
    _number(
        "repeated_share",
        "Share of frames that repeat the one before because the file has no newer one: about 1 - frames per second / "
        f"25 for slow sources, more if pictures are held; motion then comes in jumps{_ADDED}",
        "1",
        0,
        1,
    ),
    _number("static_tokens", "Face crops that the model saw", "count", 0),
    _number("dynamic_tokens", "Windows of motion that the model saw", "count", 0),
)

"""The columns of an export: name, type, meaning and range of each, stated once for CSV, Parquet and data dictionary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from storage.exports.rows import TraitRow
from storage.tables.scores import TRAIT_COUNT

TIME = pa.timestamp("s", tz="UTC")
_BEFORE = "; empty for scores of before this was recorded"


@dataclass(frozen=True, slots=True)
class TraitColumn:
    """One column of an export.

    Args:
        name: in the header.
        type: string, float32, int32 or `TIME`.
        value: what a row has there; None for an empty cell.
        description: what it means, for people.
        unit: of the numbers.
        minimum, maximum: that the numbers never leave; None where there is no bound.
        values: all that there can be, where they are few.
        filled: whether every row has it.
    """

    name: str
    type: pa.DataType
    value: Callable[[TraitRow], Any]
    description: str
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] | None = None
    filled: bool = False


def trait_columns(trait_names: Sequence[str]) -> tuple[TraitColumn, ...]:
    """All columns, in their order: what there is of a row, of its score, and the bounds of the traits.

    Args:
        trait_names: names of the columns for the traits, in the trait order.

    Raises:
        ValueError: there are not as many names as traits.
    """
    if len(trait_names) != TRAIT_COUNT:
        raise ValueError(f"there are {TRAIT_COUNT} traits for {len(trait_names)} columns")
    text = pa.string()
    return (
        TraitColumn("video_id", text, _of_row("video_id"), "Path relative to the videos folder", filled=True),
        *(
            TraitColumn(
                name,
                pa.float32(),
                _part("traits", place),
                f"Apparent {name}: what viewers ascribe to the speaker, on the scale of the labels, not cut to their "
                "range; empty without a score",
                unit="label scale, 0 to 1 for First Impressions",
            )
            for place, name in enumerate(trait_names)
        ),
        TraitColumn(
            *("face_coverage", pa.float32(), _of_score("face_coverage")),
            "Share of frames in which the main person's face was detected",
            *("1", 0, 1),
        ),
        TraitColumn(
            *("face_gaps", pa.int32(), _of_score("face_gaps")),
            f"Runs of frames in which it was not, at the beginning and the end too{_BEFORE}",
            *("count", 0),
        ),
        TraitColumn(
            *("longest_gap_s", pa.float32(), _of_score("longest_gap_s")),
            f"Duration of the longest of these runs{_BEFORE}",
            *("s", 0),
        ),
        TraitColumn(
            *("people", pa.int32(), _of_score("people")),
            "Faces that are seen together in at least 5 % of the frames; people who are seen one after the other count "
            f"as one{_BEFORE}",
            *("count", 1),
        ),
        TraitColumn(
            *("others_share", pa.float32(), _of_score("others_share")),
            f"Share of frames in which somebody else's face was detected{_BEFORE}",
            *("1", 0, 1),
        ),
        TraitColumn(
            *("confirmed_share", pa.float32(), _of_score("confirmed_share")),
            "Share of up to 16 pictures of the main person's face that a second, independent detector took for a face "
            f"as well{_BEFORE}",
            *("1", 0, 1),
        ),
        TraitColumn(
            *("decoded_share", pa.float32(), _of_score("decoded_share")),
            "Frames that could be decoded over those that the file promises, or the same of its duration; empty where "
            f"it promises nothing; what lies before the first key frame is not counted{_BEFORE}",
            *("1", 0, 1),
        ),
        TraitColumn(
            *("repeated_share", pa.float32(), _of_score("repeated_share")),
            "Share of frames that repeat the one before because the file has no newer one: about 1 - frames per second "
            f"/ 25 for slow sources, more where pictures are held; motion then comes in jumps{_BEFORE}",
            *("1", 0, 1),
        ),
        TraitColumn(
            "static_tokens", pa.int32(), _of_score("static_tokens"), "Face crops that the model saw", "count", 0
        ),
        TraitColumn(
            *("dynamic_tokens", pa.int32(), _of_score("dynamic_tokens"), "Windows of motion that the model saw"),
            *("count", 0),
        ),
        TraitColumn(
            *("status", text, _of_row("status"), "Whether there is a score"),
            values=("scored", "failed"),
            filled=True,
        ),
        TraitColumn("reason", text, _of_row("reason"), "Why there is no score, as a code; empty with a score"),
        TraitColumn("model", text, _of_row("model"), "Model that made the score, NAME/VERSION", filled=True),
        TraitColumn("features", text, _of_row("features"), "Keys of the features that the score came from"),
        TraitColumn(
            *("weights", text, _of_score("weights")),
            "Weights of the feature networks; scores from random ones mean nothing",
            values=("pretrained", "random"),
        ),
        TraitColumn(
            *("abstain", text, _of_score("abstain")),
            "Why the score should not be used, as codes with a space between; empty where nothing speaks against it",
        ),
        *(
            TraitColumn(
                f"{name}_{bound}",
                pa.float32(),
                _part(bound, place),
                f"{word} bound of the interval for {name}; empty where the model has no calibration",
                unit="label scale, 0 to 1 for First Impressions",
            )
            for place, name in enumerate(trait_names)
            for bound, word in (("low", "Lower"), ("high", "Upper"))
        ),
        TraitColumn("video_sha256", text, _of_row("video_sha256"), "SHA-256 of the video file's bytes, in hex"),
        TraitColumn(
            *("scored_at", TIME, _of_score("scored_at")),
            "When the run began that made the score, in UTC; empty for scores of before this was recorded",
        ),
    )


def _of_row(name: str) -> Callable[[TraitRow], Any]:
    return lambda row: getattr(row, name)


def _of_score(name: str) -> Callable[[TraitRow], Any]:
    return lambda row: None if row.score is None else getattr(row.score, name)


def _part(name: str, place: int) -> Callable[[TraitRow], float | None]:
    def value(row: TraitRow) -> float | None:
        values = None if row.score is None else getattr(row.score, name)
        return None if values is None else values[place]

    return value

"""The trait CSV: one row per video, scored or failed, for people with a spreadsheet and for programs.

RFC 4180 with CRLF, UTF-8 without a byte order mark, one header line:

    video_id, <the five traits>, face_coverage, static_tokens, dynamic_tokens, status, reason, model, features, weights,
    abstain, <trait>_low and <trait>_high for each of the five

Scores, bounds and face_coverage are float32, written as the shortest decimals that give the same float32 again. In a
failed video's row the cells for numbers are empty, and so are all bounds of a model without a calibration.

A spreadsheet runs a cell that begins with = + - @, a tab or a line break as a formula, even one in quotes, and names of
clips can really begin so ("-AmMDnVl4s8.003.mp4"). Such a text cell gets one apostrophe in front. So that this can be
undone without guessing, a text cell that begins with an apostrophe gets one more as well: whoever needs exact names, to
join on video_id for instance, takes one leading apostrophe away wherever there is one. `read_trait_csv` does so.
Cells for numbers stay as they are; a negative score is a number, not a formula.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from storage.commit import commit_file
from storage.errors import StoreError
from storage.failures import Failure
from storage.paths import StorePath, local_copy, store_path
from storage.scores import Score

_NUMBERS = ("face_coverage", "static_tokens", "dynamic_tokens")
_TEXTS = ("status", "reason", "model", "features", "weights", "abstain")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - full-width forms


@dataclass(frozen=True, slots=True)
class TraitRow:
    """One video in the trait CSV.

    Args:
        video_id: POSIX path of the file below the videos folder, with its extension.
        traits: float32 numbers in the trait order; None where the video failed, and so for the next three.
        face_coverage: share of frames with a face of the main person, 0 to 1, float32.
        static_tokens: number of static tokens that the model saw.
        dynamic_tokens: number of dynamic tokens that the model saw.
        status: whether there is a score.
        reason: the failure's reason code, else empty.
        model: "<name>/<version>".
        features: keys of the features.
        weights: which weights the extractors had; empty where the video failed.
        abstain: why the score should not be used, as codes with a space between; empty where nothing speaks against.
        low: lower bounds of the traits' intervals, float32; None where there are none.
        high: upper bounds, likewise.
    """

    video_id: str
    traits: tuple[float, ...] | None
    face_coverage: float | None
    static_tokens: int | None
    dynamic_tokens: int | None
    status: Literal["scored", "failed"]
    reason: str
    model: str
    features: str
    weights: str
    abstain: str = ""
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @classmethod
    def scored(cls, score: Score, model: str) -> TraitRow:
        """Make the row of a video that has a score; `model` is "<name>/<version>"."""
        return cls(
            video_id=score.video_id,
            traits=score.traits,
            face_coverage=score.face_coverage,
            static_tokens=score.static_tokens,
            dynamic_tokens=score.dynamic_tokens,
            status="scored",
            reason="",
            model=model,
            features=f"static:{score.static_key} dynamic:{score.dynamic_key}",
            weights=score.weights,
            abstain=score.abstain,
            low=score.low,
            high=score.high,
        )

    @classmethod
    def failed(cls, failure: Failure, model: str) -> TraitRow:
        """Make the row of a video that could not be used; `model` is the one that would have scored it."""
        return cls(
            video_id=failure.video_id,
            traits=None,
            face_coverage=None,
            static_tokens=None,
            dynamic_tokens=None,
            status="failed",
            reason=failure.reason,
            model=model,
            features=failure.key,
            weights="",
        )


def write_trait_csv(path: str | StorePath, rows: Iterable[TraitRow], *, trait_names: Sequence[str]) -> int:
    """Write the CSV, whole or not at all, holding one row at a time.

    Args:
        path: of the CSV; an older file there is replaced.
        rows: in ascending order of video_id, each video once. `ScoreStore.read` and `FailureLog.current` have this
            order; `heapq.merge(scored, failed, key=lambda row: row.video_id)` joins them.
        trait_names: names of the columns for the traits, in the trait order.

    Returns:
        The number of rows.

    Raises:
        ValueError: the rows are out of order, a video comes twice, or a row has other traits or a number that is not
            finite.
        StoreError: the operating system refused.
    """
    count = 0
    previous = None
    with commit_file(store_path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(_header(trait_names))
        for row in rows:
            if previous is not None and row.video_id <= previous:
                raise ValueError(f"rows must come in order of video_id, each once: {row.video_id!r} after {previous!r}")
            writer.writerow(_cells(row, len(trait_names)))
            previous = row.video_id
            count += 1
    return count


def read_trait_csv(path: str | StorePath, *, trait_names: Sequence[str]) -> Iterator[TraitRow]:
    """Read what `write_trait_csv` wrote, row by row.

    Raises:
        StoreError: the file cannot be read or is no trait CSV with these traits.
    """
    try:
        with local_copy(store_path(path)) as copy, copy.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            if next(reader, None) != _header(trait_names):
                raise StoreError(f"{path} is not a trait CSV: its first line is not the header")
            for cells in reader:
                yield _row(cells, len(trait_names))
    except (OSError, ValueError, csv.Error) as error:
        raise StoreError(f"cannot read {path} as a trait CSV: {error}") from error


def _header(trait_names: Sequence[str]) -> list[str]:
    bounds = [f"{name}_{bound}" for name in trait_names for bound in ("low", "high")]
    return ["video_id", *trait_names, *_NUMBERS, *_TEXTS, *bounds]


def _cells(row: TraitRow, traits: int) -> list[str]:
    if row.traits is None:
        numbers = [""] * (traits + len(_NUMBERS))
    else:
        if len(row.traits) != traits:
            raise ValueError(f"{row.video_id}: there are {len(row.traits)} traits for {traits} columns")
        floats = [_decimal(value) for value in (*row.traits, row.face_coverage)]
        numbers = [*floats, str(row.static_tokens), str(row.dynamic_tokens)]
    bounds = [""] * (2 * traits)
    if row.low is not None and row.high is not None:
        bounds = [_decimal(value) for pair in zip(row.low, row.high, strict=True) for value in pair]
    texts = (getattr(row, name) for name in _TEXTS)
    return [_harmless(row.video_id), *numbers, *map(_harmless, texts), *bounds]


def _row(cells: list[str], traits: int) -> TraitRow:
    texts_at = 1 + traits + len(_NUMBERS)
    bounds_at = texts_at + len(_TEXTS)
    if len(cells) != bounds_at + 2 * traits:
        raise ValueError(f"a row has {len(cells)} cells")
    video_id, status, reason, model, features, weights, abstain = map(
        _as_it_was, (cells[0], *cells[texts_at:bounds_at])
    )
    if status not in ("scored", "failed"):
        raise ValueError(f"a row has the status {status!r}")
    numbers, bounds = cells[1:texts_at], cells[bounds_at:]
    scored, bounded = status == "scored", any(bounds)
    return TraitRow(
        video_id=video_id,
        traits=_floats(numbers[:traits]) if scored else None,
        face_coverage=float(np.float32(numbers[traits])) if scored else None,
        static_tokens=int(numbers[traits + 1]) if scored else None,
        dynamic_tokens=int(numbers[traits + 2]) if scored else None,
        status=status,
        reason=reason,
        model=model,
        features=features,
        weights=weights,
        abstain=abstain,
        low=_floats(bounds[::2]) if bounded else None,
        high=_floats(bounds[1::2]) if bounded else None,
    )


def _floats(cells: Sequence[str]) -> tuple[float, ...]:
    return tuple(float(np.float32(cell)) for cell in cells)


def _decimal(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"scores and face_coverage must be finite numbers, not {value}")
    return str(np.float32(value))  # numpy's str is the shortest decimal that round-trips its own dtype


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith((*_FORMULA_STARTS, "'")) else text


def _as_it_was(text: str) -> str:
    return text.removeprefix("'")

"""Labels: five numbers per clip and the person in it, from CSV, Parquet or First Impressions pickles."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fusion.errors import LabelError, one_line, some_of
from fusion.labels.first_impressions import annotation_files, part_of_file, read_first_impressions
from fusion.labels.parts import PARTS, Part, part_named
from fusion.labels.text_tables import ENDINGS, TextTable, read_text_table
from fusion.traits import TRAITS

ID_COLUMNS = (
    "video_id",
    "path",
    "video",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "video_path",
    "video_name",
    "name",
    "clip",
)
"""Columns that may identify the video of a row, in order of preference; case does not matter."""

SUBJECT_COLUMN = "subject"
SPLIT_COLUMN = "split"
_KNOWN = (*ID_COLUMNS, *TRAITS, SUBJECT_COLUMN, SPLIT_COLUMN)
_NEUROTICISM = TRAITS.index("neuroticism")
# Python's float() also accepts "0_1", "nan" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_MAX_NAMED = 5
# The usual scales of questionnaires and ratings.
_SCALES = ((1, 5), (1, 7), (0, 7), (1, 9), (0, 10), (0, 100), (-1, 1), (-3, 3))


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A label file in memory.

    Attributes:
        names: N clip names as the file has them, each once.
        values: float32 [N, 5] in [0, 1], trait order.
        subjects: the person in each clip; if the file does not name them, the clip's own name, so that a split may put
            clips of one person on both sides.
        neuroticism_inverted: whether neuroticism is 1 minus the file's value.
        parts: the part of the official split that each clip belongs to; None if the file does not give it.
    """

    names: tuple[str, ...]
    values: np.ndarray
    subjects: tuple[str, ...]
    subjects_known: bool
    neuroticism_inverted: bool
    parts: tuple[Part, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """One file: names, values float64 [N, 5], subjects and parts if any, and where each row is, as in "line 3"."""

    names: list[str]
    values: np.ndarray
    subjects: list[str] | None
    parts: list[Part] | None
    places: list[str]


def read_labels(path: str | Path, *, invert_neuroticism: bool | None = None) -> Labels:
    """Read a label file, or the folder of First Impressions' annotation files.

    - `.csv` (`.tsv`, `.txt`) and `.parquet`: one of `ID_COLUMNS`, the five traits in any order, and optionally
      `subject` and `split` (training, validation or test); other columns are ignored. `fusion.labels.text_tables`
      describes the text formats; if semicolons or tabs separate the cells, the decimal separator may be a comma.
    - `.pkl`: First Impressions V2, whose subject is the YouTube id.
    - A folder: all its `annotation_*.pkl`, also in subfolders; the file's name gives the part of the official split.

    Args:
        invert_neuroticism: use 1 - x for neuroticism. By default this is done for First Impressions pickles only: their
            "neuroticism" rises with the other four traits, so it is emotional stability, but readers of the trait CSV
            expect what the column's name says. The usual error measures, correlations and R2 do not change. Pass True
            for a table made from First Impressions, and False to keep the pickles' own direction.

    Raises:
        LabelError: the format is unknown, the file cannot be read, columns are missing, there are no rows, values are
            not numbers in [0, 1], or a name appears twice, even in two files.
    """
    path = Path(path)
    files = annotation_files(path) if path.is_dir() else [path]
    pickled = files[0].suffix.lower() == ".pkl"
    tables = [_read(file) for file in files]
    names = [name for table in tables for name in table.names]
    values = np.concatenate([table.values for table in tables])
    places = [
        f"{place} of {file.name}" if len(files) > 1 else place
        for file, table in zip(files, tables, strict=True)
        for place in table.places
    ]
    _check(path, names, values, places)
    if invert_neuroticism is None:
        invert_neuroticism = pickled
    if invert_neuroticism:
        values[:, _NEUROTICISM] = 1 - values[:, _NEUROTICISM]
    subjects = _joined(table.subjects for table in tables)
    return Labels(
        names=tuple(names),
        values=values.astype(np.float32),
        subjects=tuple(names) if subjects is None else subjects,
        subjects_known=subjects is not None,
        neuroticism_inverted=invert_neuroticism,
        parts=_joined(table.parts for table in tables),
    )


def _read(path: Path) -> _Table:
    if not path.suffix and not path.exists():  # most likely a mistyped folder
        raise LabelError(f"cannot read the labels {path}: there is no such file or folder")
    readers = {**dict.fromkeys(ENDINGS, _read_csv), ".parquet": _read_parquet, ".pkl": _read_pickle}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise LabelError(
            f"{path}: labels are read from .csv, .parquet or .pkl (First Impressions V2) files, and from .tsv and .txt "
            "as from .csv"
        )
    try:
        table = reader(path)
    except OSError as error:
        raise LabelError(f"cannot read the labels {path}: {error.strerror or one_line(error)}") from error
    if not table.names:
        raise LabelError(f"{path} holds no labels: add one row per clip")
    return table


def _check(path: Path, names: Sequence[str], values: np.ndarray, places: Sequence[str]) -> None:
    """Refuse invalid names and values."""
    nameless = [place for name, place in zip(names, places, strict=True) if not name.strip()]
    if nameless:
        raise LabelError(f"{path}: a clip has no name: fill it in, or remove the row: {some_of(nameless)}")
    unusable = [place for name, place in zip(names, places, strict=True) if "\0" in name]
    if unusable:
        raise LabelError(f"{path}: a clip's name holds a NUL character; correct it in {some_of(unusable)}")
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        places_of = defaultdict(list)
        for name, place in zip(names, places, strict=True):
            places_of[name].append(place)
        words = [f"{some_of([name])} is in {_together(places_of[name])}" for name in double]
        more = f"; and {len(words) - _MAX_NAMED} more clips" if len(words) > _MAX_NAMED else ""
        raise LabelError(f"{path}: {'; '.join(words[:_MAX_NAMED])}{more}; keep one row per clip")
    _refuse_scale(path, values)
    outside = np.argwhere(~((values >= 0) & (values <= 1)))
    _refuse_values(path, (f"{names[row]}, {TRAITS[trait]}: {values[row, trait]:g}" for row, trait in outside))


def _together(places: Sequence[str]) -> str:
    """Join places: "lines 3 and 9", or "line 3 and line 9 of b.csv"."""
    kind = places[0].partition(" ")[0]
    numbers = [place.removeprefix(f"{kind} ") for place in places]
    if not all(number.isdecimal() for number in numbers):
        return " and ".join(places)
    return f"{kind}s {', '.join(numbers[:-1])} and {numbers[-1]}"


def _refuse_scale(path: Path, values: np.ndarray) -> None:
    """Refuse numbers on another scale, that is, most of them outside [0, 1]; NaN stands for a cell without a number."""
    numbers = values[np.isfinite(values)]
    if np.count_nonzero((numbers < 0) | (numbers > 1)) * 2 <= values.size:
        return
    low, high = numbers.min(), numbers.max()
    if low == high:
        return
    # A file may not use its whole scale; guess the first of the usual scales that contains all numbers.
    bottom, top = next((scale for scale in _SCALES if scale[0] <= low and high <= scale[1]), (float(low), float(high)))
    shifted = "x" if bottom == 0 else f"(x {'-' if bottom > 0 else '+'} {abs(bottom):g})"
    raise LabelError(
        f"{path}: values range from {low:g} to {high:g}; bring them to [0, 1], for instance {shifted} / "
        f"{top - bottom:g} if their scale ranges from {bottom:g} to {top:g}"
    )


def _refuse_values(path: Path, wrong: Iterable[str]) -> None:
    """Refuse a file if it has wrong values, each given with its place."""
    wrong = list(wrong)
    if wrong:
        more = f"; and {len(wrong) - _MAX_NAMED} more" if len(wrong) > _MAX_NAMED else ""
        raise LabelError(
            f"{path}: each trait must be a number in [0, 1]; correct or remove {'; '.join(wrong[:_MAX_NAMED])}{more}"
        )


def _joined(columns: Iterable[list[Any] | None]) -> tuple[Any, ...] | None:
    """Join one column of all files; return None if a file lacks it."""
    joined: list[Any] = []
    for column in columns:
        if column is None:
            return None
        joined += column
    return tuple(joined)


def _read_pickle(path: Path) -> _Table:
    names, values, subjects = read_first_impressions(path)
    part = part_of_file(path)
    return _Table(names, values, subjects, None if part is None else [part] * len(names), _rows(len(names)))


def _rows(count: int) -> list[str]:
    return [f"row {number}" for number in range(1, count + 1)]


@dataclass(frozen=True, slots=True)
class _Columns:
    """The positions of the clip name, the traits, the subject and the split; the last two may be missing."""

    name: int
    traits: list[int]
    subject: int | None
    split: int | None


def _columns(path: Path, header: Sequence[str]) -> _Columns:
    """Find the columns; case does not matter."""
    found = [name.strip().lower() for name in header]
    double = [name for name in _KNOWN if found.count(name) > 1]
    if double:
        raise LabelError(f"{path}: column {', '.join(double)} appears more than once")
    ids = [name for name in ID_COLUMNS if name in found]
    missing = [trait for trait in TRAITS if trait not in found]
    if not ids:
        missing.insert(0, f"video_id (or {', '.join(ID_COLUMNS[1:])})")
    if missing:
        word = "column" if len(missing) == 1 else "columns"
        separators = "; columns are separated by commas, semicolons or tabs" if len(found) == 1 else ""
        raise LabelError(f"{path} lacks the {word} {', '.join(missing)}; it has {some_of(found, 12)}{separators}")
    subject, split = (found.index(name) if name in found else None for name in (SUBJECT_COLUMN, SPLIT_COLUMN))
    return _Columns(found.index(ids[0]), [found.index(trait) for trait in TRAITS], subject, split)


def _read_csv(path: Path) -> _Table:
    table = read_text_table(path, _KNOWN)
    at = _columns(path, table.header)
    values = np.array([_numbers(table, row, at) for row in table.rows], np.float64).reshape(-1, len(TRAITS))
    percentages = sum(row[column].strip().endswith("%") for row in table.rows for column in at.traits)
    if percentages * 2 > values.size:
        raise LabelError(f"{path}: values are percentages; bring them to [0, 1]: divide by 100, without the % sign")
    _refuse_scale(path, values)
    _refuse_values(path, _wrong_cells(table, at, values))
    names = [row[at.name] for row in table.rows]
    subjects, splits = (
        [] if column is None else [row[column].strip() for row in table.rows] for column in (at.subject, at.split)
    )
    return _table(path, at, names, values, subjects, splits, [f"line {line}" for line in table.lines])


def _numbers(table: TextTable, row: Sequence[str], at: _Columns) -> list[float]:
    """Return the traits of a row; NaN for a cell without a number."""
    cells = [row[column].strip() for column in at.traits]
    if table.separator != ",":
        cells = [cell.replace(",", ".") for cell in cells]
    return [float(cell) if _NUMBER.fullmatch(cell) else np.nan for cell in cells]


def _wrong_cells(table: TextTable, at: _Columns, values: np.ndarray) -> Iterator[str]:
    for row, trait in np.argwhere(~((values >= 0) & (values <= 1))):
        cell = table.rows[row][at.traits[trait]]
        yield f"line {table.lines[row]}, column {TRAITS[trait]}: {'an empty cell' if not cell.strip() else repr(cell)}"


def _read_parquet(path: Path) -> _Table:
    try:
        header = pq.read_schema(path).names
        at = _columns(path, header)
        wanted = [column for column in (at.name, *at.traits, at.subject, at.split) if column is not None]
        table = pq.read_table(path, columns=[header[column] for column in wanted])

        def text(column: int | None) -> list[str]:
            if column is None:
                return []
            return [value or "" for value in table[header[column]].cast(pa.string()).to_pylist()]

        names, subjects, splits = text(at.name), text(at.subject), text(at.split)
        values = np.column_stack(
            [table.column(header[column]).cast(pa.float64()).to_numpy(zero_copy_only=False) for column in at.traits]
        )
    except OSError:
        raise
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise LabelError(f"{path} is not a Parquet table of labels ({one_line(error)})") from error
    return _table(path, at, names, values, subjects, splits, _rows(len(names)))


def _table(
    path: Path,
    at: _Columns,
    names: list[str],
    values: np.ndarray,
    subjects: list[str],
    splits: list[str],
    places: list[str],
) -> _Table:
    """Assemble a table; if it has subjects or splits, every row must have one."""
    if at.subject is not None:
        lacking = [name for name, subject in zip(names, subjects, strict=True) if subject == ""]
        if lacking:
            raise LabelError(f"{path}: fill in the subject of every clip; it is empty for {some_of(lacking)}")
    named = [part_named(split) for split in splits] if at.split is not None else []
    parts = [part for part in named if part is not None]
    if len(parts) < len(named):
        odd = [name for name, part in zip(names, named, strict=True) if part is None]
        raise LabelError(
            f"{path}: a split is one of {', '.join(PARTS)}; correct it, or rename that column; it is something else "
            f"for {some_of(odd)}"
        )
    return _Table(
        names, values, subjects if at.subject is not None else None, parts if at.split is not None else None, places
    )
